//! The shim's command line: `podbay-shim --pod ID --dir DIR [--socket PATH]`.

use std::{ffi::OsString, path::PathBuf};

use crate::error::Error;

#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only to be read in the list of processes.
    pub pod: String,
    /// The pod's directory, which exists.
    pub dir: PathBuf,
    /// Where to listen, if not at descriptor 3.
    pub socket: Option<PathBuf>,
}

impl Settings {
    /// Reads the arguments after the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let (mut pod, mut dir, mut socket) = (None, None, None);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let place = match argument.to_str() {
                Some("--pod") => &mut pod,
                Some("--dir") => &mut dir,
                Some("--socket") => &mut socket,
                _ => return Err(usage(format!("{argument:?} is unknown"))),
            };
            let value = arguments.next().filter(|value| !value.is_empty());
            *place = Some(value.ok_or_else(|| usage(format!("{argument:?} wants a value")))?);
        }
        let pod = pod.and_then(|pod| pod.into_string().ok());
        let dir = dir.map(PathBuf::from).filter(|dir| dir.is_absolute());
        Ok(Self {
            pod: pod.ok_or_else(|| usage("--pod is missing"))?,
            dir: dir.ok_or_else(|| usage("--dir is missing, or not an absolute path"))?,
            socket: socket.map(PathBuf::from),
        })
    }
}

fn usage(why: impl Into<String>) -> Error {
    Error::bad("usage: podbay-shim --pod ID --dir DIR [--socket PATH]", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Settings, Error> {
        Settings::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn pod_and_directory_are_needed_and_nothing_unknown_is_taken() {
        let settings = parse("--pod a --dir /d --socket /s").unwrap();
        let (dir, socket) = ("/d".into(), Some("/s".into()));
        assert_eq!(settings, Settings { pod: "a".to_owned(), dir, socket });
        for bad in ["", "--pod a", "--dir /d", "--pod a --dir d", "--pod a --dir /d x", "--pod"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
