//! A runtime that makes nothing: pods and containers are entries of a list. It checks what it is
//! asked for as a strict peer would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cri_proto::admin::admin_server::{Admin, AdminServer};
use cri_proto::admin::{MakeImageRequest, MakeImageResponse};
use cri_proto::v1;
use cri_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use cri_proto::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

#[derive(Clone)]
pub struct Fake {
    name: &'static str,
    slow: Duration,
    /// What Status says, when it says anything.
    status: Option<v1::StatusResponse>,
    fails_at_start: usize,
    state: Arc<Mutex<State>>,
    most: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, v1::PodSandbox>,
    containers: BTreeMap<String, String>,
    images: BTreeMap<String, String>,
    handlers: Vec<String>,
    images_made: usize,
    starts: usize,
}

impl Fake {
    pub fn new(name: &'static str) -> Fake {
        let images = [("docker.io/library/busybox:1".to_owned(), "sha256:bb".to_owned())].into();
        let state = State { images, ..State::default() };
        Fake {
            name,
            slow: Duration::ZERO,
            status: None,
            fails_at_start: 0,
            state: Arc::new(Mutex::new(state)),
            most: watch::Sender::new(0),
        }
    }

    /// How long a sandbox takes.
    pub fn slow(self, slow: Duration) -> Fake {
        Fake { slow, ..self }
    }

    /// It tells its configuration and its handlers.
    pub fn tells(self, config: &str, handlers: &[&str]) -> Fake {
        let handler = |&name: &&str| v1::RuntimeHandler { name: name.to_owned(), features: None };
        let status = v1::StatusResponse {
            info: [("config".to_owned(), config.to_owned())].into(),
            runtime_handlers: handlers.iter().map(handler).collect(),
            ..Default::default()
        };
        Fake { status: Some(status), ..self }
    }

    /// The start of this container, counted from 1, fails.
    pub fn fails_at_start(self, fails_at_start: usize) -> Fake {
        Fake { fails_at_start, ..self }
    }

    /// Serves on a socket in the directory until the test ends.
    pub fn serve(&self, place: &Path) -> PathBuf {
        let socket = place.join(format!("{}.sock", self.name));
        let listener = UnixListener::bind(&socket).expect("the directory is fresh");
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .add_service(AdminServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
        socket
    }

    /// Puts a pod there that the bench has not made.
    pub fn put(&self, id: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let pod = v1::PodSandbox { id: id.to_owned(), labels, ..Default::default() };
        self.state().pods.insert(id.to_owned(), pod);
    }

    pub fn pods(&self) -> Vec<String> {
        self.state().pods.keys().cloned().collect()
    }

    pub fn images(&self) -> Vec<String> {
        self.state().images.keys().cloned().collect()
    }

    /// The handlers of all pods that were ever made, in their order.
    pub fn handlers(&self) -> Vec<String> {
        self.state().handlers.clone()
    }

    /// How many pods were ever made.
    pub fn made(&self) -> usize {
        self.state().handlers.len()
    }

    /// How many images were ever made.
    pub fn images_made(&self) -> usize {
        self.state().images_made
    }

    /// Waits until so many pods were there at a time.
    pub async fn until_held(&self, count: usize) {
        let mut most = self.most.subscribe();
        let enough = most.wait_for(|most| *most >= count);
        tokio::time::timeout(Duration::from_secs(60), enough)
            .await
            .expect("the bench holds pods within a minute")
            .expect("the fake lives");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T: Default>() -> Answer<T> {
    Ok(Response::new(T::default()))
}

fn invalid<T>(why: &str) -> Result<T, Status> {
    Err(Status::invalid_argument(why))
}

#[async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: self.name.to_owned(),
            runtime_version: "1.2.3".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        self.status.clone().map(Response::new).ok_or_else(|| Status::unimplemented("no word"))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        tokio::time::sleep(self.slow).await;
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let metadata = config.metadata.unwrap_or_default();
        if metadata.name.is_empty() || metadata.uid.is_empty() || metadata.namespace.is_empty() {
            return invalid("no name");
        }
        if !Path::new(&config.log_directory).is_dir() {
            return invalid("no log directory");
        }
        let mut state = self.state();
        state.handlers.push(request.runtime_handler);
        let id = format!("pod{}", state.handlers.len());
        if state.pods.values().any(|p| p.metadata.as_ref() == Some(&metadata)) {
            return Err(Status::already_exists("that name is taken"));
        }
        let pod = v1::PodSandbox {
            id: id.clone(),
            metadata: Some(metadata),
            labels: config.labels,
            ..Default::default()
        };
        state.pods.insert(id.clone(), pod);
        let held = state.pods.len();
        self.most.send_if_modified(|most| std::mem::replace(most, held.max(*most)) < held);
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        _: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        answer()
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        self.state().pods.remove(&request.into_inner().pod_sandbox_id);
        answer()
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        // Whatever the filter: a client must not trust it with other people's pods.
        let items = self.state().pods.values().cloned().collect();
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let image = request.config.unwrap_or_default().image.unwrap_or_default().image;
        let mut state = self.state();
        if !state.images.values().any(|id| *id == image) {
            return invalid("no such image");
        }
        let id = format!("of-{}", request.pod_sandbox_id);
        state.containers.insert(id.clone(), request.pod_sandbox_id);
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        _: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let mut state = self.state();
        state.starts += 1;
        if state.starts == self.fails_at_start {
            return Err(Status::internal("the fake was told to fail"));
        }
        answer()
    }

    async fn stop_container(
        &self,
        _: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        answer()
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        self.state().containers.remove(&request.into_inner().container_id);
        answer()
    }

    async fn list_containers(
        &self,
        _: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        answer()
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        match self.state().containers.contains_key(&request.into_inner().container_id) {
            true => answer(),
            false => Err(Status::not_found("no such container")),
        }
    }

    async fn exec_sync(&self, _: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        answer()
    }

    async fn list_container_stats(
        &self,
        _: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        answer()
    }
}

#[async_trait]
impl ImageService for Fake {
    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        let image = |(name, id): (&String, &String)| v1::Image {
            id: id.clone(),
            repo_tags: vec![name.clone()],
            ..Default::default()
        };
        let images = self.state().images.iter().map(image).collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Answer<v1::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let id = self.state().images.get(&name).cloned();
        let image = id.map(|id| v1::Image { id, ..Default::default() });
        Ok(Response::new(v1::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        self.state().images.remove(&request.into_inner().image.unwrap_or_default().image);
        answer()
    }
}

#[async_trait]
impl Admin for Fake {
    async fn make_image(&self, request: Request<MakeImageRequest>) -> Answer<MakeImageResponse> {
        let request = request.into_inner();
        let target = request.files.first().map(|f| f.path.clone()).unwrap_or_default();
        if request.files.iter().skip(1).any(|f| f.link != target) {
            return invalid("a link to nowhere");
        }
        let image_id = "sha256:made".to_owned();
        let mut state = self.state();
        state.images_made += 1;
        state.images.insert(request.reference, image_id.clone());
        Ok(Response::new(MakeImageResponse { image_id }))
    }
}
