//! Which driver makes the cgroups of pods on this node.

use std::time::Duration;

use config::{CgroupDriver, Config};
use pods::{CgroupSettings, Cgroups, Driver};
use sys::cgroup::Layout;
use systemd::Systemd;

use crate::build::{Error, own};

/// How long a call to systemd may take: less than a kubelet waits for a pod, and more than a busy
/// systemd takes to read its files again.
const WITHIN: Duration = Duration::from_secs(20);

/// How long it may take to answer at all, where nobody says that it is to be asked.
const FIRST: Duration = Duration::from_secs(3);

pub(crate) async fn of(config: &Config, layout: &Layout) -> Result<Cgroups, Error> {
    let driver = match config.cgroups.driver {
        CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        CgroupDriver::Systemd => demanded(layout)?,
        CgroupDriver::Auto => found(layout).await,
    };
    tracing::info!(?driver, "the cgroup driver, which the kubelet is told");
    Ok(Cgroups::new(CgroupSettings {
        driver,
        layout: layout.clone(),
        parent: config.cgroups.parent.clone(),
        systemd: Systemd::of_this_machine(WITHIN),
        holder: own(&config.pause, "podbay-pause")?,
    })?)
}

/// What a node needs for systemd's driver, and this one lacks.
fn lacks(layout: &Layout) -> Option<&'static str> {
    if !layout.is_v2() {
        return Some(
            "cgroup v2 alone, while this machine has v1, or both (systemd.unified_cgroup_hierarchy=1 on the kernel's command line changes that)",
        );
    }
    (!systemd::is_booted()).then_some("systemd for the first process, which it is not here")
}

fn demanded(layout: &Layout) -> Result<Driver, Error> {
    match lacks(layout) {
        Some(needs) => Err(Error::NoSystemd { needs }),
        None => Ok(Driver::Systemd),
    }
}

async fn found(layout: &Layout) -> Driver {
    if lacks(layout).is_some() {
        return Driver::Cgroupfs;
    }
    match Systemd::of_this_machine(FIRST).version().await {
        Ok(version) => {
            tracing::debug!(version, "systemd answers");
            Driver::Systemd
        }
        Err(error) => {
            let error = names::chain(&error);
            tracing::warn!(
                error,
                "systemd does not answer, so that cgroups are made by their files"
            );
            Driver::Cgroupfs
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_cannot_have_systemds_driver_and_the_error_says_what_it_needs() {
        let layout = Layout::V1 { hierarchies: [].into(), beside: Some("/x".into()) };
        let error = demanded(&layout).unwrap_err().to_string();
        assert!(error.contains("cgroup v2 alone"), "{error}");
    }

    #[tokio::test]
    async fn where_it_is_left_open_a_hybrid_host_has_its_cgroups_made_by_their_files() {
        let layout = Layout::V1 { hierarchies: [].into(), beside: None };
        assert_eq!(found(&layout).await, Driver::Cgroupfs);
    }
}
