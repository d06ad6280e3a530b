//! What is mounted where in a container: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes, resolved.

use std::path::{Path, PathBuf};

use cleat_proto::{
    docker::container::{Config, HostConfig},
    kind::Kind,
};
use serde::{Deserialize, Serialize};

use crate::volume::New as NewVolume;

/// One mount, as create resolved it and `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What is mounted.
    pub source: Source,
    /// Where, absolute and clean.
    pub destination: String,
    /// Not read-only.
    pub rw: bool,
    /// As the user wrote the options (`z`, `ro,rshared` …), for `inspect`.
    pub mode: String,
    /// `rprivate`, `rslave` …; empty for volumes.
    pub propagation: String,
    /// How deep read-only goes.
    pub recursive_ro: RecursiveReadOnly,
    /// `HostConfig.Mounts` has it, or `Binds`: decides where it shows up.
    pub from_mounts: bool,
}

/// What a mount point shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Make the directory if it is missing (`-v` does, `--mount` does not).
        create: bool,
        /// Without the mounts below it.
        non_recursive: bool,
    },
    /// A volume.
    Volume {
        /// Its name; anonymous ones have 64 hex digits.
        name: String,
        /// Its driver.
        driver: String,
        /// A path within it.
        subpath: String,
        /// Do not fill it from the image.
        no_copy: bool,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// mount(8) options.
        options: Vec<String>,
    },
}

/// How deep a read-only bind mount is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecursiveReadOnly {
    /// Recursive where the kernel can (5.12).
    #[default]
    IfPossible,
    /// The top mount alone.
    Disabled,
    /// An error where the kernel cannot.
    Enforced,
}

/// What planning depends on besides the request itself.
pub struct Host<'a> {
    /// The mounts of the container that `VolumesFrom` names; `None` if there is no such container.
    pub mounts_of: &'a dyn Fn(&str) -> Option<Vec<MountPoint>>,
    /// Whether a path of the host exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// The driver of a volume that exists.
    pub volume_driver: &'a dyn Fn(&str) -> Option<String>,
    /// Makes a name for an anonymous volume: 64 hex digits.
    pub new_name: &'a dyn Fn() -> String,
    /// The daemon's root: a bind mount of it, or of what it is in, is `rslave` by default.
    pub data_root: &'a Path,
}

/// What a container mounts, and the volumes it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In Docker's order.
    pub mounts: Vec<MountPoint>,
    /// To be acquired (made, or found by name) before the record is committed.
    pub volumes: Vec<NewVolume>,
}

/// What is wrong with what was asked for, in Docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A bad mount.
    #[error("{0}")]
    Invalid(String),
    /// `VolumesFrom` names nobody.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// We do not have that yet.
    #[error("{0}")]
    NotImplemented(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::NoSuchContainer(_) => Kind::NotFound,
            Self::NotImplemented(_) => Kind::NotImplemented,
        }
    }
}

/// Resolves `VolumesFrom`, `Binds`, `Mounts`, `Tmpfs` and the volumes of the image (merged into `config.volumes`).
/// Pure but for what `host` tells.
///
/// # Errors
/// [`Error`].
pub fn plan(config: &Config, host_config: &HostConfig, host: &Host<'_>) -> Result<Plan, Error> {
    let _ = (config, host_config, host);
    todo!("daemon/src/container/mount_point.rs")
}
