//! A client that speaks WebSocket, by somebody else's implementation.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, http::HeaderValue, protocol::CloseFrame,
    },
};

use crate::place::{connect, within};

pub struct Client(pub WebSocketStream<TcpStream>);

impl Client {
    pub async fn open(url: &str, protocol: &str) -> Self {
        Self::try_open(url, protocol).await.unwrap()
    }

    pub async fn try_open(url: &str, protocol: &str) -> Result<Self, Error> {
        let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
        if !protocol.is_empty() {
            let protocol = HeaderValue::from_str(protocol).unwrap();
            request.headers_mut().insert("sec-websocket-protocol", protocol);
        }
        let socket = connect(url).await;
        let (client, _) = within(client_async(request, socket)).await?;
        Ok(Self(client))
    }

    pub async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        within(self.0.send(Message::binary(message))).await.unwrap();
    }

    pub async fn say(&mut self, text: &str) {
        within(self.0.send(Message::text(text))).await.unwrap();
    }

    /// The next message that says something of the server's.
    pub async fn next(&mut self) -> Message {
        within(self.0.next()).await.unwrap().unwrap()
    }

    /// The next message, as its channel and the rest.
    pub async fn hear(&mut self) -> (u8, Vec<u8>) {
        match self.next().await {
            Message::Binary(bytes) => (bytes[0], bytes[1..].to_vec()),
            other => panic!("a binary message was to come, and not {other:?}"),
        }
    }

    /// All that comes until the server closes, by channel, and why it closed.
    pub async fn finish(&mut self) -> ([Vec<u8>; 5], Option<CloseFrame>) {
        let mut heard: [Vec<u8>; 5] = Default::default();
        loop {
            match self.next().await {
                Message::Binary(bytes) => heard[usize::from(bytes[0])].extend(&bytes[1..]),
                Message::Close(why) => {
                    self.ends().await;
                    return (heard, why);
                }
                other => panic!("a server does not say {other:?}"),
            }
        }
    }

    /// Nothing is left but the end of the connection.
    pub async fn ends(&mut self) {
        while let Some(Ok(message)) = within(self.0.next()).await {
            assert!(message.is_close(), "{message:?}");
        }
    }

    /// What is tunnelled through it, as a stream of bytes.
    pub fn tunnel(self) -> DuplexStream {
        let (ours, theirs) = duplex(64 << 10);
        tokio::spawn(async move {
            let (mut to, mut from) = self.0.split();
            let (mut read, mut write) = tokio::io::split(theirs);
            let out = async {
                let mut piece = vec![0; 20_000];
                while let Ok(n @ 1..) = read.read(&mut piece).await {
                    if to.send(Message::binary(piece[..n].to_vec())).await.is_err() {
                        break;
                    }
                }
                let _ = to.close().await;
            };
            let back = async {
                while let Some(Ok(message)) = from.next().await {
                    if let Message::Binary(bytes) = message
                        && write.write_all(&bytes).await.is_err()
                    {
                        break;
                    }
                }
                let _ = write.shutdown().await;
            };
            tokio::join!(out, back);
        });
        ours
    }
}
