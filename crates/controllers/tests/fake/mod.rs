//! A sandboxer that keeps no sandboxes: it writes down what it is asked, and behaves as it is told.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use cri_proto::v1::PodSandboxConfig;
use prost::Message as _;
use sandbox_api::{
    Any, EXIT_CODE, Timestamp, state, types,
    v1::{
        self,
        controller_server::{Controller, ControllerServer},
    },
};
use serde_json::{Value, json};
use tokio::{net::UnixListener, runtime::Runtime, sync::Notify};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// The call that it never answers.
    pub hangs: Option<&'static str>,
    /// The call that it has no room for.
    pub refuses: Option<&'static str>,
    /// The call that it does not serve.
    pub lacks: Option<&'static str>,
    /// Where it says that tasks are served.
    pub address: &'static str,
    /// It knows of no sandbox.
    pub forgets: bool,
    /// The sandbox has ended.
    pub ended: bool,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            hangs: None,
            refuses: None,
            lacks: None,
            address: "ttrpc+vsock://3:1024",
            forgets: false,
            ended: false,
        }
    }
}

/// Serves on a runtime of its own, so that all of it dies at once.
pub struct Fake {
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
}

struct Shared {
    conduct: Mutex<Conduct>,
    heard: Mutex<Vec<(&'static str, Value)>>,
    hears: Notify,
}

impl Fake {
    pub fn start(socket: &Path, conduct: Conduct) -> Self {
        let _ = std::fs::remove_file(socket);
        let shared = Arc::new(Shared {
            conduct: Mutex::new(conduct),
            heard: Mutex::default(),
            hears: Notify::new(),
        });
        let builder =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = builder.unwrap();
        let service = ControllerServer::new(Scribe(Arc::clone(&shared)));
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { shared, runtime: Mutex::new(Some(runtime)) }
    }

    /// What it was asked, a line for each call.
    pub fn heard(&self) -> String {
        let heard = self.shared.heard.lock().unwrap();
        heard.iter().map(|(call, said)| format!("{call} {said}\n")).collect()
    }

    pub fn conduct(&self, conduct: Conduct) {
        *self.shared.conduct.lock().unwrap() = conduct;
    }

    pub async fn until_heard(&self, call: &str) {
        loop {
            let hears = self.shared.hears.notified();
            if self.shared.heard.lock().unwrap().iter().any(|(heard, _)| *heard == call) {
                return;
            }
            hears.await;
        }
    }

    /// As by SIGKILL.
    pub fn die(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.die();
    }
}

struct Scribe(Arc<Shared>);

impl Scribe {
    /// Writes a call down, and behaves.
    async fn hear<T>(
        &self,
        call: &'static str,
        request: Request<T>,
        said: impl FnOnce(&T) -> Value,
    ) -> Result<Conduct, Status> {
        let mut line = said(request.get_ref());
        line["deadline"] = request.metadata().contains_key("grpc-timeout").into();
        self.0.heard.lock().unwrap().push((call, line));
        self.0.hears.notify_waiters();
        let conduct = self.0.conduct.lock().unwrap().clone();
        if conduct.hangs == Some(call) {
            std::future::pending::<()>().await;
        }
        if conduct.refuses == Some(call) {
            return Err(Status::resource_exhausted("no room"));
        }
        if conduct.lacks == Some(call) {
            return Err(Status::unimplemented("not here"));
        }
        if conduct.forgets || self.has_heard("Shutdown") && call == "Status" {
            return Err(Status::not_found("no such sandbox"));
        }
        Ok(conduct)
    }

