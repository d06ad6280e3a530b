//! What a process sets for itself: `prctl(2)`, `personality(2)`, `ioprio_set(2)`, `sched_setattr(2)`, `prlimit(2)`.

use crate::{Errno, Result};

/// Takes a capability out of the bounding set for good.
///
/// # Errors
/// `EINVAL` for a number the kernel has not, `EPERM` without CAP_SETPCAP. Source: `PR_CAPBSET_DROP(2const)`.
pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0)
}

/// Empties the ambient set.
///
/// # Errors
/// `EINVAL` before Linux 4.3. Source: `PR_CAP_AMBIENT(2const)`.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)
}

/// Puts a capability, already permitted and inheritable, into the ambient set.
///
/// # Errors
/// `EPERM` where it is not in both sets. Source: `PR_CAP_AMBIENT(2const)`.
pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
        libc::c_ulong::from(capability),
    )
}

/// Says whether capabilities survive a change from user 0 to another.
///
/// # Errors
/// `EPERM` where a secure bit locks it. Source: `PR_SET_KEEPCAPS(2const)`.
pub fn set_keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0)
}

/// Keeps others of the same user from tracing this process and from following its `/proc/<pid>` links (`false`), or lets them.
///
/// # Errors
/// None in practice. Source: `PR_SET_DUMPABLE(2const)`.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0)
}

/// Gives up the privileges that `execve` could grant.
///
/// # Errors
/// None in practice. Source: `PR_SET_NO_NEW_PRIVS(2const)`.
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Makes orphaned descendants children of this process.
///
/// # Errors
/// None in practice. Source: `PR_SET_CHILD_SUBREAPER(2const)`.
pub fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)
}

/// Asks for `signal` when the parent ends; 0 for none.
///
/// # Errors
/// `EINVAL` for a number that is no signal. Source: `PR_SET_PDEATHSIG(2const)`.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0)
}

fn prctl(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take integers only, and the unused arguments are zero as they must be.
    Errno::result(unsafe { libc::prctl(option, first, second, zero, zero) }).map(drop)
}

/// Sets the execution domain, such as `PER_LINUX32`.
///
/// # Errors
/// `EINVAL` where the kernel refuses it. Source: `personality(2)`.
pub fn set_personality(domain: u64) -> Result<()> {
    // SAFETY: takes an integer.
    Errno::result(unsafe { libc::personality(domain as libc::c_ulong) }).map(drop)
}

/// Sets the calling thread's I/O class (1 real time, 2 best effort, 3 idle) and its level in it (0 to 7).
///
/// # Errors
/// `EPERM` without the privilege for the class, `EINVAL` for a wrong level. Source: `ioprio_set(2)`.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let value = i32::from(class) << 13 | i32::from(level);
    // SAFETY: takes integers.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(answer).map(drop)
}

/// How the kernel schedules a thread; the fields of `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduling {
    /// Filled in by [`set_scheduling`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the policies without priority.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in ns.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in ns.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in ns.
    pub period: u64,
}

/// Sets the calling thread's scheduling.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, `EINVAL` for values that do not go together. Source: `sched_setattr(2)`.
pub fn set_scheduling(mut scheduling: Scheduling) -> Result<()> {
    scheduling.size = size_of::<Scheduling>() as u32;
    // SAFETY: the structure has the kernel's layout, tells its size and lives across the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const scheduling, 0) };
    Errno::result(answer).map(drop)
}

/// Sets a resource limit of the calling process by its number (`RLIMIT_*`).
///
/// # Errors
/// `EPERM` for a hard limit above the present one without CAP_SYS_RESOURCE, `EINVAL` for soft above hard. Source: `setrlimit(2)`.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives across the call; the old value is not asked for.
    let answer = unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) };
    Errno::result(answer).map(drop)
}

/// Returns the soft and the hard limit of the calling process.
///
/// # Errors
/// `EINVAL` for an unknown resource. Source: `getrlimit(2)`.
pub fn limit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to be written; no new value is given.
    let answer = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut limit) };
    Errno::result(answer).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Sets user and group, real, effective, saved and filesystem, of a single-threaded process.
///
/// # Errors
/// `EPERM` without the capabilities, `EINVAL` for an id that the user namespace does not map.
pub fn set_user(uid: u32, gid: u32) -> Result<()> {
    use nix::unistd::{Gid, Uid, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Undoes what the Rust runtime and our caller did to signals that `execve` would hand on: what a shell's background job, nohup(1) or
/// a daemon ignores is not ignored, and none is blocked.
///
/// # Errors
/// None in practice. Source: `signal(7)`, Signal mask and pending signals.
pub fn default_signals() -> Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, Signal as S, signal};
    for ignorable in [S::SIGPIPE, S::SIGHUP, S::SIGINT, S::SIGQUIT, S::SIGTERM, S::SIGCHLD] {
        // SAFETY: the default action replaces another action that is no handler of ours.
        unsafe { signal(ignorable, SigHandler::SigDfl) }?;
    }
    for internal in LIBRARY_SIGNALS {
        set_default_action(internal)?;
    }
    SigSet::empty().thread_set_mask()
}

/// What the C library keeps for itself and `sigaction(3)` refuses. glibc's `posix_spawn(3)` leaves them ignored in the child, and
/// `execve` hands that on: to a container in the end.
const LIBRARY_SIGNALS: [libc::c_int; 2] = [32, 33];

fn set_default_action(signal: libc::c_int) -> Result<()> {
    // The kernel's own structure: handler, flags, restorer and a mask of 64 bits. All zeros mean SIG_DFL with no flag.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads a structure of 32 bytes, which `action` is, with a mask of 8, and keeps no pointer to it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Has the command start with [`default_signals`], whatever this process blocks or ignores.
pub fn with_default_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec, `default_signals` makes system calls only.
    unsafe { command.pre_exec(|| default_signals().map_err(Into::into)) }
}

/// Lets the polite signals end this process although it is the first of its PID namespace, where a default action does nothing. An
/// `execve` forgets it.
///
/// # Errors
/// None in practice. Source: `pid_namespaces(7)`, The namespace init process.
pub fn end_on_signals() -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal as S, signal};
    extern "C" fn end(number: libc::c_int) {
        // SAFETY: async-signal-safe, and never comes back.
        unsafe { libc::_exit(128 + number) }
    }
    for polite in [S::SIGHUP, S::SIGINT, S::SIGQUIT, S::SIGTERM] {
        // SAFETY: the handler makes one call, which is async-signal-safe.
        unsafe { signal(polite, SigHandler::Handler(end)) }?;
    }
    Ok(())
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// `EINVAL` where it is longer than 64 bytes, `EPERM` without CAP_SYS_ADMIN. Source: `setdomainname(2)`.
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length are those of one string that lives across the call.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Enters the namespaces of `kinds` (`CLONE_NEW*`) that `fd` stands for: one namespace file, or a pidfd and all that it is in.
///
/// # Errors
/// `EINVAL` for a kind that is already the caller's (user) or is not `fd`'s, `EPERM` without the privilege. Source: `setns(2)`.
pub fn set_namespaces(fd: impl std::os::fd::AsFd, kinds: i32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: takes integers.
    Errno::result(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) }).map(drop)
}

/// Lets the calling thread run on the CPUs of `mask`, one bit each, lowest first, as far as its cpuset has them.
///
/// # Errors
/// `EINVAL` where there is none of them. Source: `sched_setaffinity(2)`.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: pointer and size are those of one slice that lives across the call; 0 is this thread.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    Errno::result(answer).map(drop)
}
