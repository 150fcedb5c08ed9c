//! Whether this node can run pods, and what a pod is checked against before anything is made.

use crate::{Error, Pods, plan::PodPlan};

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
        match host.bridge.as_ref().filter(|_| host.bridge_is_enough) {
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

    /// What can be refused of a pod without making anything.
    pub(crate) async fn check_pod(&self, plan: &PodPlan) -> Result<(), Error> {
        let world = &self.inner.world;
        let (_, handler) = world.handler(&plan.handler)?;
        if plan.namespaces.user.is_some() && !self.features_of(handler).await.user_namespaces {
            let field = "config.linux.security_context.namespace_options.userns_options";
            let why = "this handler has no user namespaces, or this node's kernel has none";
            return Err(Error::rejected(field, why));
        }
        crate::network::check_sysctls(plan)?;
        crate::limits::check(&plan.resources, "config.linux.resources")?;
        crate::limits::check(&plan.overhead, "config.linux.overhead")?;
        crate::pod_steps::seccomp(&plan.security.seccomp)?;
        let node = &world.host.node;
        let field = "config.linux.security_context";
        // Nothing of the sandbox itself is confined by it, but a request that cannot be met is refused.
        crate::apparmor::profile(plan.security.apparmor.as_ref(), node.apparmor)?;
        if plan.security.selinux.is_some() && !node.selinux {
            let why = "this host has no SELinux to confine it with";
            return Err(Error::rejected(format!("{field}.selinux_options"), why));
        }
        Ok(())
    }
}
