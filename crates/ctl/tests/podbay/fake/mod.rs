//! A runtime that makes nothing: pods and containers are entries of a list, and what was asked is
//! written down.

mod admin;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cri_proto::admin::admin_server::AdminServer;
use cri_proto::v1;
use cri_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use cri_proto::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub pods: BTreeMap<String, v1::PodSandbox>,
    pub containers: BTreeMap<String, (String, v1::ContainerStatus)>,
    pub images: Vec<v1::Image>,
    /// The calls that change something, in a form for people.
    pub asked: Vec<String>,
    /// What LoadImage was given.
    pub loaded: Vec<u8>,
    /// SaveImage breaks off after its first piece.
    pub breaks: bool,
    log_directory: PathBuf,
}

const SECOND: i64 = 1_000_000_000;

impl Fake {
    /// One with a pod `shop`, in it a container `web` that runs and one that has ended.
    pub fn with_a_shop() -> Fake {
        let fake = Fake::default();
        fake.put_pod(&"a0".repeat(32), "shop");
        fake.put_container(&"c1".repeat(32), "web", v1::ContainerState::ContainerRunning, "");
        fake.put_container(&"c2".repeat(32), "init", v1::ContainerState::ContainerExited, "");
        fake.state().images.push(v1::Image {
            id: format!("sha256:{}", "0b".repeat(32)),
            repo_tags: vec!["docker.io/library/nginx:1".to_owned()],
            size: 1_000_000,
            ..Default::default()
        });
        fake
    }

    fn put_pod(&self, id: &str, name: &str) {
        let metadata = v1::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ..Default::default()
        };
        let pod = v1::PodSandbox {
            id: id.to_owned(),
            metadata: Some(metadata),
            created_at: SECOND,
            ..Default::default()
        };
        self.state().pods.insert(id.to_owned(), pod);
    }

    pub fn put_container(&self, id: &str, name: &str, state: v1::ContainerState, log: &str) {
        let status = v1::ContainerStatus {
            id: id.to_owned(),
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            state: state.into(),
            created_at: SECOND,
            log_path: log.to_owned(),
            ..Default::default()
        };
        self.state().containers.insert(id.to_owned(), ("a0".repeat(32), status));
    }

    /// Serves on a socket in the directory until the test ends.
    pub fn serve(&self, place: &Path) -> PathBuf {
        let socket = place.join("podbay.sock");
        self.serve_at(&socket, true);
        socket
    }

    /// As a runtime that is not Podbay would.
    pub fn serve_cri_only(&self, place: &Path) -> PathBuf {
        let socket = place.join("other.sock");
        self.serve_at(&socket, false);
        socket
    }

    pub fn serve_at(&self, socket: &Path, admin: bool) {
        let listener = UnixListener::bind(socket).expect("the directory is fresh");
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .add_optional_service(admin.then(|| AdminServer::new(self.clone())))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }
}

pub type Answer<T> = Result<Response<T>, Status>;

pub fn answer<T: Default>() -> Answer<T> {
    Ok(Response::new(T::default()))
}

fn found<T>(thing: Option<T>) -> Result<T, Status> {
    thing.ok_or_else(|| Status::not_found("the fake has no such thing"))
}

