//! One HTTP exchange up to the headers of the answer, each part with its deadline. No retries, no
//! redirects, no credentials here.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_util::{
    client::legacy::{Client, Error, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    dial::{Dial, Way},
    fault::Fault,
};

/// How long an unused connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// How many of them to one host. A pull fetches a few layers at a time.
const MOST_IDLE: usize = 4;

/// A pool of connections to hosts that are trusted alike. Clones share it.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<Dial, Full<Bytes>>,
    connect_timeout: Duration,
    header_timeout: Duration,
}

impl Http {
    pub(crate) fn new(way: Way, header_timeout: Duration) -> Http {
        let connect_timeout = way.timeout;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(way.dial());
        Http { client, connect_timeout, header_timeout }
    }

    /// The deadline for headers runs from when there is a connection; until then the dialler's does.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        let mut connection = capture_connection(&mut request);
        let late = async {
            connection.wait_for_connection_metadata().await;
            tokio::time::sleep(self.header_timeout).await;
        };
        tokio::select! {
            answer = self.client.request(request) => answer.map_err(|error| self.fault(&error)),
            () = late => Err(Fault::Slow { what: "answer", after: self.header_timeout }),
        }
    }

    fn fault(&self, error: &Error) -> Fault {
        if error.is_connect() && timed_out(error) {
            return Fault::Slow { what: "connection", after: self.connect_timeout };
        }
        Fault::of(error, error.is_connect())
    }
}

fn timed_out(error: &Error) -> bool {
    crate::fault::causes(error).iter().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut)
    })
}
