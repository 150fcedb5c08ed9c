//! What a kubelet asks, call by call, with little to write.

use std::{path::Path, time::Duration};

use cri_proto::{
    MAX_MESSAGE, admin,
    admin::admin_client::AdminClient,
    v1::{
        self, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};

type Answer<T> = Result<T, Status>;

/// No call takes longer on a daemon that is right; a test that hangs tells nothing.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client of a daemon. It connects when it is used.
#[derive(Clone)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    pub fn at(socket: &Path) -> Self {
        Self::patient(socket, DEADLINE)
    }

    /// A client that gives every call up after that time.
    pub fn patient(socket: &Path, deadline: Duration) -> Self {
        let endpoint = cri_proto::endpoint(socket).expect("the paths of tests are UTF-8");
        Self { channel: endpoint.timeout(deadline).connect_lazy() }
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub async fn run_pod(&self, config: &v1::PodSandboxConfig) -> Answer<String> {
        self.run_pod_by(config, "").await
    }

    pub async fn run_pod_by(&self, config: &v1::PodSandboxConfig, handler: &str) -> Answer<String> {
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer = self.runtime().run_pod_sandbox(request).await?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    pub async fn stop_pod(&self, id: &str) -> Answer<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime().stop_pod_sandbox(request).await.map(drop)
    }

    pub async fn remove_pod(&self, id: &str) -> Answer<()> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime().remove_pod_sandbox(request).await.map(drop)
    }

    pub async fn pod(&self, id: &str) -> Answer<v1::PodSandboxStatus> {
        let answer = self.pod_verbose(id, false).await?;
        answer.status.ok_or_else(|| Status::data_loss("a status without a status"))
    }

    pub async fn pod_verbose(
        &self,
        id: &str,
        verbose: bool,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        Ok(self.runtime().pod_sandbox_status(request).await?.into_inner())
    }

    pub async fn is_ready(&self, id: &str) -> Answer<bool> {
        Ok(self.pod(id).await?.state() == v1::PodSandboxState::SandboxReady)
    }

    /// The pod's first address.
    pub async fn address(&self, id: &str) -> Answer<String> {
        Ok(self.pod(id).await?.network.unwrap_or_default().ip)
    }

    pub async fn pods(&self) -> Answer<Vec<v1::PodSandbox>> {
        self.pods_like(v1::PodSandboxFilter::default()).await
    }

    pub async fn pods_like(&self, filter: v1::PodSandboxFilter) -> Answer<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.runtime().list_pod_sandbox(request).await?.into_inner().items)
    }

    pub async fn create(&self, pod: &str, config: &v1::ContainerConfig) -> Answer<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: None,
        };
        Ok(self.runtime().create_container(request).await?.into_inner().container_id)
    }

    pub async fn start(&self, id: &str) -> Answer<()> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Creates and starts.
    pub async fn launch(&self, pod: &str, config: &v1::ContainerConfig) -> Answer<String> {
        let id = self.create(pod, config).await?;
        self.start(&id).await?;
        Ok(id)
    }

    pub async fn stop(&self, id: &str, seconds: i64) -> Answer<()> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: seconds };
        self.runtime().stop_container(request).await.map(drop)
    }

    pub async fn remove(&self, id: &str) -> Answer<()> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime().remove_container(request).await.map(drop)
    }

    pub async fn container(&self, id: &str) -> Answer<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime().container_status(request).await?.into_inner();
        answer.status.ok_or_else(|| Status::data_loss("a status without a status"))
    }

    pub async fn status(&self) -> Answer<v1::StatusResponse> {
        let request = v1::StatusRequest { verbose: false };
        Ok(self.runtime().status(request).await?.into_inner())
    }

    /// The pid of a running container, which only the verbose status tells.
    pub async fn pid(&self, id: &str) -> Answer<i32> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.runtime().container_status(request).await?.into_inner();
        let info = answer.info.get("info").map_or("", String::as_str);
        let info: serde_json::Value = serde_json::from_str(info).unwrap_or_default();
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.ok_or_else(|| Status::data_loss("a verbose status without a pid"))
    }

    pub async fn containers(&self) -> Answer<Vec<v1::Container>> {
        let request = v1::ListContainersRequest::default();
        Ok(self.runtime().list_containers(request).await?.into_inner().containers)
    }

    /// Waits until the container has ended, and tells how.
    ///
    /// # Errors
    /// Those of the status.
    pub async fn ended(&self, id: &str) -> Answer<v1::ContainerStatus> {
        crate::eventually(&format!("the end of container {id}"), async || {
            match self.container(id).await {
                Ok(status) if status.state() != v1::ContainerState::ContainerExited => None,
                ended => Some(ended),
            }
        })
        .await
    }

    /// Runs a command in a container; no timeout if `seconds` is 0.
    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        seconds: i64,
    ) -> Answer<v1::ExecSyncResponse> {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: seconds,
        };
        Ok(self.runtime().exec_sync(request).await?.into_inner())
    }

    /// What a shell line prints in a container, without white space at its end.
    ///
    /// # Errors
    /// That of the call, or that the line ended badly.
    pub async fn shell(&self, id: &str, line: &str) -> Answer<String> {
        let answer = self.exec(id, &["sh", "-c", line], 20).await?;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        match answer.exit_code {
            0 => Ok(String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()),
            code => Err(Status::aborted(format!("{line:?} ended with {code}: {said}"))),
        }
    }

    pub async fn reopen_log(&self, id: &str) -> Answer<()> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime().reopen_container_log(request).await.map(drop)
    }

    pub async fn pull(&self, image: &str) -> Answer<String> {
        self.pull_as(image, None).await
    }

    pub async fn pull_as(&self, image: &str, auth: Option<v1::AuthConfig>) -> Answer<String> {
        let image = Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
        let request = v1::PullImageRequest { image, auth, ..Default::default() };
        Ok(self.images().pull_image(request).await?.into_inner().image_ref)
    }

    /// None if there is no such image.
    pub async fn image(&self, name: &str) -> Answer<Option<v1::Image>> {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = v1::ImageStatusRequest { image, verbose: false };
        Ok(self.images().image_status(request).await?.into_inner().image)
    }

    pub async fn all_images(&self) -> Answer<Vec<v1::Image>> {
        let request = v1::ListImagesRequest::default();
        Ok(self.images().list_images(request).await?.into_inner().images)
    }

    pub async fn images_like(&self, name: &str) -> Answer<Vec<v1::Image>> {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = v1::ListImagesRequest { filter: Some(v1::ImageFilter { image }) };
        Ok(self.images().list_images(request).await?.into_inner().images)
    }

    /// What images take on the disk, and what containers have written.
    ///
    /// # Errors
    /// That of the call.
    pub async fn disk(&self) -> Answer<[v1::FilesystemUsage; 2]> {
        let request = v1::ImageFsInfoRequest {};
        let mut answer = self.images().image_fs_info(request).await?.into_inner();
        let both = (answer.image_filesystems.pop(), answer.container_filesystems.pop());
        let (Some(images), Some(containers)) = both else {
            return Err(Status::data_loss("a filesystem is missing"));
        };
        Ok([images, containers])
    }

    pub async fn remove_image(&self, name: &str) -> Answer<()> {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        self.images().remove_image(v1::RemoveImageRequest { image }).await.map(drop)
    }

    pub async fn make_image(&self, request: admin::MakeImageRequest) -> Answer<String> {
        Ok(self.admin().make_image(request).await?.into_inner().image_id)
    }

    pub async fn quarantine(&self) -> Answer<Vec<admin::Quarantined>> {
        let request = admin::ListQuarantineRequest {};
        Ok(self.admin().list_quarantine(request).await?.into_inner().items)
    }

    pub async fn discard(&self, key: &str) -> Answer<()> {
        let request = admin::RemoveQuarantinedRequest { key: key.to_owned() };
        self.admin().remove_quarantined(request).await.map(drop)
    }

    /// Stops and removes every pod.
    ///
    /// # Errors
    /// The first that occurs; the rest is still tried.
    pub async fn remove_all(&self) -> Answer<()> {
        let removals = self.pods().await?.into_iter().map(|pod| async move {
            self.stop_pod(&pod.id).await?;
            self.remove_pod(&pod.id).await
        });
        futures_util::future::join_all(removals).await.into_iter().collect()
    }
}

/// The message of an answer that must be a refusal with this code.
#[track_caller]
pub fn refused<T>(answer: Answer<T>, code: Code) -> String {
    match answer {
        Ok(_) => panic!("{code:?} was expected, and it was done"),
        Err(status) if status.code() == code => status.message().to_owned(),
        Err(status) => panic!("{code:?} was expected, and this came: {status}"),
    }
}
