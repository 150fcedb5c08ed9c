//! A server with something to stream, for as long as a test.

use std::{future::Future, sync::Arc, time::Duration};

use streaming::{Ask, Attach, Config, Exec, PortForward, Server, Streams};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle, time::timeout};

use crate::fake::Fake;

pub struct Place {
    pub server: Arc<Server>,
    pub fake: Arc<Fake>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Place {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let fake = Arc::new(Fake::default());
        let server = Arc::new(Server::bind(config, fake.clone()).await.unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn({
            let server = Arc::clone(&server);
            async move {
                server
                    .serve(async {
                        let _ = stopped.await;
                    })
                    .await;
            }
        });
        Self { server, fake, stop, serving }
    }

    /// Waits until nothing is kept for anybody.
    pub async fn is_empty(&self) {
        within(self.fake.alive.come_to(0)).await;
        let load = || self.server.load();
        until("the server holds nothing", || load().connections == 0 && load().queued == 0).await;
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        within(self.serving).await.unwrap();
        assert_eq!(self.server.load(), streaming::Load::default());
        within(self.fake.alive.come_to(0)).await;
    }
}

/// A command with these of its streams: `i`, `o`, `e`, and `t` for a terminal.
pub fn exec(command: &[&str], streams: &str) -> Ask {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    Ask::Exec(Exec { container: "c".to_owned(), command, streams: wanted(streams) })
}

pub fn attach(container: &str, streams: &str) -> Ask {
    Ask::Attach(Attach { container: container.to_owned(), streams: wanted(streams) })
}

fn wanted(streams: &str) -> Streams {
    let has = |letter| streams.contains(letter);
    Streams { tty: has('t'), stdin: has('i'), stdout: has('o'), stderr: has('e') }
}

pub fn forward(ports: &[u16]) -> Ask {
    Ask::PortForward(PortForward { pod: "p".to_owned(), ports: ports.to_vec() })
}

/// The address in a URL, and the path.
pub fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    rest.split_at(rest.find('/').unwrap())
}

pub async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(parts(url).0).await.unwrap()
}

/// Nothing here takes so long, unless it hangs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it ends in time")
}

/// Waits for something that nothing tells of.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