/// Writes a line every now and then, until its container has ended.
async fn chatter(fake: Fake, id: String, log: PathBuf) {
    let running = i32::from(v1::ContainerState::ContainerRunning);
    let runs = |fake: &Fake| fake.state().containers.get(&id).is_some_and(|c| c.1.state == running);
    let mut file = fs::File::create(&log).expect("the log directory is there");
    let mut number = 0;
    while runs(&fake) {
        number += 1;
        writeln!(file, "2026-01-02T03:04:05Z stdout F line {number}").expect("there is room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: "1.2.3".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let network = v1::RuntimeCondition {
            r#type: "NetworkReady".to_owned(),
            status: false,
            reason: "NoNetworkConfig".to_owned(),
            message: "no file in /etc/cni/net.d".to_owned(),
        };
        let status = Some(v1::RuntimeStatus { conditions: vec![network] });
        Ok(Response::new(v1::StatusResponse { status, ..Default::default() }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap_or_default();
        let id = "a0".repeat(32);
        self.put_pod(&id, &config.metadata.unwrap_or_default().name);
        self.state().log_directory = config.log_directory.into();
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.state().asked.push(format!("stop pod {}", &id[..2]));
        answer()
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state();
        state.pods.remove(&id);
        state.containers.retain(|_, (pod, _)| *pod != id);
        state.asked.push(format!("remove pod {}", &id[..2]));
        answer()
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let pod = found(self.state().pods.get(&request.pod_sandbox_id).cloned())?;
        let network =
            v1::PodSandboxNetworkStatus { ip: "10.89.0.2".to_owned(), ..Default::default() };
        let status = v1::PodSandboxStatus {
            id: pod.id,
            metadata: pod.metadata,
            created_at: pod.created_at,
            network: Some(network),
            ..Default::default()
        };
        let told =
            |on| if on { [("pid".to_owned(), "7".to_owned())].into() } else { BTreeMap::new() };
        Ok(Response::new(v1::PodSandboxStatusResponse {
            status: Some(status),
            info: told(request.verbose),
            ..Default::default()
        }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let items = self.state().pods.values().cloned().collect();
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let config = request.into_inner().config.unwrap_or_default();
        let name = config.metadata.unwrap_or_default().name;
        let log = self.state().log_directory.join(config.log_path);
        let id = "c1".repeat(32);
        let log = log.to_string_lossy().into_owned();
        self.put_container(&id, &name, v1::ContainerState::ContainerCreated, &log);
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let log = {
            let mut state = self.state();
            let (_, container) = found(state.containers.get_mut(&id))?;
            container.state = v1::ContainerState::ContainerRunning.into();
            container.log_path.clone()
        };
        fs::write(&log, "").expect("the log directory is there");
        tokio::spawn(chatter(self.clone(), id, log.into()));
        answer()
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let v1::StopContainerRequest { container_id, timeout } = request.into_inner();
        let mut state = self.state();
        if let Some((_, container)) = state.containers.get_mut(&container_id) {
            container.state = v1::ContainerState::ContainerExited.into();
        }
        state.asked.push(format!("stop container {} in {timeout} s", &container_id[..2]));
        answer()
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state();
        state.containers.remove(&id);
        state.asked.push(format!("remove container {}", &id[..2]));
        answer()
    }

    async fn list_containers(
        &self,
        _: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let container = |(pod, status): &(String, v1::ContainerStatus)| v1::Container {
            id: status.id.clone(),
            pod_sandbox_id: pod.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            created_at: status.created_at,
            ..Default::default()
        };
        let containers = self.state().containers.values().map(container).collect();
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let (_, status) = found(self.state().containers.get(&request.container_id).cloned())?;
        let info = [("config".to_owned(), r#"{"args":["nginx"]}"#.to_owned())].into();
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(status), info }))
    }

    /// `say` prints its words, `fail` prints to the other stream and fails.
    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let (verb, words) = request.cmd.split_first().expect("a command has a word");
        let said = format!("{}\n", words.join(" ")).into_bytes();
        Ok(Response::new(match &**verb {
            "fail" => v1::ExecSyncResponse { stderr: said, exit_code: 7, ..Default::default() },
            _ => v1::ExecSyncResponse { stdout: said, ..Default::default() },
        }))
    }

    async fn container_stats(
        &self,
        _: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let value = |value| Some(v1::UInt64Value { value });
        let memory = v1::MemoryUsage { working_set_bytes: value(512_000), ..Default::default() };
        let cpu = v1::CpuUsage { usage_core_nano_seconds: value(3_000_000), ..Default::default() };
        let stats =
            v1::ContainerStats { memory: Some(memory), cpu: Some(cpu), ..Default::default() };
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }
}

#[async_trait]
impl ImageService for Fake {
    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        Ok(Response::new(v1::ListImagesResponse { images: self.state().images.clone() }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Answer<v1::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let image = self.state().images.iter().find(|i| i.repo_tags.contains(&name)).cloned();
        Ok(Response::new(v1::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let auth = request.auth.unwrap_or_default();
        let image = request.image.unwrap_or_default().image;
        self.state().asked.push(format!("pull {image} as {}:{}", auth.username, auth.password));
        Ok(Response::new(v1::PullImageResponse { image_ref: "sha256:plain".to_owned() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let mut state = self.state();
        state.images.retain(|image| !image.repo_tags.contains(&name));
        state.asked.push(format!("remove image {name}"));
        answer()
    }
}
