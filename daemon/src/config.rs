//! `daemon.json` and flags (raw) → [`Config`] (checked), handed down by value. There are no globals.

use std::path::PathBuf;

/// What the daemon was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What must survive a reboot: database, content, snapshots, volumes, container logs. `/var/lib/cleat`.
    pub root: PathBuf,
    /// What must not: sockets, bundles, exit files. `/run/cleat`.
    pub state: PathBuf,
    /// Tells two daemons' kernel objects apart: empty for the default root, else a few hex digits of a hash of the root.
    pub suffix: String,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Names to runtimes; `default_runtime` is one of them.
    pub runtimes: std::collections::BTreeMap<String, Runtime>,
    /// `cleat-runc`, shown as `runc` where Docker shows that.
    pub default_runtime: String,
    /// The init binary for `--init`, if there is one.
    pub init: Option<PathBuf>,
    /// Before a container's own cgroup, `/cleat[-suffix]` unless configured.
    pub cgroup_parent: String,
    /// The default bridge.
    pub network: crate::network::Config,
    /// `log-driver` and `log-opts`.
    pub log_driver: String,
    /// Options for containers that name none.
    pub log_opts: std::collections::BTreeMap<String, String>,
    /// `default-shm-size`.
    pub shm_size_bytes: u64,
    /// Stop every container at SIGTERM, as Docker does.
    pub stop_containers: bool,
}

/// One OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// The binary.
    pub path: PathBuf,
    /// Global arguments before the verb.
    pub args: Vec<String>,
    /// It is our own `cleat-runc`.
    pub native: bool,
}
