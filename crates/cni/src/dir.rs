//! The conf directory: which networks it defines now. It is looked at when somebody asks, and read
//! again only if it changed; nothing watches it and nothing polls.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::conf::{BadConf, NetworkList, parse_conf, parse_conflist};

/// No conf is longer than this, in bytes.
const LONGEST: u64 = 1 << 20;

/// A file that changed this recently may change again without looking different: how finely a file
/// system tells times apart is its own affair, and a second is the coarsest there is.
const FRESH: Duration = Duration::from_secs(1);

/// A conf file that is of no use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub file: PathBuf,
    pub reason: String,
}

/// There is no network for pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CNI network in {}: {reason}", dir.display())]
pub struct NoNetwork {
    pub dir: PathBuf,
    pub reason: String,
}

/// What the directory defines.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// In lexical order of the files' names; the first is the default.
    usable: Vec<Arc<NetworkList>>,
    pub(crate) skipped: Vec<Skipped>,
    /// Why the directory could not be read at all.
    unread: Option<String>,
}

pub(crate) struct ConfDir {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    files: Option<Vec<File>>,
    networks: Arc<Networks>,
}

/// A file, and by what one sees that it is another now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    path: PathBuf,
    inode: (u64, u64),
    size: u64,
    /// Of content and of inode, in seconds and nanoseconds.
    changed: [(i64, i64); 2],
    regular: bool,
}

impl ConfDir {
    pub(crate) fn new(path: PathBuf) -> ConfDir {
        ConfDir { path, known: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the directory defines now.
    pub(crate) fn networks(&self) -> Arc<Networks> {
        let files = match list(&self.path) {
            Ok(files) => files,
            Err(e) => {
                let unread = Some(format!("it cannot be read: {e}"));
                return Arc::new(Networks { unread, ..Networks::default() });
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.files.as_ref() != Some(&files) {
            let networks = read(&files);
            report(&known.networks.skipped, &networks.skipped);
            known.networks = Arc::new(networks);
            known.files = (!is_fresh(&files)).then_some(files);
        }
        known.networks.clone()
    }

    /// The network that pods are attached to.
    pub(crate) fn default(&self) -> Result<Arc<NetworkList>, NoNetwork> {
        let networks = self.networks();
        let first = networks.usable.first().cloned();
        first.ok_or_else(|| NoNetwork { dir: self.path.clone(), reason: networks.why_none() })
    }

    /// The network of this name, the first one if there are several.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<NetworkList>> {
        self.networks().usable.iter().find(|network| network.name() == name).cloned()
    }
}

impl Networks {
    fn why_none(&self) -> String {
        if let Some(unread) = &self.unread {
            return unread.clone();
        }
        match &*self.skipped {
            [] => "it holds no .conflist, .conf or .json file".to_owned(),
            all => all.iter().map(Skipped::to_string).collect::<Vec<_>>().join("; "),
        }
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        write!(f, "{}: {}", name.display(), self.reason)
    }
}

/// Tells of each useless file once, not at every look.
fn report(before: &[Skipped], now: &[Skipped]) {
    for Skipped { file, reason } in now.iter().filter(|skipped| !before.contains(skipped)) {
        tracing::warn!(file = %file.display(), reason, "conf file skipped");
    }
}

/// The directory's conf files, in lexical order. One that vanishes meanwhile was never there.
fn list(dir: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !matches!(extension(&path), Some("conflist" | "conf" | "json")) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(of) if of.is_dir() => {}
            Ok(of) => files.push(File::of(path, &of)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    files.sort();
    Ok(files)
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}

impl File {
    fn of(path: PathBuf, of: &fs::Metadata) -> File {
        File {
            path,
            inode: (of.dev(), of.ino()),
            size: of.size(),
            changed: [(of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec())],
            regular: of.is_file(),
        }
    }

    fn read(&self) -> Result<NetworkList, String> {
        if !self.regular {
            return Err("it is not a regular file".to_owned());
        }
        if self.size > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let bytes = fs::read(&self.path).map_err(|e| format!("it cannot be read: {e}"))?;
        let parsed = match extension(&self.path) {
            Some("conflist") => parse_conflist(&bytes),
            _ => parse_conf(&bytes),
        };
        parsed.map_err(|e| match &e {
            BadConf::NotJson(cause) => format!("{e}: {cause}"),
            _ => e.to_string(),
        })
    }
}

fn read(files: &[File]) -> Networks {
    let mut networks = Networks::default();
    for file in files {
        match file.read() {
            Ok(network) => networks.usable.push(Arc::new(network)),
            Err(reason) => networks.skipped.push(Skipped { file: file.path.clone(), reason }),
        }
    }
    networks
}

fn is_fresh(files: &[File]) -> bool {
    let since = SystemTime::now() - FRESH;
    let since = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let changes = files.iter().flat_map(|file| file.changed);
    changes.map(|(seconds, _)| seconds).any(|at| u64::try_from(at).is_ok_and(|at| at >= since))
}

#[cfg(test)]
mod tests;
