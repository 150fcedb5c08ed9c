//! A proxy before a registry, which notes what is asked for.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Hands requests on to a port of this host. Ends when it is dropped.
pub struct Proxy {
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// # Panics
    /// No port is free.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let own = listener.local_addr().expect("it listens").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, port, Arc::clone(&seen)));
            }
        });
        Self { port: own, requests, task }
    }

    /// The first lines of all requests so far: `GET /v2/… HTTP/1.1`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often something was fetched whose path ends so.
    pub fn fetched(&self, end: &str) -> usize {
        let is = |line: &String| {
            let mut words = line.split([' ', '?']);
            words.next() == Some("GET") && words.next().is_some_and(|path| path.ends_with(end))
        };
        self.requests().iter().filter(|line| is(line)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a client of a registry sends has no bodies: every line that begins a request is one.
async fn serve(mut client: TcpStream, port: u16, requests: Arc<Mutex<Vec<String>>>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asked = async {
        let (mut line, mut buffer) = (Vec::new(), vec![0; 4096]);
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            for byte in &buffer[..count] {
                match byte {
                    b'\n' => note(&mut line, &requests),
                    byte => line.push(*byte),
                }
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let answered = async {
        let _ = copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(asked, answered);
}

fn note(line: &mut Vec<u8>, requests: &Mutex<Vec<String>>) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if text.ends_with(" HTTP/1.1") {
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}
