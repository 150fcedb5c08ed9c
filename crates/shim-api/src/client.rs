//! How the daemon speaks to a shim: one connection, made again when it was lost, and a deadline on
//! every call.

mod connection;
mod error;
mod streams;
mod types;

use std::{sync::Arc, time::Duration};

use names::Class;
use oci_spec::runtime::LinuxResources;
use protobuf::{Message as _, MessageField, well_known_types::any::Any};
use tokio::time::{sleep, timeout};
use ttrpc::{r#async::Client, context::Context};

use crate::{
    Address, EXEC_OUTPUT_LIMIT, Exit, OPTIONS_URL, RESOURCES_URL,
    proto::{supervisor_ttrpc::SupervisorClient, task_ttrpc::TaskClient},
    stdio, supervisor, task,
};
use connection::{Connection, Repeat};

pub use error::Error;
pub use streams::{AttachStart, Exec, ExecStart, Size};
pub use types::{CreateTask, ExecOutput, ExecSync, Stats, Status, TaskState, nanos, timestamp};

/// How long a command that ran out of time may take to be killed, its output drained, and the
/// answer to arrive.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// The first and the longest pause before a broken long poll is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A shim, by its address. Clones share one connection, which is made when it is first needed.
///
/// Every `within` is how long the call may take from now. When it runs out the answer is an error
/// of [`Class::DeadlineExceeded`], and the shim may still do what it was asked.
#[derive(Clone)]
pub struct Shim {
    connection: Arc<Connection>,
}

impl Shim {
    /// Connects to nothing yet.
    pub fn new(address: impl Into<Address>) -> Self {
        Self { connection: Arc::new(Connection::new(address.into())) }
    }

    /// Where it serves.
    pub fn address(&self) -> &Address {
        self.connection.address()
    }

    /// Creates a container and gives its init's pid on the host. It does not run yet.
    pub async fn create(&self, create: CreateTask, within: Duration) -> Result<u32, Error> {
        let request = create_request(create)?;
        let reply = self
            .connection
            .call("Create", within, Repeat::Never, |line| {
                let request = &request;
                async move { TaskClient::new(line).create(limit(within), request).await }
            })
            .await?;
        Ok(reply.pid)
    }

    /// Lets a created container run.
    pub async fn start(&self, id: &str, within: Duration) -> Result<u32, Error> {
        let request = task::StartRequest { id: id.to_owned(), ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).start(limit(within), request).await }
        };
        Ok(self.connection.call("Start", within, Repeat::Never, call).await?.pid)
    }

    /// Sends a signal to the container's init, or to `all` of its processes.
    pub async fn kill(
        &self,
        id: &str,
        signal: i32,
        all: bool,
        within: Duration,
    ) -> Result<(), Error> {
        let signal = u32::try_from(signal)
            .map_err(|_| Error::Untellable { what: "the signal", why: "it is negative" })?;
        let request = task::KillRequest { id: id.to_owned(), signal, all, ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).kill(limit(within), request).await }
        };
        self.connection.call("Kill", within, Repeat::Never, call).await.map(drop)
    }

    pub async fn state(&self, id: &str, within: Duration) -> Result<TaskState, Error> {
        let request = task::StateRequest { id: id.to_owned(), ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).state(limit(within), request).await }
        };
        self.connection.call("State", within, Repeat::Harmless, call).await?.try_into()
    }

    /// Waits until the container has ended, however long that takes. A lost connection is made
    /// again for as long as somebody listens on the socket; then it is [`Class::Unavailable`].
    pub async fn wait(&self, id: &str) -> Result<Exit, Error> {
        let request = task::WaitRequest { id: id.to_owned(), ..Default::default() };
        let mut pause = BACK_OFF.0;
        loop {
            let call = |line: Client| {
                let request = &request;
                async move { TaskClient::new(line).wait(Context::default(), request).await }
            };
            match self.connection.attempt("Wait", Repeat::Harmless, call).await {
                Ok(reply) => {
                    let why = || "it ended, but not at any time".to_owned();
                    return types::exit(reply.exit_status, &reply.exited_at, reply.oom)
                        .ok_or_else(|| Error::Nonsense { call: "Wait", why: why() });
                }
                Err(Error::Broken { .. }) => sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Unmakes a container, after killing it if it lives, and gives its exit if it had one. An
    /// unknown container is no error.
    pub async fn delete(&self, id: &str, within: Duration) -> Result<Option<Exit>, Error> {
        let request = task::DeleteRequest { id: id.to_owned(), ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).delete(limit(within), request).await }
        };
        match self.connection.call("Delete", within, Repeat::Harmless, call).await {
            Ok(reply) => Ok(types::exit(reply.exit_status, &reply.exited_at, reply.oom)),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a command in a running container to its end. When its timeout ends it is killed, and
    /// the error's class is [`Class::DeadlineExceeded`]. When this future is dropped, so is the
    /// command, as soon as the shim hears of it.
    pub async fn exec_sync(&self, id: &str, exec: ExecSync) -> Result<ExecOutput, Error> {
        let request = exec_request(id, &exec)?;
        let mut guard = ExecGuard::new(self, id, &request.exec_id);
        let work = self.exec_pieces(&request);
        let result = match exec.timeout.map(|timeout| timeout + KILL_GRACE) {
            None => work.await,
            Some(within) => timeout(within, work).await.unwrap_or_else(|_| {
                let address = self.address().clone();
                Err(Error::Late { address, call: "ExecSync", within })
            }),
        };
        guard.ended |= !matches!(result, Err(Error::Late { .. }));
        result
    }

    async fn exec_pieces(
        &self,
        request: &supervisor::ExecSyncRequest,
    ) -> Result<ExecOutput, Error> {
        let call = |line: Client| async move {
            SupervisorClient::new(line).exec_sync(Context::default(), request).await
        };
        let mut pieces = self.connection.attempt("ExecSync", Repeat::Never, call).await?;
        let mut output = ExecOutput::default();
        loop {
            let piece = pieces.recv().await.map_err(|source| self.exec_broken(source))?;
            let Some(piece) = piece else {
                return Err(self.exec_broken(ttrpc::Error::Eof));
            };
            keep(&mut output.stdout, piece.stdout);
            keep(&mut output.stderr, piece.stderr);
            if piece.ended {
                output.code = piece.exit_code;
                return Ok(output);
            }
        }
    }

    fn exec_broken(&self, source: ttrpc::Error) -> Error {
        Error::refusal(&source).unwrap_or_else(|| Error::Broken {
            address: self.address().clone(),
            call: "ExecSync",
            source,
        })
    }

    /// Changes a container's limits.
    pub async fn update(
        &self,
        id: &str,
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), Error> {
        let value = serde_json::to_vec(resources)
            .map_err(|_| Error::Untellable { what: "the resources", why: "not JSON" })?;
        let request = task::UpdateTaskRequest {
            id: id.to_owned(),
            resources: any(RESOURCES_URL, value),
            ..Default::default()
        };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).update(limit(within), request).await }
        };
        self.connection.call("Update", within, Repeat::Harmless, call).await.map(drop)
    }

    /// A container's metrics now.
    pub async fn stats(&self, id: &str, within: Duration) -> Result<Stats, Error> {
        let request = task::StatsRequest { id: id.to_owned(), ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).stats(limit(within), request).await }
        };
        self.connection.call("Stats", within, Repeat::Harmless, call).await?.try_into()
    }

    /// Opens the log's path anew, after a rotation. On an error the old file stays in use.
    pub async fn reopen_log(&self, id: &str, within: Duration) -> Result<(), Error> {
        let request = supervisor::ReopenLogRequest { id: id.to_owned(), ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { SupervisorClient::new(line).reopen_log(limit(within), request).await }
        };
        self.connection.call("ReopenLog", within, Repeat::Harmless, call).await.map(drop)
    }

    /// Every task that the shim has.
    pub async fn list(&self, within: Duration) -> Result<Vec<TaskState>, Error> {
        let call = |line: Client| async move {
            SupervisorClient::new(line).list(limit(within), &Default::default()).await
        };
        let reply = self.connection.call("List", within, Repeat::Harmless, call).await?;
        reply.tasks.into_iter().map(TaskState::try_from).collect()
    }

    /// The shim's own pid.
    pub async fn pid(&self, within: Duration) -> Result<u32, Error> {
        let call = |line: Client| async move {
            TaskClient::new(line).connect(limit(within), &Default::default()).await
        };
        let reply = self.connection.call("Connect", within, Repeat::Harmless, call).await?;
        Ok(reply.shim_pid)
    }

    /// Asks the shim to end. With tasks left that is [`Class::FailedPrecondition`].
    pub async fn shutdown(&self, within: Duration) -> Result<(), Error> {
        self.end(false, within).await
    }

    /// Asks the shim to kill and delete all of its tasks, and to end.
    pub async fn shutdown_now(&self, within: Duration) -> Result<(), Error> {
        self.end(true, within).await
    }

    async fn end(&self, now: bool, within: Duration) -> Result<(), Error> {
        let request = task::ShutdownRequest { now, ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).shutdown(limit(within), request).await }
        };
        self.connection.call("Shutdown", within, Repeat::Never, call).await.map(drop)
    }
}

