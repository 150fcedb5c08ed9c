//! RuntimeService: one file for each kind of thing that it is about.

mod container;
mod events;
mod filter;
mod node;
mod sandbox;
mod stats;
mod streaming;

use std::sync::Arc;

use cri_proto::v1::{self, runtime_service_server};
use pods::Pods;
use tonic::{Request, Response, Status, codegen::BoxStream};

/// What the service tells about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The version of podbayd.
    pub version: String,
    /// Whether the kubelet is to use the systemd cgroup driver.
    pub systemd_cgroups: bool,
    /// The configuration, as Status shows it when asked to be verbose: JSON without secrets.
    pub config: String,
}

/// Serves `runtime.v1.RuntimeService`.
#[derive(Clone)]
pub struct RuntimeService {
    pods: Pods,
    facts: Facts,
    streams: Arc<::streaming::Server>,
}

impl RuntimeService {
    pub fn new(pods: Pods, facts: Facts, streams: Arc<::streaming::Server>) -> Self {
        Self { pods, facts, streams }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Each RPC is a method of its own in the files beside; this list only wires them up. What is not in
/// it answers UNIMPLEMENTED, by the generated defaults.
macro_rules! serve {
    (
        one: { $($rpc:ident: $request:ident -> $response:ident;)* }
        many: { $($stream:ident: $asked:ident -> $piece:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl runtime_service_server::RuntimeService for RuntimeService {
            $(async fn $rpc(&self, request: Request<v1::$request>) -> Answer<v1::$response> {
                self.$rpc(request.into_inner()).await.map(Response::new)
            })*
            $(async fn $stream(&self, request: Request<v1::$asked>) -> Answer<BoxStream<v1::$piece>> {
                self.$stream(request.into_inner()).await.map(Response::new)
            })*
        }
    };
}

serve! {
    one: {
        version: VersionRequest -> VersionResponse;
        status: StatusRequest -> StatusResponse;
        runtime_config: RuntimeConfigRequest -> RuntimeConfigResponse;
        update_runtime_config: UpdateRuntimeConfigRequest -> UpdateRuntimeConfigResponse;
        run_pod_sandbox: RunPodSandboxRequest -> RunPodSandboxResponse;
        stop_pod_sandbox: StopPodSandboxRequest -> StopPodSandboxResponse;
        remove_pod_sandbox: RemovePodSandboxRequest -> RemovePodSandboxResponse;
        pod_sandbox_status: PodSandboxStatusRequest -> PodSandboxStatusResponse;
        list_pod_sandbox: ListPodSandboxRequest -> ListPodSandboxResponse;
        create_container: CreateContainerRequest -> CreateContainerResponse;
        start_container: StartContainerRequest -> StartContainerResponse;
        stop_container: StopContainerRequest -> StopContainerResponse;
        remove_container: RemoveContainerRequest -> RemoveContainerResponse;
        list_containers: ListContainersRequest -> ListContainersResponse;
        container_status: ContainerStatusRequest -> ContainerStatusResponse;
        update_container_resources: UpdateContainerResourcesRequest -> UpdateContainerResourcesResponse;
        reopen_container_log: ReopenContainerLogRequest -> ReopenContainerLogResponse;
        exec_sync: ExecSyncRequest -> ExecSyncResponse;
        exec: ExecRequest -> ExecResponse;
        attach: AttachRequest -> AttachResponse;
        port_forward: PortForwardRequest -> PortForwardResponse;
        container_stats: ContainerStatsRequest -> ContainerStatsResponse;
        list_container_stats: ListContainerStatsRequest -> ListContainerStatsResponse;
        pod_sandbox_stats: PodSandboxStatsRequest -> PodSandboxStatsResponse;
        list_pod_sandbox_stats: ListPodSandboxStatsRequest -> ListPodSandboxStatsResponse;
        list_metric_descriptors: ListMetricDescriptorsRequest -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics: ListPodSandboxMetricsRequest -> ListPodSandboxMetricsResponse;
        update_pod_sandbox_resources: UpdatePodSandboxResourcesRequest -> UpdatePodSandboxResourcesResponse;
    }
    many: {
        stream_pod_sandboxes: StreamPodSandboxesRequest -> StreamPodSandboxesResponse;
        stream_containers: StreamContainersRequest -> StreamContainersResponse;
        stream_container_stats: StreamContainerStatsRequest -> StreamContainerStatsResponse;
        stream_pod_sandbox_stats: StreamPodSandboxStatsRequest -> StreamPodSandboxStatsResponse;
        stream_pod_sandbox_metrics: StreamPodSandboxMetricsRequest -> StreamPodSandboxMetricsResponse;
        get_container_events: GetEventsRequest -> ContainerEventResponse;
    }
}
