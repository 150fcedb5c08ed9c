//! The RPCs of containers.

use std::time::Duration;

use cri_proto::{MAX_MESSAGE, v1};
use tonic::{Status, codegen::BoxStream};

use super::RuntimeService;
use crate::{code, parse, pieces, show};

impl RuntimeService {
    pub(super) async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse, Status> {
        let config = parse::needed(request.config, "config").map_err(code::rejected)?;
        let plan = parse::container(config).map_err(code::rejected)?;
        let created = self.pods.create_container(&request.pod_sandbox_id, plan).await;
        let id = created.map_err(code::status)?;
        Ok(v1::CreateContainerResponse { container_id: id.into() })
    }

    pub(super) async fn start_container(
        &self,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse, Status> {
        self.pods.start_container(&request.container_id).await.map_err(code::status)?;
        Ok(v1::StartContainerResponse {})
    }

    pub(super) async fn stop_container(
        &self,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse, Status> {
        let grace = seconds(request.timeout);
        self.pods.stop_container(&request.container_id, grace).await.map_err(code::status)?;
        Ok(v1::StopContainerResponse {})
    }

    pub(super) async fn remove_container(
        &self,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse, Status> {
        self.pods.remove_container(&request.container_id).await.map_err(code::status)?;
        Ok(v1::RemoveContainerResponse {})
    }

    pub(super) async fn list_containers(
        &self,
        request: v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse, Status> {
        let containers = self.wanted_containers(request.filter);
        let containers = containers.iter().map(|container| show::container(container)).collect();
        Ok(v1::ListContainersResponse { containers })
    }

    pub(super) async fn stream_containers(
        &self,
        request: v1::StreamContainersRequest,
    ) -> Result<BoxStream<v1::StreamContainersResponse>, Status> {
        let all = self.wanted_containers(request.filter).into_iter();
        let shown = all.map(|container| show::container(&container));
        Ok(pieces::of(shown, |containers| v1::StreamContainersResponse { containers }))
    }

    pub(super) async fn container_status(
        &self,
        request: v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse, Status> {
        let container = self.pods.container(&request.container_id).map_err(code::status)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            info.insert("info".to_owned(), pods::verbose_container(&container));
        }
        Ok(v1::ContainerStatusResponse { status: Some(show::container_status(&container)), info })
    }

    pub(super) async fn update_container_resources(
        &self,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Result<v1::UpdateContainerResourcesResponse, Status> {
        let linux = parse::needed(request.linux, "linux").map_err(code::rejected)?;
        let limits = parse::resources(linux, "linux").map_err(code::rejected)?;
        let updated = self.pods.update_container(&request.container_id, limits).await;
        updated.map_err(code::status)?;
        Ok(v1::UpdateContainerResourcesResponse {})
    }

    pub(super) async fn reopen_container_log(
        &self,
        request: v1::ReopenContainerLogRequest,
    ) -> Result<v1::ReopenContainerLogResponse, Status> {
        self.pods.reopen_log(&request.container_id).await.map_err(code::status)?;
        Ok(v1::ReopenContainerLogResponse {})
    }

    pub(super) async fn exec_sync(
        &self,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse, Status> {
        let timeout = Some(seconds(request.timeout)).filter(|timeout| !timeout.is_zero());
        let ran = self.pods.exec_sync(&request.container_id, request.cmd, timeout).await;
        let mut output = ran.map_err(code::status)?;
        let room = MAX_MESSAGE - FRAME;
        output.stdout.truncate(room);
        output.stderr.truncate(room - output.stdout.len());
        Ok(v1::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.code,
        })
    }
}

/// What an answer has besides the output of a command, in bytes; more than enough. Output that does
/// not fit is dropped without a word, as CRI has it for more than 16 MiB.
const FRAME: usize = 4 << 10;

/// A time in seconds; below zero is none.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
