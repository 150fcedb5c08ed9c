//! What can be wrong when an archive is unpacked: the archive, its size, its reader or the host.

use std::{fmt, io};

use rustix::io::Errno;

/// Why an archive was not unpacked.
#[derive(Debug)]
pub enum Fault {
    /// The archive is malformed, ambiguous or asks for what no layer may.
    Archive { entry: String, why: String },
    /// The archive asks for more than the limits allow.
    TooMuch { what: &'static str, limit: u64 },
    /// The archive could not be read on: its compression is broken, or its source failed.
    Read(io::Error),
    /// The host would not do what the archive rightly asks for.
    Host { doing: &'static str, entry: String, source: io::Error },
}

/// How much of a name is quoted in a message.
const QUOTED: usize = 200;

/// A name out of an archive, fit for a message: printable and not too long.
pub fn quoted(name: &[u8]) -> String {
    let cut = &name[..name.len().min(QUOTED)];
    let dots = if cut.len() < name.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

impl Fault {
    pub fn archive(entry: &[u8], why: impl Into<String>) -> Fault {
        Fault::Archive { entry: quoted(entry), why: why.into() }
    }

    /// Sorts out whose fault an error of the kernel is. That a name is too long, or a parent is not
    /// a directory, is the archive's; the rest is the host's.
    pub fn at(doing: &'static str, entry: &[u8], source: impl Into<io::Error>) -> Fault {
        let source = source.into();
        match Errno::from_io_error(&source) {
            Some(Errno::NAMETOOLONG) => Fault::archive(entry, "its name is too long"),
            Some(Errno::LOOP | Errno::XDEV) => {
                Fault::archive(entry, "its path goes through a symbolic link or outside")
            }
            Some(Errno::NOTDIR) => Fault::archive(entry, "its parent is not a directory"),
            Some(Errno::MLINK) => Fault::archive(entry, "it has too many hard links"),
            _ => Fault::Host { doing, entry: quoted(entry), source },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Archive { entry, why } if entry.is_empty() => f.write_str(why),
            Fault::Archive { entry, why } => write!(f, "{entry}: {why}"),
            Fault::TooMuch { what, limit } => write!(f, "more than {limit} {what}"),
            Fault::Read(_) => f.write_str("it cannot be read to its end"),
            Fault::Host { doing, entry, .. } => write!(f, "{doing} {entry}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Read(source) | Fault::Host { source, .. } => Some(source),
            _ => None,
        }
    }
}
