//! Handles to processes.

use crate::{Errno, Result, owned_fd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Refers to one process, and never to a later one that got the same pid.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a close-on-exec handle to `pid`.
    ///
    /// # Errors
    /// `ESRCH` if there is no such process, `ENOSYS` before Linux 5.3. Source: `pidfd_open(2)`.
    pub fn open(pid: Pid) -> Result<Self> {
        // SAFETY: both arguments are integers; the kernel touches no memory of ours.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        owned_fd(raw).map(Self)
    }

    /// Sends a signal by its number (real-time ones too; 0 only asks whether the process is there).
    ///
    /// # Errors
    /// `ESRCH` once the process has been reaped. Source: `pidfd_send_signal(2)`.
    pub fn send_signal(&self, signal: i32) -> Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null `info` is allowed by the call.
        let answer = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0)
        };
        Errno::result(answer).map(drop)
    }

    /// Sends SIGKILL; a process that has gone already is no error.
    ///
    /// # Errors
    /// `EPERM` for a process of somebody else.
    pub fn kill(&self) -> Result<()> {
        match self.send_signal(Signal::SIGKILL as i32) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }
}

impl From<OwnedFd> for PidFd {
    /// Takes a descriptor that is a pidfd (from `clone3`, or handed over by another process).
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

impl AsFd for PidFd {
    /// Readable (`POLLIN`) once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_to_oneself_takes_the_null_signal() {
        PidFd::open(Pid::this()).unwrap().send_signal(0).unwrap();
    }

    #[test]
    fn a_reaped_process_is_not_found() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pidfd = PidFd::open(Pid::from_raw(child.id() as i32)).unwrap();
        child.wait().unwrap();
        assert_eq!(pidfd.send_signal(0), Err(Errno::ESRCH));
        assert_eq!(pidfd.kill(), Ok(()));
    }
}
