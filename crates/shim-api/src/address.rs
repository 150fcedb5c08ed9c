//! Where a Task API is served, as a sandboxer says it and as it is dialled.

use std::{fmt, io, os::fd::AsRawFd as _, path::PathBuf, pin::Pin, str::FromStr};

use names::Class;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};
use tokio_vsock::{VsockAddr, VsockStream};

/// The longest path that `connect(2)` takes for a unix socket, in bytes.
const LONGEST: usize = 107;

/// The longest answer to `CONNECT` that is read, in bytes.
const LONGEST_ANSWER: u64 = 64;

/// Where a Task API is served, by ttrpc.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// At a unix socket with this absolute path.
    Unix(PathBuf),
    /// In a virtual machine.
    Vsock { cid: u32, port: u32 },
    /// In a virtual machine whose monitor has a unix socket for its vsock: one says `CONNECT`, and a
    /// port, as to Firecracker and Cloud Hypervisor.
    HybridVsock { path: PathBuf, port: u32 },
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no address of a task API: {why}")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl BadAddress {
    pub fn class(&self) -> Class {
        Class::Internal
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

impl Address {
    pub(crate) async fn connect(&self) -> io::Result<Pin<Box<dyn Stream>>> {
        Ok(match self {
            Self::Unix(path) => Box::pin(unix(path).await?),
            Self::Vsock { cid, port } => {
                Box::pin(VsockStream::connect(VsockAddr::new(*cid, *port)).await?)
            }
            Self::HybridVsock { path, port } => Box::pin(hybrid(unix(path).await?, *port).await?),
        })
    }
}

/// Connects, by way of the directory's descriptor where the path is too long for the system call.
pub(crate) async fn unix(path: &std::path::Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= LONGEST {
        return UnixStream::connect(path).await;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let parent = std::fs::File::open(parent)?;
    let folder = PathBuf::from("/proc/self/fd").join(parent.as_raw_fd().to_string());
    UnixStream::connect(folder.join(name)).await
}

async fn hybrid(mut stream: UnixStream, port: u32) -> io::Result<impl Stream> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    let mut stream = BufReader::new(stream);
    let mut line = tokio::io::AsyncReadExt::take(&mut stream, LONGEST_ANSWER);
    line.read_until(b'\n', &mut answer).await?;
    if answer.starts_with(b"OK ") && answer.ends_with(b"\n") {
        return Ok(stream);
    }
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    let why = format!("the machine monitor answered {answer:?} to CONNECT {port}");
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, why))
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "ttrpc+unix://{}", path.display()),
            Self::Vsock { cid, port } => write!(f, "ttrpc+vsock://{cid}:{port}"),
            Self::HybridVsock { path, port } => {
                write!(f, "ttrpc+hvsock://{}:{port}", path.display())
            }
        }
    }
}

/// With or without `ttrpc+` before it, and a path alone is that of a unix socket.
impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why| BadAddress { text: text.to_owned(), why };
        let bare = text.strip_prefix("ttrpc+").unwrap_or(text);
        let absolute = |path: &str| {
            let rooted = path.starts_with('/') && !path.contains('\0');
            rooted.then(|| PathBuf::from(path)).ok_or_else(|| bad("its path is not absolute"))
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| bad("a number is missing"));
        let (scheme, rest) = bare.split_once("://").unwrap_or(("unix", bare));
        let pair = || rest.rsplit_once(':').ok_or_else(|| bad("a port is missing"));
        match scheme {
            "unix" => Ok(Self::Unix(absolute(rest)?)),
            "vsock" => {
                let (cid, port) = pair()?;
                Ok(Self::Vsock { cid: number(cid)?, port: number(port)? })
            }
            "hvsock" => {
                let (path, port) = pair()?;
                Ok(Self::HybridVsock { path: absolute(path)?, port: number(port)? })
            }
            _ => Err(bad("only ttrpc over unix, vsock and hvsock is spoken")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "ttrpc+unix:///run/a:b.sock",
            "ttrpc+vsock://3:1024",
            "ttrpc+hvsock:///run/v.sock:1024",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["/run/a.sock", "unix:///run/a.sock"] {
            let address = text.parse::<Address>().unwrap();
            assert_eq!(address, Address::Unix("/run/a.sock".into()));
        }
    }

    #[test]
    fn what_is_not_spoken_is_refused_with_the_text_itself() {
        let bad = [
            "",
            "relative",
            "grpc+unix:///run/a",
            "ttrpc+unix://relative",
            "ttrpc+vsock://3",
            "ttrpc+vsock://x:1",
            "ttrpc+vsock://3:4294967296",
            "ttrpc+hvsock:///run/v",
            "tcp://127.0.0.1:1",
        ];
        for text in bad {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }

    async fn dial_hybrid(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 13];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        });
        let stream = Address::HybridVsock { path, port: 1024 }.connect().await;
        server.await.unwrap();
        let mut rest = Vec::new();
        stream?.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    #[tokio::test]
    async fn a_machine_monitor_is_asked_for_the_port_and_loses_no_byte_after_its_answer() {
        assert_eq!(dial_hybrid(b"OK 5\nhello").await.unwrap(), b"hello");
        for refused in [&b"NO\n"[..], b"", b"OK 5", &[b'x'; 100]] {
            let error = dial_hybrid(refused).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        }
    }
}
