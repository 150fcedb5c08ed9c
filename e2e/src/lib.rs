//! The whole daemon, seen from outside: what its tests share.
//!
//! A test starts a [`Daemon`] of its own, asks it over its socket as a kubelet would, and looks at the
//! host with a [`Snapshot`], which holds everything that a daemon may leave behind. Of podbayd's
//! inside nothing is known here but its configuration and where it keeps its things.
//!
//! ```text
//! cargo build -p daemon --features faults && cargo build -p shim
//! cargo test -p e2e
//! ```
//!
//! The programs are looked for where cargo puts them, or in the folder that `PODBAY_BIN_DIR` names. The
//! tests need root; what else they miss on a host they say, and are skipped.

mod ask;
mod clean;
mod cri;
mod daemon;
mod host;
mod image;
mod log;
mod place;
mod plugin;
mod process;
mod proxy;
mod registry;
mod sandboxer;
mod wait;

pub use ask::{
    IMAGE, container, host_network, image_mount, mount, security, sharing, shell, sleeps,
};
pub use cri::{Cri, refused};
pub use daemon::{Daemon, Options};
pub use host::{Held, Snapshot};
pub use image::{Layer, Layout, SYMLINK, busybox, busybox_layer};
pub use log::{Line, lines, text};
pub use place::Place;
pub use plugin::{Plugin, real_cni};
pub use process::{Process, all as processes};
pub use proxy::Proxy;
pub use registry::{Registry, USER, lead};
pub use sandboxer::Sandboxer;
pub use wait::{eventually, eventually_within, is_true};

use std::{io::Write, net::TcpListener, path::Path, process::Command};

/// Says why a test does nothing, where it is seen although the test passes.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Whether this host has the program; says that the test is skipped if it has not.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = match program.contains('/') {
        true => Path::new(program).exists(),
        false => std::env::split_paths(&path).any(|dir| dir.join(program).exists()),
    };
    if !found {
        skip(&format!("{program} is not on this host"));
    }
    found
}

/// Runs a program to its end, which must be a good one, and gives what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} ended with {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port of the loopback that nobody uses now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it listens").port()
}

/// Makes of each function a test for each handler, in a module of its own: of `async fn name(handler:
/// &str)`, which gives up with a word where the handler cannot be.
#[macro_export]
macro_rules! by_handlers {
    ({ $($module:ident: $handler:literal),+ $(,)? } $names:tt) => {
        $($crate::by_handlers!(@one $module $handler $names);)+
    };
    (@one $module:ident $handler:literal [$($name:ident),* $(,)?]) => {
        mod $module {
            $(#[tokio::test] async fn $name() { super::$name($handler).await; })*
        }
    };
}
