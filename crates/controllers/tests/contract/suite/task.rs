//! A container in a sandbox: run at the address that Start gave, by the Task API.

use std::{
    fs,
    path::{Path, PathBuf},
};

use controllers::{Container, Namespaces, Started};
use names::ContainerId;
use serde_json::{Value, json};
use shim_api::{CreateTask, ExecSync, Shim};

use super::{SOON, Scene, Subject};

const BUSYBOX: &str = "/bin/busybox";

pub async fn a_container_runs_at_its_address(subject: impl Subject) {
    let Some(mut scene) = Scene::new(subject).await else { return };
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: there is no {BUSYBOX}");
        return;
    }
    let pod = scene.pod();
    let started = scene.started(&pod).await;
    let container = bundle(&pod, &started);
    scene.controller.prepare(&pod.place, &container).await.unwrap();
    let (shim, id) = (Shim::new(started.address.clone()), container.id.as_str());
    let task =
        CreateTask { id: id.to_owned(), bundle: container.bundle.clone(), ..Default::default() };
    shim.create(task, SOON).await.unwrap();
    let pid = shim.start(id, SOON).await.unwrap();
    let own = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    assert_ne!(own("uts"), fs::read_link("/proc/self/ns/uts").unwrap());
    // It does not notice that its sandbox is kept by another process now.
    scene.restart().await;
    let args = ["hostname"].map(str::to_owned).to_vec();
    let said = shim.exec_sync(id, ExecSync { args, timeout: Some(SOON) }).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), pod.hostname);
    shim.kill(id, 9, true, SOON).await.unwrap();
    let exit = tokio::time::timeout(SOON, shim.wait(id)).await.unwrap().unwrap();
    assert_eq!(exit.code, 137);
    shim.delete(id, SOON).await.unwrap();
    scene.controller.purge(&pod.place, &container.id).await.unwrap();
    fs::remove_dir_all(pod.place.dir.join("containers")).unwrap();
    scene.shut_down(&pod).await;
}

/// A bundle of busybox that joins the namespaces of the sandbox.
fn bundle(pod: &controllers::Sandbox, started: &Started) -> Container {
    let id = ContainerId::from_bytes([0xc0; 32]);
    let bundle = pod.place.dir.join("containers").join(id.as_str());
    let rootfs = bundle.join("rootfs");
    for folder in ["bin", "proc", "dev"] {
        fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
    for tool in ["sleep", "hostname"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(tool)).unwrap();
    }
    let config = config(&pod.place.cgroup.join(id.as_str()), &started.namespaces);
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    Container { id, bundle }
}

fn config(cgroup: &Path, namespaces: &Namespaces) -> Value {
    let join =
        |kind: &str, path: &Option<PathBuf>| json!({"type": kind, "path": path.as_ref().unwrap()});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sleep", "1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                {"type": "pid"},
                {"type": "mount"},
                join("network", &namespaces.network),
                join("ipc", &namespaces.ipc),
                join("uts", &namespaces.uts),
            ],
        },
    })
}
