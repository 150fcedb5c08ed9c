//! What a sandboxer is asked: the controller service of `containerd.services.sandbox.v1`, generated
//! from our own files, and the names that both ends must spell alike. Messages, client and server; no
//! behaviour.

/// Nested as their packages are: what is generated refers to its neighbours that way.
mod containerd {
    pub mod types {
        #![allow(clippy::all, clippy::pedantic, clippy::restriction)]
        tonic::include_proto!("containerd.types");
    }
    pub mod services {
        pub mod sandbox {
            pub mod v1 {
                #![allow(clippy::all, clippy::pedantic, clippy::restriction)]
                tonic::include_proto!("containerd.services.sandbox.v1");
            }
        }
    }
}

pub use containerd::{services::sandbox::v1, types};
pub use prost_types::{Any, Timestamp};

/// The `type_url` of Create's options: a `PodSandboxConfig` of CRI, in protobuf.
pub const POD_CONFIG_URL: &str = "runtime.v1.PodSandboxConfig";

/// The `type_url` of a list of tasks, as JSON: the dialect that Kuasar and iSulad speak.
pub const TASKS_URL: &str = "github.com/containerd/containerd/Tasks";

/// The extension of a sandbox that holds such a list, and the field by which Update names it.
pub const TASKS: &str = "tasks";
pub const TASKS_FIELD: &str = "extensions.tasks";

/// The extension of a sandbox that holds its resources, and the field by which Update names it.
pub const RESOURCES: &str = "resources";
pub const RESOURCES_FIELD: &str = "extensions.resources";

/// What a sandbox is in, in the words of Status. The first is ours: containerd knows the others.
pub mod state {
    pub const CREATED: &str = "SANDBOX_CREATED";
    pub const READY: &str = "SANDBOX_READY";
    pub const NOT_READY: &str = "SANDBOX_NOTREADY";
}

/// Labels in the answer to Start, each an absolute path: the namespaces that containers join. The
/// service has no field for them. One that is missing stands for the host's.
pub mod label {
    pub const NETWORK: &str = "podbay.namespace.network";
    pub const IPC: &str = "podbay.namespace.ipc";
    pub const UTS: &str = "podbay.namespace.uts";
    pub const PID: &str = "podbay.namespace.pid";
}

/// The entry of Status' info with the exit code of a sandbox that has ended: its own fields tell only
/// when it did.
pub const EXIT_CODE: &str = "podbay.exit_code";

/// The version of the Task API that is served at the address of a sandbox of ours.
pub const TASK_VERSION: u32 = 3;