fn limit(within: Duration) -> Context {
    let within = within.saturating_add(Duration::from_secs(1));
    let timeout_nano = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
    Context { timeout_nano, ..Context::default() }
}

fn any(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
    MessageField::some(Any { type_url: type_url.to_owned(), value, ..Any::default() })
}

fn create_request(create: CreateTask) -> Result<task::CreateTaskRequest, Error> {
    let untellable = |what, why| Error::Untellable { what, why };
    let bundle = create.bundle.into_os_string().into_string();
    let no_log = || untellable("the log's path", "it is not absolute, or not UTF-8");
    let log = |path| stdio::log_uri(path).ok_or_else(no_log);
    let stdout = create.log.as_deref().map(log).transpose()?;
    let options = supervisor::CreateOptions {
        runtime: create.runtime,
        no_pivot: create.no_pivot,
        systemd_cgroup: create.systemd_cgroup,
        stdin_once: create.stdin_once,
        ..Default::default()
    };
    let value = options.write_to_bytes().map_err(|_| untellable("the options", "too large"))?;
    Ok(task::CreateTaskRequest {
        id: create.id,
        bundle: bundle.map_err(|_| untellable("the bundle's path", "it is not UTF-8"))?,
        terminal: create.terminal,
        stdin: if create.stdin { stdio::HOLD.to_owned() } else { String::new() },
        stdout: stdout.unwrap_or_default(),
        options: any(OPTIONS_URL, value),
        ..Default::default()
    })
}