    fn has_heard(&self, call: &str) -> bool {
        self.0.heard.lock().unwrap().iter().any(|(heard, _)| *heard == call)
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn config(options: Option<&Any>) -> Value {
    let Some(options) = options else { return Value::Null };
    let config = PodSandboxConfig::decode(&*options.value).unwrap();
    let metadata = config.metadata.unwrap();
    let linux = config.linux.unwrap();
    let context = linux.security_context.unwrap();
    let shared = context.namespace_options.unwrap();
    let seccomp = context.seccomp.unwrap();
    json!({
        "type_url": options.type_url,
        "metadata": [metadata.name, metadata.uid, metadata.namespace, metadata.attempt],
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "labels": config.labels,
        "annotations": config.annotations,
        "cgroup_parent": linux.cgroup_parent,
        "sysctls": linux.sysctls,
        "network": shared.network().as_str_name(),
        "pid": shared.pid().as_str_name(),
        "ipc": shared.ipc().as_str_name(),
        "user": context.run_as_user.map(|id| id.value),
        "group": context.run_as_group.map(|id| id.value),
        "groups": context.supplemental_groups,
        "privileged": context.privileged,
        "seccomp": [seccomp.profile_type().as_str_name(), &seccomp.localhost_ref],
    })
}

fn sandbox(sandbox: Option<&types::Sandbox>) -> Value {
    let Some(sandbox) = sandbox else { return Value::Null };
    let extension = |(key, any): (&String, &Any)| {
        let json: Value = serde_json::from_slice(&any.value).unwrap();
        (key.clone(), json!({"type_url": any.type_url, "value": json}))
    };
    json!({
        "sandbox_id": sandbox.sandbox_id,
        "runtime": sandbox.runtime.as_ref().map(|runtime| &runtime.name),
        "labels": sandbox.labels,
        "extensions": sandbox.extensions.iter().map(extension).collect::<serde_json::Map<_, _>>(),
        "sandboxer": sandbox.sandboxer,
    })
}

#[tonic::async_trait]
impl Controller for Scribe {
    async fn create(
        &self,
        request: Request<v1::ControllerCreateRequest>,
    ) -> Answer<v1::ControllerCreateResponse> {
        let said = |it: &v1::ControllerCreateRequest| {
            json!({
                "sandbox_id": it.sandbox_id,
                "rootfs": it.rootfs.len(),
                "options": config(it.options.as_ref()),
                "netns_path": it.netns_path,
                "annotations": it.annotations,
                "sandbox": sandbox(it.sandbox.as_ref()),
                "sandboxer": it.sandboxer,
            })
        };
        self.hear("Create", request, said).await?;
        Ok(Response::new(Default::default()))
    }

    async fn start(
        &self,
        request: Request<v1::ControllerStartRequest>,
    ) -> Answer<v1::ControllerStartResponse> {
        let said = |it: &v1::ControllerStartRequest| json!({"sandbox_id": it.sandbox_id, "sandboxer": it.sandboxer});
        let conduct = self.hear("Start", request, said).await?;
        let address = conduct.address.to_owned();
        Ok(Response::new(v1::ControllerStartResponse { address, ..Default::default() }))
    }

    async fn platform(
        &self,
        request: Request<v1::ControllerPlatformRequest>,
    ) -> Answer<v1::ControllerPlatformResponse> {
        let said = |it: &v1::ControllerPlatformRequest| json!({"sandbox_id": it.sandbox_id, "sandboxer": it.sandboxer});
        self.hear("Platform", request, said).await?;
        let platform = types::Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
        };
        Ok(Response::new(v1::ControllerPlatformResponse { platform: Some(platform) }))
    }

    async fn stop(
        &self,
        request: Request<v1::ControllerStopRequest>,
    ) -> Answer<v1::ControllerStopResponse> {
        let said = |it: &v1::ControllerStopRequest| json!({"sandbox_id": it.sandbox_id, "timeout_secs": it.timeout_secs, "sandboxer": it.sandboxer});
        self.hear("Stop", request, said).await?;
        Ok(Response::new(Default::default()))
    }

    async fn wait(
        &self,
        request: Request<v1::ControllerWaitRequest>,
    ) -> Answer<v1::ControllerWaitResponse> {
        let said = |it: &v1::ControllerWaitRequest| json!({"sandbox_id": it.sandbox_id, "sandboxer": it.sandboxer});
        self.hear("Wait", request, said).await?;
        let exited_at = Some(Timestamp { seconds: 5, nanos: 0 });
        Ok(Response::new(v1::ControllerWaitResponse { exit_status: 137, exited_at }))
    }

    async fn status(
        &self,
        request: Request<v1::ControllerStatusRequest>,
    ) -> Answer<v1::ControllerStatusResponse> {
        let said = |it: &v1::ControllerStatusRequest| json!({"sandbox_id": it.sandbox_id, "verbose": it.verbose, "sandboxer": it.sandboxer});
        let conduct = self.hear("Status", request, said).await?;
        let ended = conduct.ended || self.has_heard("Stop");
        let state = if ended { state::NOT_READY } else { state::READY };
        let info = [(EXIT_CODE.to_owned(), "137".to_owned())].into();
        Ok(Response::new(v1::ControllerStatusResponse {
            state: state.to_owned(),
            info,
            ..Default::default()
        }))
    }

    async fn shutdown(
        &self,
        request: Request<v1::ControllerShutdownRequest>,
    ) -> Answer<v1::ControllerShutdownResponse> {
        let said = |it: &v1::ControllerShutdownRequest| json!({"sandbox_id": it.sandbox_id, "sandboxer": it.sandboxer});
        self.hear("Shutdown", request, said).await?;
        Ok(Response::new(Default::default()))
    }

    async fn metrics(
        &self,
        request: Request<v1::ControllerMetricsRequest>,
    ) -> Answer<v1::ControllerMetricsResponse> {
        let said = |it: &v1::ControllerMetricsRequest| json!({"sandbox_id": it.sandbox_id, "sandboxer": it.sandboxer});
        self.hear("Metrics", request, said).await?;
        let data = Any { type_url: shim_api::METRICS_V2_URL.to_owned(), value: Vec::new() };
        let metrics = Some(types::Metric { data: Some(data), ..Default::default() });
        Ok(Response::new(v1::ControllerMetricsResponse { metrics }))
    }

    async fn update(
        &self,
        request: Request<v1::ControllerUpdateRequest>,
    ) -> Answer<v1::ControllerUpdateResponse> {
        let said = |it: &v1::ControllerUpdateRequest| {
            json!({
                "sandbox_id": it.sandbox_id,
                "sandboxer": it.sandboxer,
                "sandbox": sandbox(it.sandbox.as_ref()),
                "fields": it.fields,
            })
        };
        self.hear("Update", request, said).await?;
        Ok(Response::new(Default::default()))
    }
}
