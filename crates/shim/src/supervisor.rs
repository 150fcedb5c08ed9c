//! Podbay's private service, as the shim serves it: what CRI needs and the Task API lacks.

use async_trait::async_trait;
use protobuf::well_known_types::empty::Empty;
use shim_api::{
    proto::supervisor_ttrpc,
    supervisor::{ExecSyncPiece, ExecSyncRequest, ListResponse, ReopenLogRequest},
};
use ttrpc::r#async::{ServerStreamSender, TtrpcContext};

use crate::{
    error::Error,
    exec::{Listener, Terms},
    server::{Server, state_of},
    state::State,
};

struct Caller(ServerStreamSender<ExecSyncPiece>);

#[async_trait]
impl Listener for Caller {
    async fn hear(&self, piece: ExecSyncPiece) -> Result<(), Error> {
        self.0.send(&piece).await.map_err(|_| Error::Abandoned)
    }
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
}
