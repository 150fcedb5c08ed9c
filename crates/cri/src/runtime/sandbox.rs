//! The five RPCs of pod sandboxes.

use std::sync::Arc;

use cri_proto::v1;
use pods::PodRecord;
use tonic::Status;

use super::{RuntimeService, has_labels};
use crate::{code, parse, show};

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
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(code::status)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            info.insert("info".to_owned(), pods::verbose_pod(&pod));
        }
        Ok(v1::PodSandboxStatusResponse {
            status: Some(show::pod_status(&pod)),
            info,
            ..Default::default()
        })
    }

    pub(super) async fn list_pod_sandbox(
        &self,
        request: v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let mut pods = self.pods.pods();
        pods.retain(|pod| is_wanted(pod, &filter));
        Ok(v1::ListPodSandboxResponse { items: pods.iter().map(|pod| show::pod(pod)).collect() })
    }
}

fn is_wanted(pod: &Arc<PodRecord>, filter: &v1::PodSandboxFilter) -> bool {
    let state = filter.state.as_ref().map(|wanted| wanted.state);
    pod.id.as_str().starts_with(&filter.id)
        && state.is_none_or(|state| state == show::pod(pod).state)
        && has_labels(&pod.plan.labels, &filter.label_selector)
}
