//! What the node is asked: its version, its conditions, its configuration.

use cri_proto::v1;
use tonic::Status;

use super::RuntimeService;

impl RuntimeService {
    pub(super) async fn version(
        &self,
        _: v1::VersionRequest,
    ) -> Result<v1::VersionResponse, Status> {
        Ok(v1::VersionResponse {
            // The version of the kubelet's side, which no client reads; this is what all answer.
            version: "0.1.0".into(),
            runtime_name: "podbay".into(),
            runtime_version: self.facts.version.clone(),
            runtime_api_version: "v1".into(),
        })
    }

    pub(super) async fn status(
        &self,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusResponse, Status> {
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            info.insert("config".to_owned(), self.facts.config.clone());
        }
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", self.pods.runtime_ready()),
                    condition("NetworkReady", self.pods.network_ready().await),
                ],
            }),
            info,
            runtime_handlers: self.handlers().await,
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: self.pods.user_namespaces_on_the_hosts_network(),
                ..Default::default()
            }),
        })
    }

    /// The default handler twice: by its name, and as the empty one that pods without a
    /// RuntimeClass name. Clients look for it so.
    async fn handlers(&self) -> Vec<v1::RuntimeHandler> {
        let mut all = self.pods.features().await;
        let default = all.iter().find(|(name, _)| name == self.pods.default_handler());
        all.extend(default.map(|(_, features)| (String::new(), *features)));
        let shown = |(name, features): (String, pods::Features)| v1::RuntimeHandler {
            name,
            features: Some(v1::RuntimeHandlerFeatures {
                recursive_read_only_mounts: features.recursive_read_only,
                user_namespaces: features.user_namespaces,
            }),
        };
        all.into_iter().map(shown).collect()
    }

    pub(super) async fn runtime_config(
        &self,
        _: v1::RuntimeConfigRequest,
    ) -> Result<v1::RuntimeConfigResponse, Status> {
        let driver = match self.facts.systemd_cgroups {
            true => v1::CgroupDriver::Systemd,
            false => v1::CgroupDriver::Cgroupfs,
        };
        Ok(v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
        })
    }

    /// The kubelet tells the pods' subnet of this node. Addresses come from CNI or from our own
    /// configuration, so there is nothing to do, which CRI allows.
    pub(super) async fn update_runtime_config(
        &self,
        request: v1::UpdateRuntimeConfigRequest,
    ) -> Result<v1::UpdateRuntimeConfigResponse, Status> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        tracing::debug!(pod_cidr = network.map(|it| it.pod_cidr), "told of the pods' subnet");
        Ok(v1::UpdateRuntimeConfigResponse {})
    }
}

fn condition(kind: &str, ready: Result<(), pods::NotReady>) -> v1::RuntimeCondition {
    let (reason, message) = match &ready {
        Ok(()) => (String::new(), String::new()),
        Err(why) => (why.reason.to_owned(), why.message.clone()),
    };
    v1::RuntimeCondition { r#type: kind.to_owned(), status: ready.is_ok(), reason, message }
}
