//! Starting a program from a process with many threads.
//!
//! After a fork of such a process hardly any code may run in the child. Here the child shares the parent's memory while the
//! calling thread waits (`CLONE_VM | CLONE_VFORK`, what `posix_spawn(3)` does), runs on a stack of its own, and makes
//! nothing but system calls on data that was laid out before.

use crate::pidfd::PidFd;
use crate::{Errno, Result, c_string};
use nix::unistd::Pid;
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A program to start. Descriptors that are not named in `fds` are closed, the standard ones aside: those are inherited.
///
/// ```no_run
/// # use cleat_sys::spawn::Spawn;
/// # use std::os::fd::AsFd;
/// # let listener = std::fs::File::open("/dev/null").unwrap();
/// let spawned = Spawn {
///     program: "/usr/libexec/shim".into(),
///     args: vec!["shim".into(), "-id".into(), "web".into()],
///     fds: vec![(listener.as_fd(), 3)],
///     new_session: true,
///     ..Spawn::default()
/// }
/// .start()?;
/// # Ok::<(), nix::errno::Errno>(())
/// ```
#[derive(Debug, Default)]
pub struct Spawn<'a> {
    /// The path of the executable; PATH is not searched. `/proc/self/fd/N` runs what descriptor N of the caller refers to.
    pub program: PathBuf,
    /// The arguments, the name of the program first.
    pub args: Vec<OsString>,
    /// The whole environment, `NAME=value` each; nothing is inherited.
    pub env: Vec<OsString>,
    /// Where it starts; the caller's directory if there is none.
    pub directory: Option<PathBuf>,
    /// Which descriptors it gets under which number.
    pub fds: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Lead a new session, without a terminal.
    pub new_session: bool,
    /// Open `tasks` or `cgroup.threads` files, each of a cgroup to move into before the program runs (the new process
    /// writes `0` to each, the cheap way to move).
    pub cgroups: Vec<BorrowedFd<'a>>,
}

/// A started program. Dropping it changes nothing: its end must be waited for.
#[derive(Debug)]
pub struct Spawned {
    /// Its number.
    pub pid: Pid,
    /// A handle to it.
    pub pidfd: PidFd,
}

/// What the child needs, in memory that both sides see.
struct Plan {
    program: CString,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    directory: Option<CString>,
    /// (a copy above all targets, the target)
    fds: Vec<(RawFd, RawFd)>,
    new_session: bool,
    cgroups: Vec<RawFd>,
    /// Where the child leaves the number of the error that stopped it.
    error: i32,
}

const STACK_BYTES: usize = 64 * 1024;

impl Spawn<'_> {
    /// Starts the program; returns when it has been loaded.
    ///
    /// # Errors
    /// What stopped the child: of `execve(2)` such as `ENOENT` and `EACCES`, of `chdir(2)`, of the move to a cgroup.
    pub fn start(&self) -> Result<Spawned> {
        let args = c_strings(&self.args)?;
        let env = c_strings(&self.env)?;
        let directory = self
            .directory
            .as_ref()
            .map(|path| c_string(path.as_os_str().as_bytes()))
            .transpose()?;
        // Copies above every target, so that no target overwrites the source of a later one.
        let floor = self.fds.iter().map(|(_, target)| target + 1).max().unwrap_or(0).max(3);
        let copies = self
            .fds
            .iter()
            .map(|(fd, target)| Ok((duplicate_above(*fd, floor)?, *target)))
            .collect::<Result<Vec<(OwnedFd, RawFd)>>>()?;
        let mut plan = Plan {
            program: c_string(self.program.as_os_str().as_bytes())?,
            args: pointers(&args),
            env: pointers(&env),
            directory,
            fds: copies.iter().map(|(copy, target)| (copy.as_raw_fd(), *target)).collect(),
            new_session: self.new_session,
            cgroups: self.cgroups.iter().map(AsRawFd::as_raw_fd).collect(),
            error: 0,
        };
        start(&mut plan)
    }
}

fn c_strings(texts: &[OsString]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text.as_bytes())).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

fn duplicate_above(fd: BorrowedFd<'_>, floor: RawFd) -> Result<OwnedFd> {
    let raw = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(floor))?;
    // SAFETY: the call succeeded, so `raw` is open and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn start(plan: &mut Plan) -> Result<Spawned> {
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let mut pidfd: RawFd = -1;
    // No handler of ours may run in the child, on memory that it shares with us.
    let mut all = nix::sys::signal::SigSet::all();
    let old = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack grows downwards from the end of a buffer that is aligned and outlives the child's use of it, since
    // CLONE_VFORK holds this thread until the child has called execve or _exit. `plan` lives as long; meanwhile the
    // child alone touches it. The child calls only functions that are safe after a fork.
    let answer = unsafe {
        let top = stack.as_mut_ptr().add(stack.len());
        libc::clone(child, top.cast(), flags, (&raw mut *plan).cast(), &raw mut pidfd)
    };
    let cloned = Errno::result(answer);
    all = old;
    all.thread_set_mask()?;
    drop(stack);
    let pid = Pid::from_raw(cloned?);
    // SAFETY: with CLONE_PIDFD the kernel has stored a descriptor there that nothing else owns.
    let pidfd = PidFd::from(unsafe { OwnedFd::from_raw_fd(pidfd) });
    // SAFETY: reads an initialised field; volatile, since the compiler knows of no write to it.
    match unsafe { (&raw const plan.error).read_volatile() } {
        0 => Ok(Spawned { pid, pidfd }),
        error => {
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(Errno::from_raw(error))
        }
    }
}

