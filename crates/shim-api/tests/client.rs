//! The client against a shim that is only a server: what it does when connections break, and when
//! no answer comes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use names::Class;
use protobuf::MessageField;
use shim_api::{
    Address, AttachStart, CreateTask, ExecStart, ExecSync, Shim,
    code::refusal,
    proto::{
        supervisor_ttrpc::{Supervisor, create_supervisor},
        task_ttrpc::{Task, create_task},
    },
    supervisor::{ExecRequest, ExecSyncPiece, ExecSyncRequest, HandOver},
    task,
};
use tokio::{net::UnixListener, sync::Notify};
use ttrpc::r#async::{Server, ServerStreamSender, TtrpcContext, transport::Listener};

const SOON: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Fake {
    states: AtomicU32,
    waits: AtomicU32,
    starts: AtomicU32,
    waiting: Notify,
    ended: Notify,
    killed: Notify,
}

#[async_trait]
impl Task for Fake {
    async fn state(
        &self,
        _: &TtrpcContext,
        _: task::StateRequest,
    ) -> ttrpc::Result<task::StateResponse> {
        self.states.fetch_add(1, Ordering::SeqCst);
        let status = shim_api::process::Status::RUNNING.into();
        Ok(task::StateResponse { id: "a".to_owned(), pid: 7, status, ..Default::default() })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        _: task::StartRequest,
    ) -> ttrpc::Result<task::StartResponse> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        _: task::WaitRequest,
    ) -> ttrpc::Result<task::WaitResponse> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.waiting.notify_one();
        self.ended.notified().await;
        let exited_at = MessageField::some(shim_api::client::timestamp(5));
        Ok(task::WaitResponse { exit_status: 3, exited_at, oom: true, ..Default::default() })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        _: task::DeleteRequest,
    ) -> ttrpc::Result<task::DeleteResponse> {
        Err(refusal(Class::NotFound, "no such container"))
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        _: task::CreateTaskRequest,
    ) -> ttrpc::Result<task::CreateTaskResponse> {
        Err(refusal(Class::FailedPrecondition, "not today"))
    }

    async fn kill(
        &self,
        _: &TtrpcContext,
        request: task::KillRequest,
    ) -> ttrpc::Result<protobuf::well_known_types::empty::Empty> {
        assert!(!request.exec_id.is_empty() && request.signal == 9);
        self.killed.notify_one();
        Ok(Default::default())
    }
}

#[async_trait]
impl Supervisor for Fake {
    /// Holds something out that is not there.
    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> ttrpc::Result<HandOver> {
        let (socket, token) = match request.args[0].as_str() {
            "odd" => (String::new(), "odd".to_owned()),
            socket => (socket.to_owned(), "0".repeat(32)),
        };
        Ok(HandOver { socket, token, ..Default::default() })
    }

    async fn exec_sync(
        &self,
        _: &TtrpcContext,
        request: ExecSyncRequest,
        pieces: ServerStreamSender<ExecSyncPiece>,
    ) -> ttrpc::Result<()> {
        if request.args == ["hang"] {
            return std::future::pending().await;
        }
        let stdout = vec![b'x'; 3 << 20];
        let piece = ExecSyncPiece { stdout, ..Default::default() };
        for _ in 0..7 {
            pieces.send(&piece).await?;
        }
        pieces.send(&ExecSyncPiece { ended: true, exit_code: 4, ..Default::default() }).await
    }
}

/// A server with a runtime of its own, so that it can die as a process does: at once, with all its
/// connections.
struct Serving(Option<tokio::runtime::Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Not here: a runtime may not wait inside another.
            let end = std::thread::spawn(move || runtime.shutdown_timeout(SOON));
            end.join().expect("it ends");
        }
    }
}

type Service = std::collections::HashMap<String, ttrpc::r#async::Service>;

fn serve(socket: &Path, fake: &Arc<Fake>) -> Serving {
    let mut services = create_task(fake.clone());
    services.extend(create_supervisor(fake.clone()));
    serve_only(socket, services)
}

fn serve_only(socket: &Path, services: Service) -> Serving {
    let _ = std::fs::remove_file(socket);
    let builder =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = builder.expect("a runtime");
    let socket = socket.to_owned();
    let (listening, listens) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let listener = UnixListener::bind(socket).expect("the directory is there");
        let mut server =
            Server::new().add_listener(Listener::from(listener)).register_service(services);
        server.start().await.expect("it has a listener");
        listening.send(()).expect("the test waits");
        std::future::pending::<()>().await
    });
    listens.recv().expect("the server has started");
    Serving(Some(runtime))
}

fn socket() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("shim.sock");
    (dir, socket)
}

