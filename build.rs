//! Compiles `proto/protos` into Rust with protox, so that no `protoc` is needed.

use std::{env, path::PathBuf};

/// Every file that is compiled, relative to `proto/protos`.
const FILES: [&str; 8] = [
    "containerd/task/v3/task.proto",
    "containerd/events/task.proto",
    "containerd/ttrpc/events.proto",
    "containerd/runc/v1/options.proto",
    "containerd/cgroups/v1/metrics.proto",
    "containerd/cgroups/v2/metrics.proto",
    "ttrpc/ttrpc.proto",
    "cleat/shim/v1/shim.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("protos");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES.map(|file| root.join(file)), [&root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
