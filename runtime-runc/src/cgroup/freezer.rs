//! Stops all processes of a container, and lets them run again.
//!
//! In the unified hierarchy (hybrid hosts have one too) the kernel tells by a poll event when all have stopped, and a frozen
//! process can be killed. v1's freezer tells nothing, may need to be asked again when a process forks meanwhile, and keeps
//! a killed process until it thaws. Sources: kernel docs cgroup-v2.rst "cgroup.freeze", cgroup-v1/freezer-subsystem.rst.

use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    Cgroup, Hierarchy,
    error::{Error, Result},
    file,
};

/// How long processes may take to stop: one in an uninterruptible wait does not.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process, and returns when the kernel says that they have stopped. If they do not, they all run again.
    pub fn freeze(&self) -> Result<()> {
        if let Some(unified) = self.unified() {
            let frozen = freeze_v2(&unified.dir);
            if frozen.is_err() {
                let _ = file::write(&unified.dir, "cgroup.freeze", 0);
            }
            return frozen;
        }
        let dir = self.controller("freezer", "freezer")?;
        let frozen = freeze_v1(dir);
        if frozen.is_err() {
            let _ = file::write(dir, "freezer.state", "THAWED");
        }
        frozen
    }

    /// Lets them run again.
    pub fn thaw(&self) -> Result<()> {
        match self.unified() {
            Some(unified) => file::write(&unified.dir, "cgroup.freeze", 0),
            None => file::write(self.controller("freezer", "freezer")?, "freezer.state", "THAWED"),
        }
    }

    /// Returns whether [`Self::freeze`] was the last of the two. A cgroup that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let state = match self.unified() {
            Some(unified) => file::read(&unified.dir, "cgroup.freeze"),
            None => file::read(self.controller("freezer", "freezer")?, "freezer.self_freezing"),
        };
        Ok(file::optional(state)?.is_some_and(|state| state == "1"))
    }
}

impl Cgroup {
    /// Returns whether somebody who joins now would stop at once: in whatever hierarchy there is a freezer. A cgroup that is not
    /// there stops nobody.
    pub fn stops_newcomers(&self) -> Result<bool> {
        let unified = self.unified().map(|unified| file::read(&unified.dir, "cgroup.freeze"));
        let freezer = self.controller("freezer", "freezer").ok();
        let freezer = freezer.map(|dir| file::read(dir, "freezer.state"));
        let is = |state: Option<Result<String>>, running: &str| match state {
            Some(state) => file::optional(state).map(|state| state.is_some_and(|s| s != running)),
            None => Ok(false),
        };
        Ok(is(unified, "0")? || is(freezer, "THAWED")?)
    }
}

fn freeze_v2(dir: &Path) -> Result<()> {
    file::write(dir, "cgroup.freeze", 1)?;
    let deadline = Instant::now() + PATIENCE;
    if wait_event(dir, "frozen", "1", deadline)? {
        Ok(())
    } else {
        Err(Error::CannotFreeze { path: dir.to_owned() })
    }
}

fn freeze_v1(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    while Instant::now() < deadline {
        // Writing it again makes the kernel look for processes that were forked since.
        file::write(dir, "freezer.state", "FROZEN")?;
        match file::read(dir, "freezer.state")?.as_str() {
            "FROZEN" => return Ok(()),
            "FREEZING" => sleep(pause),
            other => {
                return Err(Error::Unexpected {
                    path: dir.join("freezer.state"),
                    found: other.to_owned(),
                });
            }
        }
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Err(Error::CannotFreeze { path: dir.to_owned() })
}

/// Waits until `key` in the cgroup's `cgroup.events` is `value`; returns false when the time is up. A cgroup that is gone
/// has no processes, and so is frozen and empty.
pub fn wait_event(dir: &Path, key: &str, value: &str, deadline: Instant) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let events = match File::open(&path) {
        Ok(events) => events,
        Err(error) if file::is_absent(&error) => return Ok(true),
        Err(source) => return Err(Error::Read { path, source }),
    };
    loop {
        // Reading (from the start) re-arms the poll below, so no change in between is lost.
        let mut text = [0; 128];
        let length = match nix::sys::uio::pread(&events, &mut text, 0) {
            Ok(length) => length,
            Err(nix::Error::ENODEV) => return Ok(true),
            Err(errno) => return Err(Error::Read { path, source: errno.into() }),
        };
        let text = String::from_utf8_lossy(&text[..length]);
        if file::value_of(&text, key) == Some(value) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
    }
}

impl Hierarchy {
    /// Returns whether the hierarchy tells by events what happens in it.
    pub fn has_events(&self) -> bool {
        self.is_unified()
    }
}
