//! Turns the protocol files into Rust. In pure Rust (protox), so that a build needs nothing but cargo.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["containerd/services/sandbox/v1/sandbox.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Stable order of labels and annotations on the wire.
        .btree_map(".")
        // A call that a sandboxer does not serve answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        // Sockets of the file system have no address that tonic's own `connect` could take.
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
