//! What is mounted where in a container: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes, resolved.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::mount_plan::{Error, Host, Plan, plan};

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
    /// An image's files.
    Image {
        /// As the user named it.
        name: String,
        /// Its id.
        id: String,
        /// Its topmost layer's chain id; `None` for an image without layers.
        top_layer: Option<String>,
        /// A path within it.
        subpath: String,
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
