//! Whether this node can run pods, and what a pod is checked against before anything is made.

use crate::{
    Error, Pods,
    plan::{PodPlan, Profile},
};

/// Why something is not ready: a word for programs, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    pub reason: &'static str,
    pub message: String,
}

impl Pods {
    /// A daemon that answers can run containers: what it needs was checked when it started.
    pub fn runtime_ready(&self) -> Result<(), NotReady> {
        Ok(())
    }

    pub async fn network_ready(&self) -> Result<(), NotReady> {
        let host = &self.inner.world.host;
        let none = match host.cni.default() {
            Ok(_) => {
                let status = host.cni.status().await;
                return match status.trouble {
                    None => Ok(()),
                    Some(message) => Err(NotReady { reason: "NetworkPluginNotReady", message }),
                };
            }
            Err(none) => none,
        };
        match &host.bridge {
            Some(bridge) => bridge.status().map_err(|error| NotReady {
                reason: "BridgeNotReady",
                message: Error::from(error).chain(),
            }),
            None => Err(NotReady {
                reason: "NoNetworkConfig",
                message: format!(
                    "{none}; install a CNI plugin, or set network.fallback = \"bridge\""
                ),
            }),
        }
    }

    /// Removes the built-in bridge and its rules, which no pod must need any more.
    pub async fn remove_bridge(&self) {
        let Some(bridge) = &self.inner.world.host.bridge else { return };
        if let Err(error) = bridge.unmake().await {
            tracing::warn!(%error, "the bridge cannot be removed");
        }
    }

    /// The names of all handlers.
    pub fn handlers(&self) -> Vec<String> {
        self.inner.world.host.handlers.keys().cloned().collect()
    }

    /// Whether read-only mounts can be made so all the way down.
    pub fn mounts_recursively_read_only(&self) -> bool {
        self.inner.world.host.node.recursive_read_only
    }

    /// What can be refused of a pod without making anything.
    pub(crate) fn check_pod(&self, plan: &PodPlan) -> Result<(), Error> {
        let world = &self.inner.world;
        world.handler(&plan.handler)?;
        crate::network::check_sysctls(plan)?;
        crate::limits::check(&plan.resources, "config.linux.resources")?;
        crate::pod_steps::seccomp(&plan.security.seccomp)?;
        let node = &world.host.node;
        let field = "config.linux.security_context";
        if plan.security.apparmor != Profile::Unconfined && !node.apparmor {
            let why = "this host has no AppArmor to confine it with";
            return Err(Error::rejected(format!("{field}.apparmor"), why));
        }
        if plan.security.selinux.is_some() && !node.selinux {
            let why = "this host has no SELinux to confine it with";
            return Err(Error::rejected(format!("{field}.selinux_options"), why));
        }
        Ok(())
    }
}
