//! Starts a shim, and buries it when it has ended.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use cleat_proto::id::ContainerId;
use cleat_sys::{pidfd::PidFd, spawn::Spawn};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};

use super::{Error, TaskDir, directory::NAMESPACE};

/// How a shim's binary is called.
const NAME: &str = "containerd-shim-cleat-v1";
/// The descriptor on which a shim finds its listening socket.
const LISTENER: i32 = 3;
/// The descriptor on which it finds the network namespace, if there is one.
const NETNS: i32 = 4;
/// The first of the descriptors on which it finds the published ports' sockets.
const PUBLISHED: i32 = 5;

/// How long a process may take from closing its sockets to its end, on a host that is busy.
const DYING_MILLIS: u16 = 1_000;

/// The shims that this daemon has started and not yet buried: they are its children for as long as it lives.
#[derive(Debug, Default)]
pub struct Shims(Mutex<HashMap<Pid, ContainerId>>);

impl Shims {
    /// Starts the shim of a task. It blocks until the program is loaded, for a millisecond or so.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn launch(
        &self,
        binary: &Path,
        task: &TaskDir,
        netns: Option<&OwnedFd>,
        published: &[OwnedFd],
    ) -> Result<u32, Error> {
        let listener = task.bind()?;
        let log = open_log(task)?;
        let nothing = File::open("/dev/null").map_err(Error::files("cannot open /dev/null"))?;
        let mut fds = vec![
            (nothing.as_fd(), 0),
            (log.as_fd(), 1),
            (log.as_fd(), 2),
            (listener.as_fd(), LISTENER),
        ];
        fds.extend(netns.map(|netns| (netns.as_fd(), NETNS)));
        fds.extend(published.iter().map(OwnedFd::as_fd).zip(PUBLISHED..));
        let args: Vec<OsString> = vec![
            binary.into(),
            "-namespace".into(),
            NAMESPACE.into(),
            "-id".into(),
            task.id().as_str().into(),
            "-address".into(),
            "".into(),
            "serve".into(),
        ];
        let spawn = Spawn {
            program: binary.to_owned(),
            args,
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            directory: Some(task.path().to_owned()),
            fds,
            new_session: true,
            cgroups: Vec::new(),
        };
        let spawned = spawn.start().map_err(|errno| {
            Error::files(format!("cannot start the shim {}", binary.display()))(errno.into())
        })?;
        self.lock().insert(spawned.pid, task.id().clone());
        Ok(spawned.pid.as_raw().unsigned_abs())
    }

    /// Buries the shims that have ended. To be called at SIGCHLD; other children of the daemon are not touched.
    pub fn bury(&self) {
        self.lock().retain(|pid, _| {
            let ended = waitpid(*pid, Some(WaitPidFlag::WNOHANG));
            matches!(ended, Ok(nix::sys::wait::WaitStatus::StillAlive))
        });
    }

    /// Kills a shim that does not end by itself, whoever started it. Blocks. That there is none is fine.
    pub fn kill(&self, id: &ContainerId) {
        let own = self.lock().iter().find(|(_, of)| *of == id).map(|(pid, _)| *pid);
        if let Some(pid) = own {
            // It is not buried yet, so the pid is still its.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            return;
        }
        for (pid, _) in running().into_iter().filter(|(_, of)| of == id) {
            let pidfd = PidFd::open(Pid::from_raw(pid.cast_signed()));
            // Looked at again with the handle held: the number may have become another's.
            if let Ok(pidfd) = pidfd
                && of_shim(pid).as_ref() == Some(id)
            {
                let _ = pidfd.kill();
            }
        }
    }

    /// Waits until a shim of this daemon's that is dying is dead, and its worker with it: what that makes at the last moment must
    /// be there before it is taken away. Blocks, for [`DYING_MILLIS`] at most.
    pub fn wait_dead(&self, id: &ContainerId) {
        let own = self.lock().iter().find(|(_, of)| *of == id).map(|(pid, _)| *pid);
        if let Some(shim) = own.and_then(|pid| PidFd::open(pid).ok()) {
            let mut fds = [PollFd::new(shim.as_fd(), PollFlags::POLLIN)];
            // One that does not die is left to who calls.
            let _ = poll(&mut fds, DYING_MILLIS);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Pid, ContainerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_log(task: &TaskDir) -> Result<File, Error> {
    let path = task.path().join("shim.log");
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::files(format!("cannot open {}", path.display())))
}

/// Finds the shims that run on this host, by their command lines: pid and container.
pub fn running() -> Vec<(u32, ContainerId)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, of_shim(pid)?))
        })
        .collect()
}

/// Reads which container the process is the shim of, if it is one.
fn of_shim(pid: u32) -> Option<ContainerId> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    if !words.next()?.ends_with(NAME) {
        return None;
    }
    words.find(|word| *word == "-id")?;
    words.next()?.parse().ok()
}
