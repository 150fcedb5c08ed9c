//! The RPCs that tell what pods and containers use.

use cri_proto::v1;
use tonic::{Status, codegen::BoxStream};

use super::RuntimeService;
use crate::{code, pieces, show};

impl RuntimeService {
    pub(super) async fn container_stats(
        &self,
        request: v1::ContainerStatsRequest,
    ) -> Result<v1::ContainerStatsResponse, Status> {
        let stats = self.pods.stats(&request.container_id).await.map_err(code::status)?;
        Ok(v1::ContainerStatsResponse { stats: Some(show::stats(&stats)) })
    }

    /// Of the containers that run. One that ends while it is asked is left out.
    pub(super) async fn list_container_stats(
        &self,
        request: v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse, Status> {
        let stats = self.pods.stats_of(&self.measured_containers(request.filter)).await;
        let stats = stats.iter().map(show::stats).collect();
        Ok(v1::ListContainerStatsResponse { stats })
    }

    pub(super) async fn stream_container_stats(
        &self,
        request: v1::StreamContainerStatsRequest,
    ) -> Result<BoxStream<v1::StreamContainerStatsResponse>, Status> {
        let (containers, pods) = (self.measured_containers(request.filter), self.pods.clone());
        let read = move |some: Vec<_>| {
            let pods = pods.clone();
            async move { pods.stats_of(&some).await.iter().map(show::stats).collect() }
        };
        let piece = |container_stats| v1::StreamContainerStatsResponse { container_stats };
        Ok(pieces::read(containers, read, piece))
    }

    pub(super) async fn pod_sandbox_stats(
        &self,
        request: v1::PodSandboxStatsRequest,
    ) -> Result<v1::PodSandboxStatsResponse, Status> {
        let stats = self.pods.pod_stats(&request.pod_sandbox_id).await.map_err(code::status)?;
        Ok(v1::PodSandboxStatsResponse { stats: Some(show::pod_stats(&stats)) })
    }

    /// Of the pods that are ready. One that ceases to be while it is asked is left out.
    pub(super) async fn list_pod_sandbox_stats(
        &self,
        request: v1::ListPodSandboxStatsRequest,
    ) -> Result<v1::ListPodSandboxStatsResponse, Status> {
        let stats = self.pods.pod_stats_of(&self.measured_pods(request.filter)).await;
        let stats = stats.iter().map(show::pod_stats).collect();
        Ok(v1::ListPodSandboxStatsResponse { stats })
    }

    pub(super) async fn stream_pod_sandbox_stats(
        &self,
        request: v1::StreamPodSandboxStatsRequest,
    ) -> Result<BoxStream<v1::StreamPodSandboxStatsResponse>, Status> {
        let (all, pods) = (self.measured_pods(request.filter), self.pods.clone());
        let read = move |some: Vec<_>| {
            let pods = pods.clone();
            async move { pods.pod_stats_of(&some).await.iter().map(show::pod_stats).collect() }
        };
        let piece = |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats };
        Ok(pieces::read(all, read, piece))
    }

    pub(super) async fn list_metric_descriptors(
        &self,
        _: v1::ListMetricDescriptorsRequest,
    ) -> Result<v1::ListMetricDescriptorsResponse, Status> {
        Ok(v1::ListMetricDescriptorsResponse { descriptors: show::descriptors() })
    }

    pub(super) async fn list_pod_sandbox_metrics(
        &self,
        _: v1::ListPodSandboxMetricsRequest,
    ) -> Result<v1::ListPodSandboxMetricsResponse, Status> {
        let metrics = self.pods.metrics_of(&self.pods.pods()).await;
        let pod_metrics = metrics.iter().map(show::pod_metrics).collect();
        Ok(v1::ListPodSandboxMetricsResponse { pod_metrics })
    }

    pub(super) async fn stream_pod_sandbox_metrics(
        &self,
        _: v1::StreamPodSandboxMetricsRequest,
    ) -> Result<BoxStream<v1::StreamPodSandboxMetricsResponse>, Status> {
        let (all, pods) = (self.pods.pods(), self.pods.clone());
        let read = move |some: Vec<_>| {
            let pods = pods.clone();
            async move { pods.metrics_of(&some).await.iter().map(show::pod_metrics).collect() }
        };
        let piece =
            |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        Ok(pieces::read(all, read, piece))
    }
}
