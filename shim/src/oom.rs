//! Hears of the kernel's OOM killer: an eventfd on `memory.oom_control` (v1), inotify on `memory.events` (v2).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::{cgroup::Cgroup, descriptor::Descriptor};

/// Waits for news about the memory of one container.
pub struct Watch {
    events: Descriptor,
    seen: u64,
}

impl Watch {
    /// Begins to listen; none if the container has no memory controller of its own.
    pub fn start(cgroup: &Cgroup) -> io::Result<Option<Self>> {
        let events = match (cgroup.controller("memory"), cgroup.unified()) {
            (Some(directory), _) => v1(directory)?,
            (None, Some(directory)) => v2(directory)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { events: Descriptor::new(events)?, seen: cgroup.oom_kills() }))
    }

    /// Returns when the OOM killer has met another process; never if that cannot be known any more.
    pub async fn next(&mut self, cgroup: &Cgroup) {
        let mut buffer = [0; 4096];
        while self.events.read(&mut buffer).await.is_ok() {
            let kills = cgroup.oom_kills();
            if kills > self.seen {
                self.seen = kills;
                return;
            }
            // The end of the cgroup is reported as well.
            if kills == 0 && cgroup.pids().is_empty() {
                break;
            }
        }
        std::future::pending().await
    }
}

/// Source: admin-guide/cgroup-v1/memory.rst, section 10.
fn v1(directory: &Path) -> io::Result<OwnedFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = File::open(directory.join("memory.oom_control"))?;
    let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    fs::write(directory.join("cgroup.event_control"), order)?;
    Ok(event.into())
}

fn v2(directory: &Path) -> io::Result<OwnedFd> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(&directory.join("memory.events"), AddWatchFlags::IN_MODIFY)?;
    Ok(inotify.into())
}
