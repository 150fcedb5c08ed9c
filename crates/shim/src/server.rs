//! containerd's Task API, as the shim serves it: messages in and out of what [`Tasks`] does.
//!
//! Whoever asks may go away, and ttrpc then drops the call. What changes anything is therefore
//! done on a task of its own, to its end.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;
use protobuf::{Message as _, MessageField, well_known_types::empty::Empty};
use shim_api::{
    Exit, OPTIONS_URL, RESOURCES_URL, Size,
    client::timestamp,
    process::ProcessInfo,
    proto::task_ttrpc,
    stdio,
    supervisor::CreateOptions,
    task::{
        CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, KillRequest, PidsRequest, PidsResponse, ResizePtyRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
};
use tokio::sync::Notify;
use ttrpc::r#async::TtrpcContext;

use crate::{
    error::Error,
    task::Task,
    tasks::{Tasks, Wanted},
};

/// How long a call may take that says nothing of it.
const DEFAULT: Duration = Duration::from_secs(120);

/// How much earlier than we are told we give up, so that the caller hears why. Our client tells us
/// of a second more than it has.
const HEADSTART: Duration = Duration::from_millis(1500);

pub struct Server {
    pub tasks: Arc<Tasks>,
    /// Told when the process shall end.
    pub stop: Arc<Notify>,
}

/// Runs to its end whoever is still listening.
pub async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(work).await.expect("no work panics, and none is aborted")
}

/// How long a call may take.
pub fn within(context: &TtrpcContext) -> Duration {
    match u64::try_from(context.timeout_nano) {
        Ok(nanos @ 1..) => {
            let asked = Duration::from_nanos(nanos);
            asked.saturating_sub(HEADSTART).max(asked / 4)
        }
        _ => DEFAULT,
    }
}

/// Commands are run by our private service, which needs no more of this one than Kill.
fn init_only(exec: &str) -> Result<(), Error> {
    if exec.is_empty() { Ok(()) } else { Err(Error::Unserved("a call about a command")) }
}

/// A terminal's size as the kernel can have it.
pub fn size(width: u32, height: u32) -> Result<Size, Error> {
    let side = |n: u32| u16::try_from(n).map_err(|e| Error::bad("the size", e.to_string()));
    Ok(Size { width: side(width)?, height: side(height)? })
}

/// A task as the Task API has it.
pub fn state_of(task: &Task) -> StateResponse {
    let state = task.state();
    let mut reply = StateResponse {
        id: task.id.clone(),
        bundle: task.bundle.dir.to_string_lossy().into_owned(),
        pid: state.pid(),
        status: state.status().into(),
        terminal: task.bundle.terminal,
        ..Default::default()
    };
    if let Some(exit) = state.exit() {
        reply.exit_status = exit.code.cast_unsigned();
        reply.exited_at = MessageField::some(timestamp(exit.at));
        reply.oom = exit.oom;
    }
    reply
}

fn wanted(request: CreateTaskRequest) -> Result<Wanted, Error> {
    if !request.rootfs.is_empty() {
        return Err(Error::bad("rootfs", "this shim mounts nothing: it must be mounted already"));
    }
    if !request.checkpoint.is_empty() {
        return Err(Error::Unserved("restoring a checkpoint"));
    }
    let options = options(&request)?;
    let log = log_path(&request)?;
    Ok(Wanted {
        id: request.id,
        bundle: request.bundle.into(),
        runtime: (!options.runtime.is_empty()).then(|| options.runtime.into()),
        log,
        terminal: request.terminal,
        stdin: match request.stdin.as_str() {
            "" => false,
            stdio::HOLD => true,
            other => {
                return Err(Error::bad("stdin", format!("{other:?} is not {:?}", stdio::HOLD)));
            }
        },
        stdin_once: options.stdin_once,
        no_pivot: options.no_pivot,
        systemd_cgroup: options.systemd_cgroup,
    })
}

fn options(request: &CreateTaskRequest) -> Result<CreateOptions, Error> {
    let Some(any) = request.options.as_ref() else { return Ok(CreateOptions::new()) };
    if any.type_url != OPTIONS_URL {
        return Err(Error::bad("options", format!("{:?} is not {OPTIONS_URL:?}", any.type_url)));
    }
    CreateOptions::parse_from_bytes(&any.value).map_err(|e| Error::bad("options", e.to_string()))
}

