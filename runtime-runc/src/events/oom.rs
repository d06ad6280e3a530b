//! Being told of a container's out-of-memory kills. v1 has an eventfd for it, which is signalled once more when the cgroup is
//! removed (the kernel's cgroup-v1/memcg_test.rst and memory.rst, OOM Control); v2 counts in `memory.events`, whose changes
//! inotify tells of.

use crate::error::{Context, Error, Result};
use cleat_sys::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A watch on one container's memory.
pub enum Watch {
    V1 { directory: PathBuf, event: EventFd },
    V2 { directory: PathBuf, inotify: Inotify, killed: Cell<u64> },
}

impl Watch {
    /// Begins to watch the cgroup with these directories.
    ///
    /// # Errors
    /// Where none of them has the memory controller.
    pub fn new(paths: &BTreeMap<String, String>) -> Result<Self> {
        match (paths.get("memory"), paths.get("")) {
            (Some(directory), _) => Self::v1(directory.into()),
            (None, Some(directory)) => Self::v2(directory.into()),
            (None, None) => Err(Error::State("the container has no memory cgroup".to_owned())),
        }
    }

    fn v1(directory: PathBuf) -> Result<Self> {
        let what = || format!("cannot watch {}", directory.display());
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags).context(what)?;
        let control = File::open(directory.join("memory.oom_control")).context(what)?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        std::fs::write(directory.join("cgroup.event_control"), line).context(what)?;
        Ok(Self::V1 { directory, event })
    }

    fn v2(directory: PathBuf) -> Result<Self> {
        let what = || format!("cannot watch {}", directory.display());
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context(what)?;
        for file in ["memory.events", "cgroup.events"] {
            let path = directory.join(file);
            inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).context(what)?;
        }
        let killed = Cell::new(killed(&directory));
        Ok(Self::V2 { directory, inotify, killed })
    }

    /// Returns how many kills there were since the last look.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn count(&self) -> Result<u64> {
        let what = || "read memory events".to_owned();
        match self {
            Self::V1 { event, .. } => match event.read() {
                Err(Errno::EAGAIN) => Ok(0),
                // The last signal is the removal's.
                read => read.context(what).map(|count| if self.has_ended() { 0 } else { count }),
            },
            Self::V2 { directory, inotify, killed: before } => {
                match inotify.read_events() {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Err(Error::Kernel { what: what(), errno }),
                }
                let now = killed(directory);
                Ok(now.saturating_sub(before.replace(now.max(before.get()))))
            }
        }
    }

    /// Returns whether the cgroup is gone, or nobody is in it any more.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::V1 { directory, .. } => !directory.join("memory.oom_control").exists(),
            Self::V2 { directory, .. } => {
                let events = std::fs::read_to_string(directory.join("cgroup.events"));
                events.map_or(true, |text| text.lines().any(|line| line == "populated 0"))
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V1 { event, .. } => event.as_fd(),
            Self::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

fn killed(directory: &Path) -> u64 {
    let text = std::fs::read_to_string(directory.join("memory.events")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