#[tokio::test]
async fn a_lost_connection_is_made_again_by_the_next_call() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let server = serve(&socket, &fake);
    let shim = Shim::new(socket.clone());
    assert_eq!(shim.state("a", SOON).await.unwrap().pid, 7);
    drop(server);
    let gone = shim.state("a", SOON).await.unwrap_err();
    assert_eq!(gone.class(), Class::Unavailable, "{gone}");
    let _server = serve(&socket, &fake);
    assert_eq!(shim.state("a", SOON).await.unwrap().pid, 7);
    assert_eq!(fake.states.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_that_gets_no_answer_ends_at_its_deadline_and_is_not_repeated() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve(&socket, &fake);
    let shim = Shim::new(socket);
    let late = shim.start("a", Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.class(), Class::DeadlineExceeded, "{late}");
    assert_eq!(fake.starts.load(Ordering::SeqCst), 1);
    shim.state("a", SOON).await.expect("the connection is as good as before");
}

#[tokio::test]
async fn a_wait_attaches_again_after_a_break_and_gives_up_when_nobody_listens() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let server = serve(&socket, &fake);
    let shim = Shim::new(socket.clone());
    let wait = tokio::spawn(async move { shim.wait("a").await });
    fake.waiting.notified().await;
    drop(server);
    let server = serve(&socket, &fake);
    fake.waiting.notified().await;
    fake.ended.notify_one();
    let exit = wait.await.unwrap().unwrap();
    assert_eq!((exit.code, exit.at, exit.oom), (3, 5, true));
    assert!(fake.waits.load(Ordering::SeqCst) >= 2);

    let shim = Shim::new(socket.clone());
    let wait = tokio::spawn(async move { shim.wait("a").await });
    fake.waiting.notified().await;
    std::fs::remove_file(&socket).unwrap();
    drop(server);
    assert_eq!(wait.await.unwrap().unwrap_err().class(), Class::Unavailable);
}

#[tokio::test]
async fn a_refusal_keeps_its_class_and_words_and_deleting_the_unknown_is_fine() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve(&socket, &fake);
    let shim = Shim::new(socket);
    let refused = shim.create(CreateTask::default(), SOON).await.unwrap_err();
    assert_eq!(refused.class(), Class::FailedPrecondition);
    assert_eq!(refused.to_string(), "not today");
    assert_eq!(shim.delete("a", SOON).await.unwrap(), None);
    let odd = CreateTask { log: Some("relative".into()), ..CreateTask::default() };
    assert_eq!(shim.create(odd, SOON).await.unwrap_err().class(), Class::InvalidArgument);
}

fn start(args: &[&str]) -> ExecStart {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    ExecStart { args, stdout: true, ..ExecStart::default() }
}

#[tokio::test]
async fn streams_that_are_not_held_out_as_told_are_an_error_and_the_command_is_killed() {
    let ((dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve(&socket, &fake);
    let shim = Shim::new(socket);
    let odd = shim.exec("a", start(&["odd"])).await.unwrap_err();
    assert_eq!(odd.class(), Class::Internal, "{odd}");
    tokio::time::timeout(SOON, fake.killed.notified()).await.expect("a kill is sent");
    let at = dir.path().join("nobody").to_str().unwrap().to_owned();
    let nobody = shim.exec("a", start(&[&at])).await.unwrap_err();
    assert_eq!(nobody.class(), Class::Unavailable, "{nobody}");
    tokio::time::timeout(SOON, fake.killed.notified()).await.expect("a kill is sent");
}

#[tokio::test]
async fn who_cannot_hand_over_streams_does_not_serve_them() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve_only(&socket, create_task(fake));
    for address in [socket.into(), "vsock://3:1024".parse::<Address>().unwrap()] {
        let shim = Shim::new(address);
        let attach = shim.attach("a", AttachStart::default()).await.unwrap_err();
        assert_eq!(attach.class(), Class::Unimplemented, "{attach}");
        let exec = shim.exec("a", start(&["true"])).await.unwrap_err();
        assert_eq!(exec.class(), Class::Unimplemented, "{exec}");
    }
}

#[tokio::test]
async fn an_execs_output_is_whole_up_to_its_limit() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve(&socket, &fake);
    let output = Shim::new(socket).exec_sync("a", ExecSync::default()).await.unwrap();
    assert_eq!((output.stdout.len(), output.code), (shim_api::EXEC_OUTPUT_LIMIT, 4));
}

#[tokio::test]
async fn an_exec_that_nobody_waits_for_is_killed() {
    let ((_dir, socket), fake) = (socket(), Arc::new(Fake::default()));
    let _server = serve(&socket, &fake);
    let shim = Shim::new(socket);
    let exec = ExecSync { args: vec!["hang".to_owned()], timeout: None };
    let work = shim.exec_sync("a", exec);
    assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
    tokio::time::timeout(SOON, fake.killed.notified()).await.expect("a kill is sent");
}
