//! The RPCs of pod sandboxes.

use cri_proto::v1;
use tonic::{Status, codegen::BoxStream};

use super::RuntimeService;
use crate::{code, parse, pieces, show};

impl RuntimeService {
    pub(super) async fn run_pod_sandbox(
        &self,
        request: v1::RunPodSandboxRequest,
    ) -> Result<v1::RunPodSandboxResponse, Status> {
        let config = parse::needed(request.config, "config").map_err(code::rejected)?;
        let plan = parse::pod(config, request.runtime_handler).map_err(code::rejected)?;
        let id = self.pods.run_pod(plan).await.map_err(code::status)?;
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id.into() })
    }

    pub(super) async fn stop_pod_sandbox(
        &self,
        request: v1::StopPodSandboxRequest,
    ) -> Result<v1::StopPodSandboxResponse, Status> {
        self.pods.stop_pod(&request.pod_sandbox_id).await.map_err(code::status)?;
        Ok(v1::StopPodSandboxResponse {})
    }

    pub(super) async fn remove_pod_sandbox(
        &self,
        request: v1::RemovePodSandboxRequest,
    ) -> Result<v1::RemovePodSandboxResponse, Status> {
        self.pods.remove_pod(&request.pod_sandbox_id).await.map_err(code::status)?;
        Ok(v1::RemovePodSandboxResponse {})
    }

    pub(super) async fn pod_sandbox_status(
        &self,
        request: v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, Status> {
        let timestamp = names::now();
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(code::status)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            info.insert("info".to_owned(), pods::verbose_pod(&pod));
        }
        let containers = self.pods.containers_in(&pod.id);
        Ok(v1::PodSandboxStatusResponse {
            status: Some(show::pod_status(&pod)),
            info,
            // A kubelet that goes by events asks for these, to know what it has not missed.
            containers_statuses: containers.iter().map(|it| show::container_status(it)).collect(),
            timestamp,
        })
    }

    pub(super) async fn list_pod_sandbox(
        &self,
        request: v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse, Status> {
        let pods = self.wanted_pods(request.filter);
        Ok(v1::ListPodSandboxResponse { items: pods.iter().map(|pod| show::pod(pod)).collect() })
    }

    pub(super) async fn stream_pod_sandboxes(
        &self,
        request: v1::StreamPodSandboxesRequest,
    ) -> Result<BoxStream<v1::StreamPodSandboxesResponse>, Status> {
        let shown = self.wanted_pods(request.filter).into_iter().map(|pod| show::pod(&pod));
        Ok(pieces::of(shown, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    pub(super) async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<v1::UpdatePodSandboxResourcesResponse, Status> {
        let parse = |limits: Option<v1::LinuxContainerResources>, field| {
            limits.map(|limits| parse::resources(limits, field)).transpose()
        };
        let resize = pods::Resize {
            overhead: parse(request.overhead, "overhead").map_err(code::rejected)?,
            resources: parse(request.resources, "resources").map_err(code::rejected)?,
        };
        let resized = self.pods.resize_pod(&request.pod_sandbox_id, resize).await;
        resized.map_err(code::status)?;
        Ok(v1::UpdatePodSandboxResourcesResponse {})
    }
}
