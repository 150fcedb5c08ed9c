//! Turns the two protocol files into Rust. In pure Rust (protox), for the protoc of stable
//! distributions is too old for `debug_redact`, and a build should need nothing but cargo.

use std::error::Error;

/// Messages whose derived Debug would print what is secret; `redact.rs` has their Debug.
const SECRET: [&str; 3] =
    [".runtime.v1.AuthConfig", ".runtime.v1.KeyValue", ".podbay.admin.v1.Credentials"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files =
        protox::compile(["runtime/v1/api.proto", "podbay/admin/v1/admin.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Stable order of labels and annotations, in records as on the wire.
        .btree_map(".")
        // An RPC that we do not serve answers UNIMPLEMENTED, on which the kubelet falls back.
        .generate_default_stubs(true)
        .skip_debug(SECRET)
        // Sockets of the file system have no address that tonic's own `connect` could take.
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
