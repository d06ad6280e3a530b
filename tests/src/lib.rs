//! The harness of the end-to-end tests: daemons of their own, real clients, and the proof that nothing is left.

mod client;
mod daemon;
mod host;
mod registry;
mod tools;
mod wait;
mod websocket;

pub use client::{Ran, run, run_with_stdin};
pub use daemon::{Options, TestDaemon};
pub use host::{NetworkNamespace, Traces};
pub use registry::{Answer, Asked, FakeRegistry, Gate, Registry, digest};
pub use tools::{
    binary, busybox, containerd, docker, docker_registry, repository, skopeo, static_worker, umoci,
};
pub use wait::wait_for;
pub use websocket::{Frame, WebSocket};
