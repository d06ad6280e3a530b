//! What can go wrong with cgroups, each with the file and the value it went wrong with.

use std::{io, path::PathBuf};

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit or a pid was not taken.
    #[error("failed to write {value:?} to {path}", path = .path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    /// A file of the kernel's could not be read.
    #[error("failed to read {path}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The kernel's file says something we do not understand.
    #[error("unexpected {found:?} in {path}", path = .path.display())]
    Unexpected { path: PathBuf, found: String },
    /// A directory could not be made.
    #[error("failed to create cgroup {path}", path = .path.display())]
    Create { path: PathBuf, source: io::Error },
    /// A directory could not be removed.
    #[error("failed to remove cgroup {path}", path = .path.display())]
    Remove { path: PathBuf, source: io::Error },
    /// Somebody lives there already.
    #[error("container's cgroup is not empty: {count} process(es) found in {path}", path = .path.display())]
    NotEmpty { path: PathBuf, count: usize },
    /// A path below a cgroup that leads out of it.
    #[error("bad sub cgroup path: {0:?}")]
    BadSubPath(String),
    /// No hierarchy has a controller of that name.
    #[error("unknown controller {0:?} in a sub cgroup path")]
    UnknownController(String),
    /// A path of a cgroup that leads nowhere.
    #[error("invalid cgroup path {0:?}")]
    InvalidPath(String),
    /// The host has no cgroups at all.
    #[error("no cgroup mount found in /proc/self/mountinfo")]
    NoMount,
    /// The limit needs a controller that this host has not mounted.
    #[error(
        "cannot set {limit} limit: the cgroup controller {controller:?} is not available on this host"
    )]
    NoController { controller: &'static str, limit: &'static str },
    /// The value cannot be a limit.
    #[error("{0}")]
    InvalidLimit(String),
    /// The memory in use does not go below the limit.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse { limit: i64, usage: String, peak: String },
    /// `unified` is for v2 alone.
    #[error("invalid configuration: cannot use unified on cgroup v1")]
    UnifiedOnV1,
    /// The processes would not stop.
    #[error("unable to freeze {path}", path = .path.display())]
    CannotFreeze { path: PathBuf },
    /// The systemd driver was asked for on a host that systemd did not boot.
    #[error("systemd not running on this host, cannot use systemd cgroups manager")]
    NoSystemd,
    /// A path that names no unit.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} instead"
    )]
    UnitPath(String),
    /// A slice that is none.
    #[error("invalid slice name: {0}")]
    InvalidSlice(String),
    /// systemd said no, or nothing.
    #[error("{what} {unit:?}")]
    Systemd { what: &'static str, unit: String, source: crate::dbus::Error },
    /// The device filter was not taken.
    #[error("failed to attach the device filter to {path}", path = .path.display())]
    DeviceFilter { path: PathBuf, source: io::Error },
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;
