//! The contract of controllers, kept by those that run in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use controllers::{Controller, Grouping, Pause, PinnedNamespaces, Shims};
use suite::{Host, Subject, program};
use sys::cgroup::Layout;

struct Held;

struct Pinned(Grouping);

fn shims(host: &Host, grouping: Grouping) -> Shims {
    Shims::new(program("podbay-shim"), host.base.join("shims"), grouping)
}

fn pause(shims: &Shims) -> Pause {
    let layout = Layout::detect().unwrap();
    Pause::new(shims.clone(), controllers::node(&layout), layout, suite::SOON)
}

#[async_trait]
impl Subject for Held {
    async fn controller(&mut self, host: &Host) -> Arc<dyn Controller> {
        Arc::new(pause(&shims(host, Grouping::Pod)))
    }

    fn always_has_a_process(&self) -> bool {
        true
    }
}

#[async_trait]
impl Subject for Pinned {
    async fn controller(&mut self, host: &Host) -> Arc<dyn Controller> {
        let shims = shims(host, self.0);
        Arc::new(PinnedNamespaces::new(shims.clone(), pause(&shims)))
    }
}

mod pause_container {
    crate::keeps_the_contract!(super::Held);
}

mod namespaces_with_a_shim_for_each_pod {
    crate::keeps_the_contract!(super::Pinned(controllers::Grouping::Pod));
}

mod namespaces_with_a_shim_for_the_node {
    crate::keeps_the_contract!(super::Pinned(controllers::Grouping::Node));
}
