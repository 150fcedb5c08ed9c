//! Podbay's private service, as the shim serves it: what CRI needs and the Task API lacks.

use async_trait::async_trait;
use protobuf::well_known_types::empty::Empty;
use shim_api::{
    proto::supervisor_ttrpc,
    supervisor::{
        AttachRequest, ExecRequest, ExecSyncPiece, ExecSyncRequest, HandOver, ListResponse,
        ReopenLogRequest,
    },
};
use ttrpc::r#async::{ServerStreamSender, TtrpcContext};

use crate::{
    error::Error,
    exec::{Listener, Terms},
    server::{Server, size, state_of, to_the_end, within},
    state::State,
    stdio::Wanted,
    tasks::Streamed,
};

struct Caller(ServerStreamSender<ExecSyncPiece>);

#[async_trait]
impl Listener for Caller {
    async fn hear(&self, piece: ExecSyncPiece) -> Result<(), Error> {
        self.0.send(&piece).await.map_err(|_| Error::Abandoned)
    }
}

fn streamed(request: ExecRequest) -> Result<Streamed, Error> {
    let ExecRequest { id, exec_id: name, args, stdin, stdout, stderr, .. } = request;
    let size = request.terminal.as_ref().map(|of| size(of.width, of.height)).transpose()?;
    let wanted = Wanted { stdin, stdout, stderr };
    Ok(Streamed { id, name, args, terminal: size, wanted })
}

#[async_trait]
impl supervisor_ttrpc::Supervisor for Server {
    async fn list(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<ListResponse> {
        // What is still being made is not there yet, and may never be.
        let made = |task: &std::sync::Arc<crate::task::Task>| task.state() != State::Making;
        let tasks = self.tasks.all().into_iter().filter(made).map(|task| state_of(&task)).collect();
        Ok(ListResponse { tasks, ..Default::default() })
    }

    async fn reopen_log(
        &self,
        _: &TtrpcContext,
        request: ReopenLogRequest,
    ) -> ttrpc::Result<Empty> {
        self.tasks.reopen_log(&request.id)?;
        Ok(Empty::new())
    }

    async fn exec_sync(
        &self,
        _: &TtrpcContext,
        request: ExecSyncRequest,
        pieces: ServerStreamSender<ExecSyncPiece>,
    ) -> ttrpc::Result<()> {
        let terms = Terms::new(request.timeout, request.limit);
        let ExecSyncRequest { id, exec_id, args, .. } = request;
        // ttrpc runs streams on tasks of their own already.
        Ok(self.tasks.exec(&id, exec_id, &args, &terms, &Caller(pieces)).await?)
    }

    async fn exec(&self, context: &TtrpcContext, request: ExecRequest) -> ttrpc::Result<HandOver> {
        let (tasks, within) = (self.tasks.clone(), within(context));
        let command = streamed(request)?;
        Ok(to_the_end(async move { tasks.exec_streamed(command, within).await }).await?)
    }

    async fn attach(&self, _: &TtrpcContext, request: AttachRequest) -> ttrpc::Result<HandOver> {
        let AttachRequest { id, stdin, stdout, stderr, .. } = request;
        Ok(self.tasks.attach(&id, Wanted { stdin, stdout, stderr })?)
    }
}
