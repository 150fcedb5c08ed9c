//! What every controller keeps, whatever its sandboxes are made of: one set of tests, for all.
//!
//! The tests need root, and the programs of the room `shim`, where cargo puts them (`cargo build -p
//! shim`) or in the folder that `PODBAY_BIN_DIR` names; without either they say so, and are skipped.

#![allow(dead_code, reason = "each user has a part of it")]

mod host;
mod life;
mod look;
mod scene;
mod task;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use controllers::Controller;

pub use host::Host;
pub use life::*;
pub use look::*;
pub use scene::Scene;
pub use task::*;

/// What is not done by then will not be done.
pub const SOON: Duration = Duration::from_secs(30);

/// A controller under test.
#[async_trait]
pub trait Subject: Send {
    /// A new one, on what an earlier one has left: as if its process had been killed and started again.
    async fn controller(&mut self, host: &Host) -> Arc<dyn Controller>;

    /// Whether a sandbox has a process even if its containers do not share theirs.
    fn always_has_a_process(&self) -> bool {
        false
    }
}

/// Where a program of ours is.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("PODBAY_BIN_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().to_owned()
    });
    folder.join(name)
}

/// Whether the tests can be run here. What is missing is said.
pub fn can_run(programs: &[&str]) -> bool {
    let missing = programs.iter().map(|name| program(name)).find(|path| !path.is_file());
    let why = match missing {
        _ if !rustix::process::geteuid().is_root() => "namespaces are made by root only".to_owned(),
        Some(path) => format!("{} is not built", path.display()),
        None => return true,
    };
    eprintln!("skipped: {}: {why}", std::thread::current().name().unwrap_or("a test"));
    false
}

/// Makes a test of each part of the contract.
#[macro_export]
macro_rules! keeps_the_contract {
    ($subject:expr) => {
        $crate::keeps_the_contract!($subject;
            a_sandbox_is_created_started_stopped_and_shut_down
            what_was_never_made_can_be_stopped_and_shut_down
            what_does_not_exist_cannot_be_started_and_its_wait_is_over
            a_sandbox_that_never_started_can_be_stopped_and_shut_down
            stop_and_shutdown_can_be_repeated
            a_shutdown_needs_no_stop
            a_wait_ends_with_the_stop
            a_wait_ends_with_the_shutdown
            what_could_not_be_created_can_be_shut_down_and_made_again
            a_new_controller_knows_what_an_earlier_one_made
            a_new_controller_starts_what_an_earlier_one_created
            a_new_controller_waits_for_what_an_earlier_one_started
            many_sandboxes_are_made_at_a_time
            its_namespaces_are_its_own
            it_has_its_own_name_and_settings
            it_leaves_the_hosts_namespaces_alone_if_it_shares_them
            shared_processes_have_an_init
            without_shared_processes_it_has_no_process_it_does_not_need
            a_container_runs_at_its_address
        );
    };
    ($subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::suite::$name($subject).await;
            }
        )*
    };
}
