//! Container config → OCI runtime spec, as pure functions: nothing here touches the host.

use std::{io, path::PathBuf};

use cleat_proto::{
    docker::container::{Config, HostConfig},
    kind::Kind,
};

/// All that a spec depends on.
pub struct Input<'a> {
    /// 64 hex digits.
    pub container_id: &'a str,
    /// What is executed, entrypoint and command put together.
    pub args: Vec<String>,
    /// The record's.
    pub config: &'a Config,
    /// The record's, defaults filled in.
    pub host_config: &'a HostConfig,
    /// The container's mounts, sources resolved to paths of the host.
    pub mounts: Vec<Mount>,
    /// What `/etc/hosts` and its siblings are bound from; `None` leaves the image's.
    pub files: Files,
    /// The network namespace.
    pub network: Namespace,
    /// The IPC namespace.
    pub ipc: Namespace,
    /// The PID namespace.
    pub pid: Namespace,
    /// The UTS namespace.
    pub uts: Namespace,
    /// The cgroup namespace: `New` or `Host`.
    pub cgroup: Namespace,
    /// What `/dev/shm` is.
    pub shm: Shm,
    /// `cgroupsPath`.
    pub cgroups_path: String,
    /// Unified cgroups (v2) are what the containers use on this host.
    pub unified_cgroups: bool,
    /// With `--init`: the binary to bind at `/sbin/docker-init`.
    pub init_binary: Option<PathBuf>,
    /// Reads a small regular file of the container's root filesystem, following links inside it: `/etc/passwd`, `/etc/group`.
    pub read_file: &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>,
    /// The host's kernel, `(6, 18)`: some profile entries depend on it.
    pub kernel: (u32, u32),
}

/// A namespace's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// A new one, made by the worker.
    New,
    /// The host's.
    Host,
    /// One that exists, such as `/proc/<pid>/ns/ipc`.
    Join(PathBuf),
}

/// `/dev/shm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of the container's own.
    Private {
        /// Its size.
        size_bytes: u64,
    },
    /// Bound from there: another container's, or the host's.
    Bind(PathBuf),
    /// None at all.
    Absent,
}

/// Paths on the host of the files an engine provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// One mount the user asked for, ready for the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, in the container.
    pub destination: String,
    /// What.
    pub source: MountSource,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` and so on; empty is the default.
    pub propagation: String,
    /// How deep read-only goes.
    pub recursive_ro: crate::container::mount_point::RecursiveReadOnly,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Without the mounts below it.
        non_recursive: bool,
    },
    /// A tmpfs with mount(8) options.
    Tmpfs {
        /// Checked already.
        options: Vec<String>,
    },
}

/// What is wrong with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker's words.
    #[error("{0}")]
    Invalid(String),
    /// A file of the container could not be read.
    #[error("cannot read {path} of the container")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::File { .. } => Kind::Internal,
        }
    }
}

/// Builds the spec that the worker gets as `config.json`.
///
/// # Errors
/// [`Error::Invalid`] for what only the container's own files can tell, such as an unknown user.
pub fn build(_input: &Input<'_>) -> Result<oci_spec::runtime::Spec, Error> {
    todo!("daemon/src/spec")
}

/// Checks at create what can be checked without the container's files; the texts are Docker's.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(_config: &Config, _host_config: &HostConfig) -> Result<(), Error> {
    todo!("daemon/src/spec")
}
