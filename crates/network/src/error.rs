//! What can be the matter with a pod's network, in words for people and a class for programs.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use names::{Class, PodId};

use crate::{HostPort, subnet::Subnet};

/// Why the built-in network could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bridge's name cannot be one.
    #[error(
        "{0:?} cannot name the bridge: it must be a letter and up to 14 of a-z, A-Z, 0-9, - and _, \
         and not a word that the kernel uses itself"
    )]
    BadBridgeName(String),
    /// The subnets cannot be used together, or there is none.
    #[error("the subnets of the network are wrong: {0}")]
    BadSubnets(String),
    /// No interface can have this MTU.
    #[error("an MTU of {0} is out of range: it must be 1280 to 65535")]
    BadMtu(u32),
    /// A host port that can never be.
    #[error("host port {port} cannot be: {why}")]
    BadPort {
        /// The port as asked for.
        port: HostPort,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A host port is held by another pod.
    #[error("host port {port} is held by pod {pod}")]
    PortTaken {
        /// The port as asked for.
        port: HostPort,
        /// Who holds it.
        pod: PodId,
    },
    /// Every address is held.
    #[error("no address is left in {subnet}: remove pods, or configure a wider subnet")]
    Exhausted {
        /// The subnet.
        subnet: Subnet,
    },
    /// The lease is not this pod's, or was released.
    #[error("{address} is not reserved for pod {pod}")]
    NotReserved {
        /// The pod.
        pod: PodId,
        /// The address in its lease.
        address: IpAddr,
    },
    /// There is no network namespace where one should be.
    #[error("no network namespace to attach to at {}", path.display())]
    NoNetns {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The pod's network namespace has an `eth0` that is not ours.
    #[error("the network namespace {} has an eth0 already", path.display())]
    HasEth0 {
        /// The namespace.
        path: PathBuf,
    },
    /// An interface with the bridge's name is something else.
    #[error("{0} exists and is not a bridge: configure another name for the bridge")]
    NotABridge(String),
    /// Another interface of the host uses these addresses.
    #[error("{subnet} overlaps {address} of {link}: configure another subnet")]
    SubnetInUse {
        /// Ours.
        subnet: Subnet,
        /// The interface that has it.
        link: String,
        /// Its address there.
        address: String,
    },
    /// The program `nft` is not installed.
    #[error("the program nft is missing: install the package \"nftables\"")]
    NoNft,
    /// `nft` was found, but did not do it.
    #[error(
        "nft refused the table {table}: {said} (it needs nf_tables with nat, masq, fib and ct in the \
         kernel)"
    )]
    NftRefused {
        /// The table.
        table: String,
        /// What it printed.
        said: String,
    },
    /// The kernel lacks something we need.
    #[error("the kernel lacks {0}: load or enable the module")]
    KernelLacks(&'static str),
    /// We lack the rights.
    #[error("no right to change the network: podbayd needs CAP_NET_ADMIN")]
    NoRight,
    /// It took longer than the configured deadline.
    #[error("{doing} took longer than {limit:?}")]
    TookTooLong {
        /// What was being done.
        doing: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// The kernel refused a request.
    #[error("{doing}")]
    Kernel {
        /// What was asked for.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The bridge or the table went away under our hands, twice.
    #[error("{0} keeps vanishing: something else on this host removes it")]
    Vanished(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::BadBridgeName(_)
            | Error::BadSubnets(_)
            | Error::BadMtu(_)
            | Error::BadPort { .. } => Class::InvalidArgument,
            Error::PortTaken { .. } => Class::AlreadyExists,
            Error::Exhausted { .. } => Class::ResourceExhausted,
            Error::NoNetns { .. } => Class::NotFound,
            Error::NotReserved { .. }
            | Error::HasEth0 { .. }
            | Error::NotABridge(_)
            | Error::SubnetInUse { .. }
            | Error::NoNft
            | Error::NftRefused { .. }
            | Error::KernelLacks(_) => Class::FailedPrecondition,
            Error::NoRight => Class::PermissionDenied,
            Error::TookTooLong { .. } => Class::DeadlineExceeded,
            Error::Vanished(_) => Class::Unavailable,
            Error::Kernel { .. } | Error::File { .. } => Class::Internal,
        }
    }
}

/// Says what was being done when the kernel refused.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NoRight,
            _ => Error::Kernel { doing: what(), source },
        })
    }
}

/// Says which file it was about.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::File { doing, path: path.to_owned(), source })
    }
}
