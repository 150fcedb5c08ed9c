//! Calls to a sandboxer: each with a deadline, all on the same connection, which is made when it is
//! first needed and again when it was lost.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use cri_proto::MAX_MESSAGE;
use sandbox_api::v1::controller_client::ControllerClient;
use tonic::{ConnectError, Request, Response, transport::Channel};

use super::Fault;
use crate::Error;

pub(super) type Client = ControllerClient<Channel>;

pub(super) struct Line {
    name: String,
    address: PathBuf,
    calls: OnceLock<Channel>,
    /// Waits have a connection of their own: a server takes a limited number of requests at a time
    /// on each (200, if it is made as Kuasar's is), and a Wait lasts as long as its sandbox.
    waits: OnceLock<Channel>,
}

impl Line {
    pub(super) fn new(name: String, address: &Path) -> Self {
        let address = match address.to_str().and_then(|text| text.strip_prefix("unix://")) {
            Some(path) => PathBuf::from(path),
            None => address.to_owned(),
        };
        Self { name, address, calls: OnceLock::new(), waits: OnceLock::new() }
    }

    /// Asks, and gives up when the time is over. The sandboxer is told how much it has.
    pub(super) async fn call<T, R, F>(
        &self,
        call: &'static str,
        within: Duration,
        message: T,
        ask: impl FnOnce(Client, Request<T>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        let begun = Instant::now();
        let mut request = Request::new(message);
        request.set_timeout(within);
        let client = self.client(&self.calls, call)?;
        match tokio::time::timeout(within, ask(client, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(_)) if begun.elapsed() >= within => Err(self.error(call, Fault::Late(within))),
            Ok(Err(status)) => Err(self.error(call, self.fault(&status))),
            Err(_) => Err(self.error(call, Fault::Late(within))),
        }
    }

    /// Asks for what comes in its own time.
    pub(super) async fn long_call<T, R, F>(
        &self,
        call: &'static str,
        message: T,
        ask: impl FnOnce(Client, Request<T>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        let client = self.client(&self.waits, call)?;
        match ask(client, Request::new(message)).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.error(call, self.fault(&status))),
        }
    }

    pub(super) fn error(&self, call: &'static str, fault: Fault) -> Error {
        Error::Sandboxer { sandboxer: self.name.clone(), call, fault: Box::new(fault) }
    }

    fn client(&self, channel: &OnceLock<Channel>, call: &'static str) -> Result<Client, Error> {
        let channel = match channel.get() {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = cri_proto::endpoint(&self.address)
                    .map_err(|error| self.error(call, self.away(error.to_string())))?;
                channel.get_or_init(|| endpoint.connect_lazy()).clone()
            }
        };
        let client = Client::new(channel);
        Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    fn away(&self, words: String) -> Fault {
        Fault::Away { address: self.address.clone(), words }
    }

    /// What a sandboxer says itself has no source; what our side of the connection says has.
    fn fault(&self, status: &tonic::Status) -> Fault {
        let Some(source) = status.source() else {
            let words = status.message().to_owned();
            return Fault::Refused { class: cri_proto::code::to_class(status.code()), words };
        };
        let mut causes = std::iter::successors(Some(source), |error| (*error).source());
        let words = names::chain(source);
        match causes.any(|cause| cause.is::<ConnectError>()) {
            true => self.away(words),
            false => Fault::Lost(words),
        }
    }
}
