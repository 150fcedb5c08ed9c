//! Connections to ports of a pod, from inside its own network: what a port-forward leads to.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use names::Class;
use tokio::net::TcpStream;

use crate::{Error, Pods, pod::PodRecord, run::ready};

/// How long a port of the pod's own loopback may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pods {
    /// Connects to a port at which a process of the pod listens on its loopback, by IPv4 or else IPv6.
    ///
    /// # Errors
    /// Of class Unavailable if nobody listens there.
    pub async fn dial(&self, pod: &str, port: u16) -> Result<TcpStream, Error> {
        let owner = self.find_pod(pod)?.ok_or_else(|| Error::NoSuchPod(pod.to_owned()))?;
        let record = ready(&owner).await?.clone();
        let id = record.id.short().to_owned();
        let dialled = tokio::task::spawn_blocking(move || connect(&record, port)).await;
        let dialled =
            dialled.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        let stream = dialled.and_then(|stream| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        stream.map_err(|error| Error::Refused {
            class: Class::Unavailable,
            why: format!("port {port} of pod {id} cannot be reached: {error}"),
        })
    }
}

fn connect(pod: &PodRecord, port: u16) -> io::Result<std::net::TcpStream> {
    let dial = || {
        let to =
            |ip: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE);
        // The first refusal is the one to tell: most pods have nothing on IPv6.
        to(Ipv4Addr::LOCALHOST.into())
            .or_else(|first| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| first))
    };
    match &pod.netns {
        None => dial(),
        Some(netns) => sys::netns::within(netns, dial)?,
    }
}
