//! A client that speaks SPDY, over whatever carries bytes.

use std::collections::BTreeMap;

use spdy::{Connection, Event, FlowControl, Headers, Limits, Role, Status, StreamId};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::place::{connect, parts, within};

pub struct Client<S> {
    socket: S,
    pub connection: Connection,
    heard: BTreeMap<StreamId, Heard>,
    /// The server has ended the connection.
    pub over: bool,
    pub said_goodbye: bool,
}

/// What came on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub answered: bool,
    pub bytes: Vec<u8>,
    pub ended: bool,
    pub reset: Option<Status>,
}

/// Upgrades, and gives the version that was agreed on.
pub async fn upgrade(url: &str, versions: &str) -> (TcpStream, String) {
    let mut socket = connect(url).await;
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {versions}\r\nContent-Length: 0\r\n\r\n",
        parts(url).1
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within(socket.read_u8()).await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    let version = answer.split("x-stream-protocol-version: ").nth(1).unwrap();
    let version = version.split("\r\n").next().unwrap().to_owned();
    (socket, version)
}

impl Client<TcpStream> {
    pub async fn open(url: &str, versions: &str) -> Self {
        let (socket, version) = upgrade(url, versions).await;
        assert_eq!(version, versions.split(',').next().unwrap());
        Self::over(socket)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(socket: S) -> Self {
        let limits = Limits { streams: 100_000, held: usize::MAX >> 1, ..Limits::default() };
        let connection = Connection::new(Role::Client, FlowControl::Ignored, limits);
        Self { socket, connection, heard: BTreeMap::new(), over: false, said_goodbye: false }
    }

    /// Opens a stream, and waits for the answer.
    pub async fn stream(&mut self, headers: &[(&str, &str)]) -> StreamId {
        let stream = self.begin(headers);
        self.until(|client| client.heard(stream).answered).await;
        stream
    }

    pub async fn typed(&mut self, kind: &str) -> StreamId {
        self.stream(&[("streamType", kind)]).await
    }

    /// Opens a stream.
    pub fn begin(&mut self, headers: &[(&str, &str)]) -> StreamId {
        let headers =
            headers.iter().fold(Headers::new(), |all, (name, value)| all.with(name, value));
        let stream = self.connection.open(&headers, false).unwrap();
        self.heard.insert(stream, Heard::default());
        stream
    }

    pub fn heard(&self, stream: StreamId) -> &Heard {
        &self.heard[&stream]
    }

    pub fn text(&self, stream: StreamId) -> String {
        String::from_utf8(self.heard(stream).bytes.clone()).unwrap()
    }

    /// Takes what came on a stream so far.
    pub fn take(&mut self, stream: StreamId) -> Vec<u8> {
        std::mem::take(&mut self.heard.get_mut(&stream).unwrap().bytes)
    }

    pub async fn send(&mut self, stream: StreamId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.connection.data(stream, bytes, false).unwrap();
            bytes = &bytes[sent..];
            if sent == 0 {
                within(self.step()).await;
            }
        }
    }

    pub fn end(&mut self, stream: StreamId) {
        self.connection.data(stream, &[], true).unwrap();
    }

    pub async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(!self.over, "the server ended the connection");
            within(self.step()).await;
        }
    }

    /// Writes what there is to write.
    pub async fn flush(&mut self) {
        while !self.connection.output().is_empty() {
            within(self.step()).await;
        }
    }

    /// Goes on until the server ends the connection.
    pub async fn finish(&mut self) {
        while !self.over {
            within(self.step()).await;
        }
    }

    /// Writes or reads something.
    pub async fn step(&mut self) {
        let mut piece = vec![0; 64 << 10];
        let (mut from, mut to) = tokio::io::split(&mut self.socket);
        let output = self.connection.output();
        tokio::select! {
            written = to.write(output), if !output.is_empty() => match written {
                Ok(written) => self.connection.written(written),
                Err(_) => self.over = true,
            },
            read = from.read(&mut piece) => match read {
                Ok(0) | Err(_) => self.over = true,
                Ok(read) => self.connection.receive(&piece[..read]),
            },
        }
        while let Some(event) = self.connection.next_event().unwrap() {
            self.told(event);
        }
    }

    fn told(&mut self, event: Event) {
        match event {
            Event::Answered { stream, fin, .. } => {
                let heard = self.heard.get_mut(&stream).unwrap();
                (heard.answered, heard.ended) = (true, fin);
            }
            Event::Data { stream, bytes, fin } => {
                self.connection.consumed(stream, bytes.len());
                let heard = self.heard.get_mut(&stream).unwrap();
                assert!(!heard.ended && heard.reset.is_none());
                heard.bytes.extend(bytes);
                heard.ended = fin;
            }
            Event::Reset { stream, status } => {
                self.heard.get_mut(&stream).unwrap().reset = Some(status);
            }
            Event::GoAway { .. } => self.said_goodbye = true,
            other => panic!("a server does not do {other:?}"),
        }
    }
}
