//! A cgroup's directories: made, looked into, emptied, removed.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use cleat_sys::pidfd::PidFd;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Cgroup,
    error::{Error, Result},
    file,
    freezer::wait_event,
    hierarchy::Hierarchy,
    v1, v2,
};

/// How long a removal waits for killed processes to be gone: giving back the memory of a big one takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Makes the directories (parents too). What it made is removed again if it fails.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] if processes are in it already: two containers would share limits and their end.
    pub fn create(&self) -> Result<()> {
        let mut made = Vec::with_capacity(self.hierarchies.len());
        let created = self.hierarchies.iter().try_for_each(|hierarchy| {
            let is_new = make(hierarchy, self.is_pure_v2())?;
            if is_new {
                made.push(&hierarchy.dir);
            } else if self.unit.is_none() && hierarchy.dir == self.tracking().dir {
                refuse_inhabited(&hierarchy.dir)?;
            }
            Ok(())
        });
        if created.is_err() {
            made.into_iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
        }
        created
    }

    /// Returns whether the cgroup exists.
    pub fn exists(&self) -> bool {
        self.tracking().dir.is_dir()
    }

    /// Returns every process in it and below. One that is gone has none.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        pids_below(&self.tracking().dir)
    }

    /// Kills every process in it and below. They may not have gone yet when it returns; [`Self::delete`] waits.
    pub fn kill(&self) -> Result<()> {
        let tracking = self.tracking();
        if tracking.is_unified() {
            match file::optional(file::write(&tracking.dir, "cgroup.kill", 1)) {
                Ok(Some(())) => return Ok(()),
                // Gone, or a kernel before 5.14.
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        self.kill_one_by_one()
    }

    /// Removes the directories, those below included, once nobody is in them. What is gone already is no error.
    ///
    /// # Errors
    /// [`Error::Remove`] with `EBUSY` if somebody still is after ten seconds; what could be removed is.
    pub fn delete(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut outcome = self.stop_unit();
        for hierarchy in &self.hierarchies {
            outcome = outcome.and(remove(&hierarchy.dir, hierarchy.has_events(), deadline));
        }
        outcome
    }

    /// A process that forks between the look and the signal leaves a child that the next look finds; a frozen one cannot.
    fn kill_one_by_one(&self) -> Result<()> {
        let was_frozen = self.freeze().is_ok();
        let mut killed = Vec::new();
        loop {
            let pids = self.pids()?;
            let fresh: Vec<Pid> = pids.into_iter().filter(|pid| !killed.contains(pid)).collect();
            for pid in &fresh {
                // It may have gone meanwhile.
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if fresh.is_empty() {
                break;
            }
            killed.extend(fresh);
        }
        if was_frozen && self.exists() { self.thaw() } else { Ok(()) }
    }
}

/// How often a parent that others keep removing is made again.
const ATTEMPTS: usize = 16;

/// Makes one directory; returns whether it is new. An empty parent that somebody removes between its making and ours is made
/// again: whoever uses the same parent removes it with the last of theirs.
fn make(hierarchy: &Hierarchy, enable_controllers: bool) -> Result<bool> {
    let vanished = |error: &Error| matches!(file::errno(error), Some(libc::ENOENT | libc::ENODEV));
    for _ in 1..ATTEMPTS {
        match make_once(hierarchy, enable_controllers) {
            Err(error) if vanished(&error) => {}
            other => return other,
        }
    }
    make_once(hierarchy, enable_controllers)
}

fn make_once(hierarchy: &Hierarchy, enable_controllers: bool) -> Result<bool> {
    let is_cpuset = hierarchy.names.iter().any(|name| name == "cpuset");
    let is_new = make_with_parents(&hierarchy.dir, is_cpuset)?;
    if is_cpuset {
        v1::cpuset::inherit(&hierarchy.dir)?;
    }
    if enable_controllers {
        v2::enable_controllers(&hierarchy.root, &hierarchy.dir)?;
    }
    Ok(is_new)
}

fn make_with_parents(dir: &Path, is_cpuset: bool) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if file::is_absent(&error) && dir.parent().is_some() => {
            let parent = dir.parent().unwrap_or(dir);
            if make_with_parents(parent, is_cpuset)? && is_cpuset {
                v1::cpuset::prepare_parent(parent)?;
            }
            make_with_parents(dir, is_cpuset)
        }
        Err(source) => Err(Error::Create { path: dir.to_owned(), source }),
    }
}

fn refuse_inhabited(dir: &Path) -> Result<()> {
    let count = pids_below(dir)?.len();
    if count == 0 { Ok(()) } else { Err(Error::NotEmpty { path: dir.to_owned(), count }) }
}

fn pids_below(dir: &Path) -> Result<Vec<Pid>> {
    let mut pids = pids_in(dir)?;
    for child in children(dir)? {
        pids.extend(pids_below(&child)?);
    }
    Ok(pids)
}

fn pids_in(dir: &Path) -> Result<Vec<Pid>> {
    let text = match file::read(dir, "cgroup.procs") {
        // A threaded cgroup has threads only.
        Err(error) if file::errno(&error) == Some(libc::EOPNOTSUPP) => {
            file::read(dir, "cgroup.threads")
        }
        other => other,
    };
    let text = match text {
        Err(error) if matches!(file::errno(&error), Some(libc::ENOENT | libc::ENODEV)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    Ok(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect())
}

fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if file::is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: dir.to_owned(), source }),
    };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.filter_map(io::Result::ok).filter(is_dir).map(|entry| entry.path()).collect())
}

fn remove(dir: &Path, has_events: bool, deadline: Instant) -> Result<()> {
    loop {
        let source = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if file::is_absent(&error) || error.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(());
            }
            Err(error) => error,
        };
        if source.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
            return Err(Error::Remove { path: dir.to_owned(), source });
        }
        // Busy with children, with processes, or with the last moments of one: v1 has no event for those.
        for child in children(dir)? {
            remove(&child, has_events, deadline)?;
        }
        let waited = if has_events {
            wait_event(dir, "populated", "0", deadline)?
        } else {
            wait_exits(dir, deadline)?
        };
        if !waited {
            sleep(Duration::from_micros(200));
        }
    }
}

/// Waits until those in the cgroup now have ended; returns false if there was nobody to wait for.
fn wait_exits(dir: &Path, deadline: Instant) -> Result<bool> {
    let pidfds: Vec<PidFd> =
        pids_in(dir)?.into_iter().filter_map(|pid| PidFd::open(pid).ok()).collect();
    for pidfd in &pidfds {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
    }
    Ok(!pidfds.is_empty())
}