/// Runs in the child: system calls only, no allocation, no lock, no panic.
extern "C" fn child(plan: *mut libc::c_void) -> libc::c_int {
    let plan: *mut Plan = plan.cast();
    // SAFETY: the parent waits and does not touch the plan; it is valid until execve or _exit.
    unsafe {
        let error = prepare(&*plan).err().unwrap_or_else(|| {
            libc::execve((*plan).program.as_ptr(), (*plan).args.as_ptr(), (*plan).env.as_ptr());
            Errno::last_raw()
        });
        (&raw mut (*plan).error).write_volatile(error);
        libc::_exit(127)
    }
}

/// Everything between the birth of the child and its execve.
///
/// # Safety
/// Only in the child, whose descriptor table and signal handlers are its own.
unsafe fn prepare(plan: &Plan) -> std::result::Result<(), i32> {
    let check = |answer: libc::c_long| if answer < 0 { Err(Errno::last_raw()) } else { Ok(()) };
    // SAFETY: system calls with pointers into the plan, which is valid; see `child`.
    unsafe {
        for file in &plan.cgroups {
            check(libc::write(*file, c"0".as_ptr().cast(), 1) as libc::c_long)?;
        }
        if plan.new_session {
            check(libc::setsid().into())?;
        }
        if let Some(directory) = &plan.directory {
            check(libc::chdir(directory.as_ptr()).into())?;
        }
        check(libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4 /* CLOSE_RANGE_CLOEXEC */))?;
        for (copy, target) in &plan.fds {
            check(libc::dup2(*copy, *target).into())?;
        }
        // Rust ignores SIGPIPE, the daemon catches some: the program gets the defaults.
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::io::Read;
    use std::os::fd::AsFd;

    fn shell(script: &str) -> Spawn<'static> {
        Spawn {
            program: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/bin:/usr/bin".into(), "A=b".into()],
            ..Spawn::default()
        }
    }

    #[track_caller]
    fn output(spawn: Spawn<'_>, target: RawFd) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut spawn = Spawn { fds: spawn.fds.clone(), ..spawn };
        spawn.fds.push((writer.as_fd(), target));
        let spawned = spawn.start().unwrap();
        drop(spawn);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(waitpid(spawned.pid, None), Ok(WaitStatus::Exited(spawned.pid, 0)));
        text
    }

    #[test]
    fn descriptors_arrive_under_their_numbers_and_no_other_does() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (inherited, _keep) = std::io::pipe().unwrap();
        nix::fcntl::fcntl(&inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .unwrap();
        let mut spawn = shell("cd /proc/self/fd; echo *");
        spawn.fds = vec![(null.as_fd(), 4)];
        // The shell opens the directory itself for a moment, as the lowest free number.
        assert_eq!(output(spawn, 1).replace(" 3", ""), "0 1 2 4\n");
    }

    #[test]
    fn sources_and_targets_may_cross() {
        let (a, mut a_writer) = std::io::pipe().unwrap();
        let (b, mut b_writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut a_writer, b"from a").unwrap();
        std::io::Write::write_all(&mut b_writer, b"from b").unwrap();
        drop((a_writer, b_writer));
        let (low, high) = (a.as_raw_fd(), b.as_raw_fd());
        // By path: the shell's `<&` takes one digit.
        let mut spawn = shell(&format!("cat /dev/fd/{high}; echo; cat /dev/fd/{low}"));
        spawn.fds = vec![(a.as_fd(), high), (b.as_fd(), low)];
        assert_eq!(output(spawn, 1), "from a\nfrom b");
    }

    #[test]
    fn the_environment_is_what_was_given() {
        let mut spawn = shell("env | sort");
        spawn.directory = Some("/".into());
        assert_eq!(output(spawn, 1), "A=b\nPATH=/bin:/usr/bin\nPWD=/\n");
    }

    #[test]
    fn a_new_session_is_led_by_the_program() {
        let mut spawn = shell("cut -d' ' -f1,6 /proc/$$/stat");
        spawn.new_session = true;
        let text = output(spawn, 1);
        let (pid, session) = text.trim().split_once(' ').unwrap();
        assert_eq!(pid, session);
    }

    #[test]
    fn what_stops_the_child_is_the_error() {
        let mut spawn = shell("true");
        spawn.program = "/nowhere".into();
        assert_eq!(spawn.start().unwrap_err(), Errno::ENOENT);
        let mut spawn = shell("true");
        spawn.directory = Some("/nowhere".into());
        assert_eq!(spawn.start().unwrap_err(), Errno::ENOENT);
        let mut spawn = shell("true");
        spawn.program = "/proc/self/status".into();
        assert_eq!(spawn.start().unwrap_err(), Errno::EACCES);
    }
}
