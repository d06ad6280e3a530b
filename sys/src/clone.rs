//! `clone3(2)`, and closing what a child must not inherit.

use crate::pidfd::PidFd;
use crate::{Errno, Result};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The kernel's `struct clone_args`, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of a [`fork`] the caller goes on.
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The new process, as the caller's PID namespace sees it.
        pid: Pid,
        /// A handle to it.
        pidfd: PidFd,
    },
}

/// Makes a child that goes on from here with a copy of everything, in the new namespaces of `flags` (`CLONE_NEW*`, and
/// `CLONE_PARENT` for a sibling), born in the unified-hierarchy cgroup whose directory is `cgroup`.
///
/// For single-threaded processes: a lock that another thread held would stay locked in the child for ever.
///
/// # Errors
/// `EPERM` without the privilege for a namespace, `ENOSPC` at a namespace limit, `EBUSY` and `EOPNOTSUPP` for a cgroup that
/// takes no process, `ENOSYS` before Linux 5.3. Source: `clone3(2)`.
pub fn fork(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: RawFd = -1;
    let sibling = flags & libc::CLONE_PARENT != 0;
    let mut args = CloneArgs {
        flags: u64::from(flags as u32) | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        // A sibling inherits the exit signal; the kernel refuses another one.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` has the kernel's layout and size; without CLONE_VM and with no stack given, the child runs on its own
    // copy of ours, exactly as after fork(2).
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if Errno::result(answer)? == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel has stored a descriptor there that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: Pid::from_raw(answer as i32), pidfd: PidFd::from(pidfd) })
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11. Source: `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: the flag only marks descriptors; none is closed under its owner's feet.
    let answer =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(answer).map(drop)
}

/// Closes every descriptor from `first` on but those of `keep`, whoever owns it: for a process that from now on uses none of the
/// others and ends by `execve` or exit, and so never drops their owners.
///
/// # Errors
/// `ENOSYS` before Linux 5.9. Source: `close_range(2)`.
pub fn close_all_from(first: u32, keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.retain(|fd| *fd >= first);
    keep.sort_unstable();
    let mut next = first;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if next < fd {
            // SAFETY: takes integers. That no owner of these descriptors goes on to use them is the caller's promise.
            let answer = unsafe { libc::syscall(libc::SYS_close_range, next, fd - 1, 0) };
            Errno::result(answer)?;
        }
        next = fd.saturating_add(1);
    }
    Ok(())
}

/// Becomes the program that `program` refers to, close-on-exec or not.
///
/// # Errors
/// Comes back only with one. Source: `execveat(2)` with `AT_EMPTY_PATH`.
pub fn execute(program: impl AsFd, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and point to C strings; all of it lives across the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Errno::last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    #[test]
    fn a_child_in_a_new_pid_namespace_is_number_one_there() {
        match fork(libc::CLONE_NEWPID, None).unwrap() {
            // SAFETY: leaves at once, without touching what other test threads may have locked.
            Fork::Child => unsafe { libc::_exit(libc::getpid()) },
            Fork::Parent { pid, pidfd } => {
                assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 1)));
                assert_eq!(pidfd.send_signal(0), Err(Errno::ESRCH));
            }
        }
    }
}