fn log_path(request: &CreateTaskRequest) -> Result<Option<std::path::PathBuf>, Error> {
    if !matches!(request.stderr.as_str(), "") && request.stderr != request.stdout {
        return Err(Error::bad("stderr", "it must be empty, or what stdout is"));
    }
    match request.stdout.as_str() {
        "" => Ok(None),
        uri => stdio::log_path(uri)
            .map(Some)
            .ok_or_else(|| Error::bad("stdout", format!("{uri:?} is not a cri-log:// URI"))),
    }
}

fn resources(request: &UpdateTaskRequest) -> Result<LinuxResources, Error> {
    let bad = |why: String| Error::bad("resources", why);
    let any = request.resources.as_ref().ok_or_else(|| bad("there are none".to_owned()))?;
    if any.type_url != RESOURCES_URL {
        return Err(bad(format!("{:?} is not {RESOURCES_URL:?}", any.type_url)));
    }
    serde_json::from_slice(&any.value).map_err(|e| bad(e.to_string()))
}

#[async_trait]
impl task_ttrpc::Task for Server {
    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let (tasks, within) = (self.tasks.clone(), within(context));
        let wanted = wanted(request)?;
        let pid = to_the_end(async move { tasks.create(wanted, within).await }).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(
        &self,
        context: &TtrpcContext,
        request: StartRequest,
    ) -> ttrpc::Result<StartResponse> {
        init_only(&request.exec_id)?;
        let (tasks, within) = (self.tasks.clone(), within(context));
        let pid = to_the_end(async move { tasks.start(&request.id, within).await }).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        init_only(&request.exec_id)?;
        Ok(state_of(&*self.tasks.find(&request.id)?))
    }

    async fn delete(
        &self,
        context: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        init_only(&request.exec_id)?;
        let (tasks, within) = (self.tasks.clone(), within(context));
        let (pid, exit) =
            to_the_end(async move { tasks.delete(&request.id, within).await }).await?;
        let mut reply = DeleteResponse { pid, ..Default::default() };
        if let Some(Exit { code, at, oom }) = exit {
            reply.exit_status = code.cast_unsigned();
            reply.exited_at = MessageField::some(timestamp(at));
            reply.oom = oom;
        }
        Ok(reply)
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        if request.exec_id.is_empty() {
            self.tasks.kill(&request.id, request.signal, request.all)?;
        } else {
            self.tasks.find(&request.id)?.kill_exec(&request.exec_id);
        }
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        init_only(&request.exec_id)?;
        let Exit { code, at, oom } = self.tasks.wait(&request.id).await?;
        Ok(WaitResponse {
            exit_status: code.cast_unsigned(),
            exited_at: MessageField::some(timestamp(at)),
            oom,
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pids = self.tasks.pids(&request.id)?.into_iter();
        let processes = pids.map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn update(
        &self,
        context: &TtrpcContext,
        request: UpdateTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let (tasks, within) = (self.tasks.clone(), within(context));
        let resources = resources(&request)?;
        to_the_end(async move { tasks.update(&request.id, &resources, within).await }).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = MessageField::some(self.tasks.metrics(&request.id)?);
        Ok(StatsResponse { stats, ..Default::default() })
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        init_only(&request.exec_id)?;
        let task = self.tasks.find(&request.id)?;
        let Size { width, height } = size(request.width, request.height)?;
        let resized = task.with_terminal(|fd| crate::stdio::resize(fd, width, height));
        resized.ok_or_else(|| Error::bad("the container", "it has no terminal"))??;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        init_only(&request.exec_id)?;
        let task = self.tasks.find(&request.id)?;
        if request.stdin {
            task.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        let task = self.tasks.find(&request.id).ok();
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.map_or(0, |task| task.state().pid()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        context: &TtrpcContext,
        request: ShutdownRequest,
    ) -> ttrpc::Result<Empty> {
        let within = within(context);
        if request.now {
            for task in self.tasks.all() {
                let tasks = self.tasks.clone();
                to_the_end(async move { tasks.delete(&task.id, within).await }).await?;
            }
        }
        self.tasks.empty()?;
        self.stop.notify_one();
        Ok(Empty::new())
    }
}
