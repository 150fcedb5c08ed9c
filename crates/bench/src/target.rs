//! A runtime that is measured: its socket, its clients, its process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri_proto::admin::admin_client::AdminClient;
use cri_proto::v1::image_service_client::ImageServiceClient;
use cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use cri_proto::{MAX_MESSAGE, v1};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::error::Error;

/// What a kubelet gives a RunPodSandbox, the longest of the calls that are made here.
const DEADLINE: Duration = Duration::from_secs(240);
const CONNECT: Duration = Duration::from_secs(5);

pub struct Target {
    pub socket: PathBuf,
    /// Name and version, as the runtime gives them.
    pub name: String,
    /// The process that listens, where it can be known.
    pub daemon: Option<u32>,
    channel: Channel,
}

impl Target {
    /// Connects, and asks who is there.
    pub async fn open(socket: &Path, daemon: Option<u32>) -> Result<Target, Error> {
        let failed = |source| Error::Connect { socket: socket.to_owned(), source };
        let endpoint = cri_proto::endpoint(socket).map_err(failed)?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(DEADLINE);
        let channel = endpoint.connect().await.map_err(failed)?;
        let daemon = match daemon {
            None => listener(socket).await,
            given => given,
        };
        let mut target = Target { socket: socket.to_owned(), name: String::new(), daemon, channel };
        let version = target.runtime().version(v1::VersionRequest::default()).await;
        let version = target.checked("Version", version)?;
        target.name = format!("{} {}", version.runtime_name, version.runtime_version);
        Ok(target)
    }

    /// One that nobody serves, for tests of what is told about targets.
    #[cfg(test)]
    pub fn nobody(name: &str, socket: &str) -> Target {
        let socket = PathBuf::from(socket);
        let channel = cri_proto::endpoint(&socket).expect("the path is UTF-8").connect_lazy();
        Target { socket, name: name.to_owned(), daemon: None, channel }
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_encoding_message_size(MAX_MESSAGE)
    }

    /// The message of an answer, or an error that says what was asked of whom.
    pub fn checked<T>(
        &self,
        what: &'static str,
        answer: Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        answer.map(Response::into_inner).map_err(|status| Error::Call {
            what,
            socket: self.socket.clone(),
            status: Box::new(status),
        })
    }
}

/// The process that made the socket listen. Not there for a socket that systemd made.
async fn listener(socket: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok().filter(|pid| *pid > 1)
}
