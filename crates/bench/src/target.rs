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
use crate::places::Place;
use crate::process::Marks;

/// What a kubelet gives a RunPodSandbox, the longest of the calls that are made here.
const DEADLINE: Duration = Duration::from_secs(240);
const CONNECT: Duration = Duration::from_secs(5);

pub struct Target {
    pub socket: PathBuf,
    /// Name and version, as the runtime gives them.
    pub name: String,
    /// Those of its handlers that are measured, one for each column.
    pub handlers: Vec<String>,
    /// By what its processes can be known.
    pub marks: Marks,
    channel: Channel,
}

impl Target {
    /// Connects, and asks who is there and what it offers.
    pub async fn open(place: Place) -> Result<Target, Error> {
        let Place { socket, handlers, daemon } = place;
        let failed = |source| Error::Connect { socket: socket.clone(), source };
        let endpoint = cri_proto::endpoint(&socket).map_err(failed)?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(DEADLINE);
        let channel = endpoint.connect().await.map_err(failed)?;
        let daemon = match daemon {
            None => listener(&socket).await,
            given => given,
        };
        let marks = Marks { daemon, ..Marks::default() };
        let mut target = Target { socket, name: String::new(), handlers, marks, channel };
        let version = target.runtime().version(v1::VersionRequest::default()).await;
        let version = target.checked("Version", version)?;
        target.name = format!("{} {}", version.runtime_name, version.runtime_version);
        // Only a hint: one that does not tell is measured all the same.
        let request = v1::StatusRequest { verbose: true };
        if let Ok(status) = target.runtime().status(request).await {
            target.learn(&status.into_inner())?;
        }
        Ok(target)
    }

    /// # Errors
    /// It tells its handlers, and one of those that shall be measured is not among them.
    fn learn(&mut self, status: &v1::StatusResponse) -> Result<(), Error> {
        self.marks.folders =
            status.info.get("config").map(|config| folders(config)).unwrap_or_default();
        let offered: Vec<String> = status
            .runtime_handlers
            .iter()
            .map(|h| h.name.clone())
            .filter(|n| !n.is_empty())
            .collect();
        let lacks = |wanted: &&String| !wanted.is_empty() && !offered.contains(wanted);
        match self.handlers.iter().find(lacks) {
            Some(wanted) if !offered.is_empty() => Err(Error::NoHandler {
                wanted: wanted.clone(),
                offered,
                socket: self.socket.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// One that nobody serves, for tests of what is told about targets.
    #[cfg(test)]
    pub fn nobody(name: &str, socket: &str) -> Target {
        let socket = PathBuf::from(socket);
        let channel = cri_proto::endpoint(&socket).expect("the path is UTF-8").connect_lazy();
        let (name, handlers) = (name.to_owned(), vec![String::new()]);
        Target { socket, name, handlers, marks: Marks::default(), channel }
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

/// The folders in a runtime's own account of its configuration: where Podbay says `state` and
/// `root`. None from one that says it otherwise. Not the root of the file system: all is below it.
fn folders(config: &str) -> Vec<PathBuf> {
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    let folder = |key| Some(PathBuf::from(config.get(key)?.as_str()?));
    let named = ["state", "root"].into_iter().filter_map(folder);
    named.filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(handlers: &[&str]) -> v1::StatusResponse {
        let handler = |&name: &&str| v1::RuntimeHandler { name: name.to_owned(), features: None };
        let runtime_handlers = handlers.iter().map(handler).collect();
        v1::StatusResponse { runtime_handlers, ..Default::default() }
    }

    #[test]
    fn the_folders_are_those_that_the_runtime_calls_state_and_root() {
        let config = r#"{"root":"/var/lib/podbay","state":"/run/podbay","socket":"/run/p.sock"}"#;
        assert_eq!(folders(config), ["/run/podbay", "/var/lib/podbay"].map(PathBuf::from));
    }

    #[test]
    fn what_is_no_folder_of_one_runtime_alone_is_left_out() {
        assert_eq!(folders(r#"{"root":"/","state":"run"}"#), [""; 0].map(PathBuf::from));
        assert_eq!(folders(r#"{"root":7,"stateDir":"/run/x"}"#), [""; 0].map(PathBuf::from));
        assert_eq!(folders("root = '/x'"), [""; 0].map(PathBuf::from));
    }

    #[tokio::test]
    async fn a_handler_that_is_not_offered_is_told_with_those_that_are() {
        let mut target = Target::nobody("podbay 1", "/a.sock");
        target.handlers = vec!["runc".to_owned(), "puase".to_owned()];
        let error = target.learn(&status(&["", "pause", "runc"])).expect_err("it is misspelt");
        let told = error.to_string();
        assert!(told.starts_with("no handler puase at /a.sock: it has pause, runc;"), "{told}");
    }

    #[tokio::test]
    async fn the_default_handler_and_those_of_one_that_tells_none_are_taken_as_they_come() {
        let mut target = Target::nobody("podbay 1", "/a.sock");
        assert!(target.learn(&status(&["", "pause"])).is_ok());
        target.handlers = vec!["runc".to_owned()];
        assert!(target.learn(&status(&[])).is_ok() && target.learn(&status(&[""])).is_ok());
    }

    proptest! {
        #[test]
        fn no_configuration_makes_us_panic(
            text in ".{0,80}",
            state in r#""[^"\\]{0,20}"|[0-9]{1,9}|null|\[\]"#,
        ) {
            folders(&text);
            let whole = folders(&format!(r#"{{"state":{state}}}"#));
            prop_assert!(whole.iter().all(|folder| folder.is_absolute()));
        }
    }
}
