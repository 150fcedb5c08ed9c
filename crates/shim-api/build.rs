//! Turns the `.proto` files into Rust: messages, and a client and a server trait per service.
//! Pure Rust: no `protoc` is asked for.

use std::{env, fs, io, path::Path};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const FILES: [&str; 6] = [
    "proto/mount.proto",
    "proto/process.proto",
    "proto/task.proto",
    "proto/supervisor.proto",
    "proto/cgroups_v1.proto",
    "proto/cgroups_v2.proto",
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    Codegen::new()
        .inputs(FILES)
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .customize(Customize { async_all: true, ..Default::default() })
        .run()?;
    let out = env::var("OUT_DIR").expect("cargo names the output directory");
    for entry in fs::read_dir(out)? {
        unadorn(&entry?.path())?;
    }
    Ok(())
}

/// Takes away the attributes of the whole file. They are not allowed where a file is included, and
/// one of them would allow what our lints forbid.
fn unadorn(path: &Path) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let inner = |line: &&str| !line.starts_with("#![") && !line.starts_with("//!");
    let kept: Vec<&str> = text.lines().filter(inner).collect();
    fs::write(path, kept.join("\n"))
}