fn exec_request(id: &str, exec: &ExecSync) -> Result<supervisor::ExecSyncRequest, Error> {
    let timeout = exec.timeout.unwrap_or_default().as_nanos();
    let too_long = Error::Untellable { what: "the timeout", why: "it is longer than 292 years" };
    Ok(supervisor::ExecSyncRequest {
        id: id.to_owned(),
        exec_id: exec_id(),
        args: exec.args.clone(),
        timeout: i64::try_from(timeout).map_err(|_| too_long)?,
        ..Default::default()
    })
}

/// A name for an exec that no other exec of any daemon has, not even one from before a restart.
fn exec_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{}-{since}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Appends what still fits. The shim keeps the limit too; this one is against a shim that lies.
fn keep(kept: &mut Vec<u8>, piece: Vec<u8>) {
    let room = EXEC_OUTPUT_LIMIT - kept.len();
    if kept.is_empty() && piece.len() <= room {
        *kept = piece;
    } else {
        kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

/// Kills a command that nobody waits for any more.
struct ExecGuard {
    shim: Shim,
    request: task::KillRequest,
    ended: bool,
}

impl ExecGuard {
    fn new(shim: &Shim, id: &str, exec: &str) -> Self {
        let request = task::KillRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal: 9,
            all: true,
            ..Default::default()
        };
        Self { shim: shim.clone(), request, ended: false }
    }
}

impl Drop for ExecGuard {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.ended {
            return;
        }
        let (shim, request) = (self.shim.clone(), std::mem::take(&mut self.request));
        runtime.spawn(async move {
            let call = |line: Client| {
                let request = &request;
                async move { TaskClient::new(line).kill(limit(KILL_GRACE), request).await }
            };
            // Nobody is left to tell; the command may have ended by itself.
            let _ = shim.connection.call("Kill", KILL_GRACE, Repeat::Harmless, call).await;
        });
    }
}
