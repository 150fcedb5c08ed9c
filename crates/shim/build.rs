//! Link arguments. `podbay-pause` is a program without a C library, and without anything before its
//! first instruction. `podbay-shim` is at a fixed address: there is one for each pod, and each that
//! is relocated has 0.4 MiB of tables of its own, while those of a fixed one are in the page cache,
//! and shared.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=pause.ld");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    // A static one is at a fixed address with `-C relocation-model=static`.
    if !features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo:rustc-link-arg-bin=podbay-shim=-no-pie");
    }
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo names the crate's directory");
    let script = format!("-Wl,-T,{here}/pause.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-no-pie",
        "-Wl,--gc-sections",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-s",
        &script,
    ] {
        println!("cargo:rustc-link-arg-bin=podbay-pause={argument}");
    }
}
