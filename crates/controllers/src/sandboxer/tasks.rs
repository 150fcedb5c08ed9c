//! The list of a pod's containers, for sandboxers that must hear of each before it is made: the
//! `extensions.tasks` dialect of Kuasar and iSulad. It is declarative, and sent whole. A container's
//! entry is made once, from its bundle, and kept.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use names::{ContainerId, PodId};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{Container, Error, Place, error::Context};

/// By container, what is said of it.
pub(super) type Entries = BTreeMap<ContainerId, Arc<RawValue>>;

/// The lists of all pods. Each has a lock of its own, held while it is told.
#[derive(Default)]
pub(super) struct Tasks(Mutex<HashMap<PodId, Arc<tokio::sync::Mutex<Option<Entries>>>>>);

impl Tasks {
    pub(super) fn of(&self, pod: &PodId) -> Arc<tokio::sync::Mutex<Option<Entries>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(pod.clone()).or_default())
    }

    pub(super) fn forget(&self, pod: &PodId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }
}

#[derive(Serialize)]
struct Task<'a> {
    task_id: &'a ContainerId,
    spec: Box<RawValue>,
    rootfs: [Rootfs<'a>; 1],
    stdin: &'a str,
    stdout: &'a str,
    stderr: &'a str,
    processes: [(); 0],
}

#[derive(Serialize)]
struct Rootfs<'a> {
    r#type: &'a str,
    source: &'a Path,
    target: &'a str,
    options: [&'a str; 2],
}

/// What is said of a container.
pub(super) fn entry(container: &Container) -> Result<Arc<RawValue>, Error> {
    let file = container.bundle.join("config.json");
    let config = fs::read(&file).on("reading", &file)?;
    let task = Task {
        task_id: &container.id,
        spec: serde_json::from_slice(&config).on("reading", &file)?,
        rootfs: [Rootfs {
            r#type: "bind",
            source: &container.bundle.join("rootfs"),
            target: "",
            options: ["rbind", "rw"],
        }],
        // The output goes to where Task.Create says.
        stdin: "",
        stdout: "",
        stderr: "",
        processes: [],
    };
    to_raw_value(&task).map(Arc::from).on("telling of", file)
}

/// The containers that the pod has a bundle of: what was known before a restart. One whose config
/// cannot be read is in the making, and will be told of by itself.
pub(super) fn on_disk(place: &Place) -> Entries {
    let bundle = |found: fs::DirEntry| {
        let id = found.file_name().to_str()?.parse::<ContainerId>().ok()?;
        let container = Container { id, bundle: found.path() };
        match entry(&container) {
            Ok(entry) => Some((container.id, entry)),
            Err(error) => {
                tracing::debug!(container = %container.id, %error, "not told of yet");
                None
            }
        }
    };
    let folder = fs::read_dir(place.dir.join("containers"));
    folder.into_iter().flatten().flatten().filter_map(bundle).collect()
}

/// The whole list, as it is sent.
pub(super) fn list(entries: &Entries) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        tasks: Vec<&'a RawValue>,
    }
    let list = List { tasks: entries.values().map(|entry| &**entry).collect() };
    serde_json::to_vec(&list).expect("what was JSON is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(dir: &Path, byte: u8, config: &str) -> Container {
        let id = ContainerId::from_bytes([byte; 32]);
        let bundle = dir.join("containers").join(id.as_str());
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), config).unwrap();
        Container { id, bundle }
    }

    #[test]
    fn a_list_holds_every_container_with_its_spec_as_it_is_in_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        container(dir.path(), 1, r#"{"ociVersion": "1.2.0"}"#);
        container(dir.path(), 2, "{}");
        container(dir.path(), 3, "{");
        fs::create_dir(dir.path().join("containers/other")).unwrap();
        let id = PodId::from_bytes([9; 32]);
        let place = Place { id, dir: dir.path().into(), cgroup: "/".into() };
        let all: serde_json::Value = serde_json::from_slice(&list(&on_disk(&place))).unwrap();
        let tasks = all["tasks"].as_array().unwrap();
        assert_eq!(tasks.len(), 2);
        assert_eq!(tasks[0]["task_id"], "01".repeat(32));
        assert_eq!(tasks[0]["spec"]["ociVersion"], "1.2.0");
        let source = format!("{}/containers/{}/rootfs", dir.path().display(), "01".repeat(32));
        assert_eq!(tasks[0]["rootfs"][0]["source"], source);
        assert_eq!(tasks[0]["rootfs"][0]["type"], "bind");
        assert!(tasks[0]["processes"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_spec_that_is_no_json_is_an_error_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = entry(&container(dir.path(), 1, "{")).unwrap_err();
        assert!(error.to_string().ends_with("config.json"), "{error}");
    }
}
