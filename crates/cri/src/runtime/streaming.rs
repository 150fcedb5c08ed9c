//! The RPCs that answer with a URL of the streaming server.

use ::streaming::{Ask, Attach, Exec, PortForward, Streams};
use cri_proto::v1;
use pods::Life;
use tonic::Status;

use super::RuntimeService;
use crate::code;

impl RuntimeService {
    pub(super) async fn exec(&self, request: v1::ExecRequest) -> Result<v1::ExecResponse, Status> {
        let container = self.pods.container(&request.container_id).map_err(code::status)?;
        if !matches!(container.life, Life::Running { .. }) {
            let why = format!("container {} does not run", container.id.short());
            return Err(Status::failed_precondition(why));
        }
        let v1::ExecRequest { tty, stdin, stdout, stderr, .. } = request;
        let url = self.url(Ask::Exec(Exec {
            container: container.id.to_string(),
            command: request.cmd,
            streams: Streams { tty, stdin, stdout, stderr },
        }))?;
        Ok(v1::ExecResponse { url })
    }

    pub(super) async fn attach(
        &self,
        request: v1::AttachRequest,
    ) -> Result<v1::AttachResponse, Status> {
        let container = self.pods.container(&request.container_id).map_err(code::status)?;
        if container.life.is_over() {
            let why = format!("container {} has ended", container.id.short());
            return Err(Status::failed_precondition(why));
        }
        let v1::AttachRequest { tty, stdin, stdout, stderr, .. } = request;
        let url = self.url(Ask::Attach(Attach {
            container: container.id.to_string(),
            streams: Streams { tty, stdin, stdout, stderr },
        }))?;
        Ok(v1::AttachResponse { url })
    }

    pub(super) async fn port_forward(
        &self,
        request: v1::PortForwardRequest,
    ) -> Result<v1::PortForwardResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(code::status)?;
        if !pod.is_ready() {
            let why = format!("pod {} is not ready", pod.id.short());
            return Err(Status::failed_precondition(why));
        }
        let ports = request.port.iter().enumerate().map(|(n, port)| {
            let why = || Status::invalid_argument(format!("port[{n}]: {port} is no port"));
            u16::try_from(*port).map_err(|_| why())
        });
        let ports = ports.collect::<Result<_, _>>()?;
        let url = self.url(Ask::PortForward(PortForward { pod: pod.id.to_string(), ports }))?;
        Ok(v1::PortForwardResponse { url })
    }

    fn url(&self, ask: Ask) -> Result<String, Status> {
        self.streams.url(ask).map_err(|error| code::streaming(&error))
    }
}
