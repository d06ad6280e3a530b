//! The last steps before a program runs, the same for a container's init and for an exec: limits, privileges, user, directory,
//! program. The order is that of `runc`, which profiles and images have come to depend on.

use crate::capability::Masks;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result, reason};
use crate::log;
use crate::procfs::Procfs;
use crate::seccomp::Filter;
use crate::spec::{Personality, Process, Rlimit, Scheduler, User};
use cleat_sys::openat2::{self, open_in_root};
use cleat_sys::process::{self, Scheduling};
use cleat_sys::{Errno, clone};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, setgroups};
use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::io::{Read, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

/// The largest `/etc/passwd` that is searched for a home directory.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// `RLIMIT_*` in the kernel's numbering, `asm-generic/resource.h`.
const LIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// `CAP_SYS_RESOURCE`.
const SYS_RESOURCE: u64 = 1 << 24;

/// What the last steps need to know.
#[derive(Debug)]
pub struct Finish<'a> {
    pub process: &'a Process,
    pub capabilities: Masks,
    /// The capabilities this process has before it gives any away.
    pub own_capabilities: u64,
    pub filter: Option<&'a Filter>,
    pub personality: Option<u64>,
    /// How many descriptors above the standard ones the program inherits.
    pub preserve: u32,
    /// What else stays open until then.
    pub keep: Vec<RawFd>,
}

/// A program that only has to be executed.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Finish<'_> {
    /// Takes every step but `execve`; tells the parent that all is ready, on the way, before a filter may forbid that.
    ///
    /// # Errors
    /// [`Error`] with runc's wording.
    pub fn apply(&self, channel: &Channel) -> Result<Program> {
        let process = self.process;
        process::default_signals().context(|| "reset signals".to_owned())?;
        if process.no_new_privileges {
            process::set_no_new_privileges().context(|| "prctl(SET_NO_NEW_PRIVS)".to_owned())?;
        }
        umask(Mode::from_bits_truncate(process.user.umask.unwrap_or(0o022)));
        self.scheduling()?;
        if let Some(personality) = self.personality {
            process::set_personality(personality).context(|| "personality".to_owned())?;
        }
        set_limits(&process.rlimits, self.own_capabilities & SYS_RESOURCE != 0)?;
        let env = environment(process)?;
        // Whatever else is open: no link of /proc/self/fd leads to the host while we wait or exec (CVE-2024-21626).
        let mut keep = self.keep.clone();
        keep.extend([channel.as_fd().as_raw_fd()].into_iter().chain(log::descriptor()));
        clone::close_all_from(3 + self.preserve, &keep).context(|| "close_range".to_owned())?;
        let early = change_directory(&process.cwd);
        channel.send(&Message::Ready).context(|| "sync ready".to_owned())?;
        if !process.no_new_privileges {
            // Without no_new_privs a filter is the privilege of CAP_SYS_ADMIN, which goes next.
            self.install_filter(channel)?;
        }
        self.take_user(early)?;
        let path = find_program(&process.args[0], &env)?;
        let program = Program {
            path: c_string(path.into_os_string().into_encoded_bytes())?,
            args: process.args.iter().map(|arg| c_string(arg.as_str())).collect::<Result<_>>()?,
            env: env.into_iter().map(c_string).collect::<Result<_>>()?,
        };
        if process.no_new_privileges {
            self.install_filter(channel)?;
        }
        Ok(program)
    }

    fn scheduling(&self) -> Result<()> {
        if let Some(scheduler) = &self.process.scheduler {
            process::set_scheduling(scheduling(scheduler)?)
                .context(|| "error setting scheduler".to_owned())?;
        }
        if let Some(priority) = &self.process.io_priority {
            let class = match priority.class.as_str() {
                "IOPRIO_CLASS_RT" => 1,
                "IOPRIO_CLASS_BE" => 2,
                "IOPRIO_CLASS_IDLE" => 3,
                other => return Err(Error::Invalid(format!("invalid ioPriority.Class: {other}"))),
            };
            process::set_io_priority(class, priority.priority)
                .context(|| "failed to set io priority".to_owned())?;
        }
        Ok(())
    }

    fn install_filter(&self, channel: &Channel) -> Result<()> {
        let Some(filter) = self.filter else { return Ok(()) };
        let shown = filter.flags & !cleat_sys::seccomp::NEW_LISTENER;
        log::debug(|| format!("seccomp filter flags: {shown}"));
        let listener = cleat_sys::seccomp::install(&filter.program, filter.flags);
        if let Some(listener) = listener
            .context(|| "unable to init seccomp: error loading seccomp filter".to_owned())?
        {
            channel.send(&Message::Listener(listener)).context(|| "sync seccomp".to_owned())?;
        }
        Ok(())
    }

    /// Drops privileges, changes user, and goes to the working directory: before, since the user may lack the right to the way
    /// there, or after, since root may (on a network filesystem).
    fn take_user(&self, early: Result<()>) -> Result<()> {
        let user = &self.process.user;
        self.capabilities.drop_bounding()?;
        if user.uid != 0 {
            process::set_keep_capabilities(true)
                .context(|| "unable to set keep caps".to_owned())?;
        }
        if let Err(Error::Kernel { errno, .. }) = &early
            && !matches!(errno, Errno::EACCES | Errno::EPERM)
        {
            return early;
        }
        set_user(user)?;
        if user.uid != 0 {
            process::set_keep_capabilities(false)
                .context(|| "unable to clear keep caps".to_owned())?;
        }
        if early.is_err() {
            change_directory(&self.process.cwd)?;
        }
        self.capabilities.apply()
    }
}

impl Program {
    /// Returns the environment, for hooks that have none of their own.
    pub fn env(&self) -> Vec<String> {
        self.env.iter().map(|pair| pair.to_string_lossy().into_owned()).collect()
    }

    /// Becomes the program.
    ///
    /// # Errors
    /// Comes back only with one, worded as runc prints it.
    pub fn execute(&self) -> Result<Infallible> {
        nix::unistd::execve(&self.path, &self.args, &self.env)
            .context(|| format!("exec {}", self.path.to_string_lossy()))
    }
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text)
        .map_err(|_: NulError| Error::Invalid("a zero byte in args or env".to_owned()))
}

fn scheduling(scheduler: &Scheduler) -> Result<Scheduling> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::Invalid(format!("invalid scheduler policy: {other}"))),
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::Invalid(format!("invalid scheduler flag: {other}"))),
        };
    }
    let priority = u32::try_from(scheduler.priority).map_err(|_| {
        Error::Invalid(format!("invalid scheduler priority: {}", scheduler.priority))
    })?;
    let (nice, runtime) = (scheduler.nice, scheduler.runtime);
    let (deadline, period) = (scheduler.deadline, scheduler.period);
    Ok(Scheduling {
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
        ..Scheduling::default()
    })
}

/// Reads `linux.personality`.
///
/// # Errors
/// [`Error::Invalid`] for a domain that is none.
pub fn personality(personality: &Personality) -> Result<u64> {
    if !personality.flags.is_empty() {
        return Err(Error::Invalid("additional flags in personality are not supported".to_owned()));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Error::Invalid(format!("invalid personality domain {other:?}"))),
    }
}

/// Sets the limits. Where the host gives us no CAP_SYS_RESOURCE, a hard limit that cannot be raised stays, and the soft one goes
/// as far as it lets: a container of an engine's defaults runs there too.
fn set_limits(limits: &[Rlimit], privileged: bool) -> Result<()> {
    for limit in limits {
        let number = LIMITS.iter().position(|name| *name == limit.kind);
        let number = number
            .ok_or_else(|| Error::Invalid(format!("invalid rlimit type: {}", limit.kind)))?
            as u32;
        let what = || {
            format!("error setting rlimits for ready process: error setting rlimit type {number}")
        };
        match process::set_limit(number, limit.soft, limit.hard) {
            Err(Errno::EPERM) if !privileged => {
                let (_, hard) = process::limit(number).context(what)?;
                log::warn(&format!("{} stays at {hard}: no CAP_SYS_RESOURCE", limit.kind));
                process::set_limit(number, limit.soft.min(hard), hard).context(what)?;
            }
            other => other.context(what)?,
        }
    }
    Ok(())
}

/// Has nobody trace this process or follow its `/proc` links who has no right to all processes; what it forks is born like that. A
/// program that it becomes is open again.
///
/// # Errors
/// [`Error::Kernel`].
pub fn close_to_others() -> Result<()> {
    process::set_dumpable(false).context(|| "prctl(SET_DUMPABLE)".to_owned())
}

/// Sets this process's `oom_score_adj` through the host's /proc. Lowering it takes CAP_SYS_RESOURCE: without, it stays.
///
/// # Errors
/// [`Error::Kernel`].
pub fn set_oom_score(value: Option<i32>, own_capabilities: u64, procfs: &Procfs) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    match procfs.write("self/oom_score_adj", &value.to_string()) {
        Err(errno) => {
            let error = Error::Kernel { what: "unable to apply oom score adj".to_owned(), errno };
            tolerate_oom_score(error, own_capabilities)
        }
        Ok(()) => Ok(()),
    }
}

/// Lets a refusal pass where this host gives nobody the right.
///
/// # Errors
/// The same one, where it is something else.
pub fn tolerate_oom_score(error: Error, own_capabilities: u64) -> Result<()> {
    match error {
        Error::Kernel { errno: Errno::EACCES | Errno::EPERM, .. }
            if own_capabilities & SYS_RESOURCE == 0 =>
        {
            log::warn("oom_score_adj stays: no CAP_SYS_RESOURCE");
            Ok(())
        }
        other => Err(other),
    }
}

fn change_directory(cwd: &str) -> Result<()> {
    let what = || format!("chdir to cwd ({cwd:?}) set in config.json failed");
    let slash =
        nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .context(what)?;
    // No magic link leads out of the container here (CVE-2024-21626), whatever is still open.
    let directory = open_in_root(slash, Path::new(cwd), libc::O_PATH | libc::O_DIRECTORY, 0);
    match directory {
        // A filter that knows no openat2 is in force already; nothing of the host's is open any more.
        Err(Errno::ENOSYS) => nix::unistd::chdir(cwd).context(what)?,
        directory => fchdir(directory.context(what)?).context(what)?,
    }
    check_inside()
}

/// The second belt: a directory that has no path from the root on is somebody else's.
fn check_inside() -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Error::Invalid(
            "current working directory is outside of container mount namespace root -- possible container breakout detected"
                .to_owned(),
        )),
        Err(errno) => Err(Error::Kernel { what: "getcwd".to_owned(), errno }),
    }
}

fn set_user(user: &User) -> Result<()> {
    own_stdio(user.uid)?;
    let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match setgroups(&groups) {
        // Where /proc/self/setgroups says "deny" there is nothing to set.
        Err(Errno::EPERM) if groups.is_empty() => {}
        other => other.context(|| format!("unable to setgroups {:?}", user.additional_gids))?,
    }
    process::set_user(user.uid, user.gid)
        .context(|| format!("unable to set uid {} and gid {}", user.uid, user.gid))
}

/// Gives the standard descriptors to the user, so that `/dev/stdout` can be opened again.
fn own_stdio(uid: u32) -> Result<()> {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    for (number, fd) in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().enumerate() {
        let Ok(stat) = fstat(fd) else { continue };
        if stat.st_uid == uid || crate::rootfs::is_null(fd).unwrap_or(false) {
            continue;
        }
        match nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None) {
            // A user that the namespace does not map, a read-only file, a pipe of somebody else's.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => {
                return Err(Error::Kernel {
                    what: format!("fchown of descriptor {number}"),
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// Returns the environment: the last value of a name counts, and HOME is looked up if it is missing.
fn environment(process: &Process) -> Result<Vec<String>> {
    let mut env: Vec<&String> = Vec::with_capacity(process.env.len());
    for pair in &process.env {
        let Some((name, _)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::Invalid(format!(
                "invalid environment variable: missing '=' in {pair:?}"
            )));
        };
        let same = |other: &&&String| other.split_once('=').is_some_and(|(other, _)| other == name);
        match env.iter().position(|other| same(&other)) {
            Some(at) => env[at] = pair,
            None => env.push(pair),
        }
    }
    let mut env: Vec<String> = env.into_iter().cloned().collect();
    if !env.iter().any(|pair| pair.starts_with("HOME=") && pair.len() > 5) {
        env.retain(|pair| !pair.starts_with("HOME="));
        env.push(format!("HOME={}", home(process.user.uid)));
    }
    Ok(env)
}

/// Looks a user's home directory up in the container's `/etc/passwd`, which may be anything: a link, a fifo, endless.
fn home(uid: u32) -> String {
    let read = || -> Option<String> {
        let slash = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = openat2::open_in_root(slash, Path::new("/etc/passwd"), flags, 0).ok()?;
        let is_file = fstat(&file).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        let mut text = String::new();
        let file = is_file.then(|| std::fs::File::from(file))?;
        file.take(MAX_PASSWD_BYTES).read_to_string(&mut text).ok()?;
        home_in(&text, uid)
    };
    read().unwrap_or_else(|| "/".to_owned())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    })
}

/// Finds the program as Go's `exec.LookPath` does, whose texts engines turn into exit codes 126 and 127.
fn find_program(name: &str, env: &[String]) -> Result<PathBuf> {
    let fail = |text: String| Error::Invalid(format!("exec: {name:?}: {text}"));
    if name.contains('/') {
        return match check_program(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(text) => Err(fail(text)),
        };
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or("");
    for directory in path.split(':').filter(|_| !path.is_empty() && !name.is_empty()) {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        if check_program(&candidate).is_ok() {
            if !candidate.is_absolute() {
                return Err(fail(
                    "cannot run executable found relative to current directory".to_owned(),
                ));
            }
            return Ok(candidate);
        }
    }
    Err(fail("executable file not found in $PATH".to_owned()))
}

fn check_program(path: &Path) -> std::result::Result<(), String> {
    let stat = nix::sys::stat::stat(path)
        .map_err(|errno| format!("stat {}: {}", path.display(), reason(errno)))?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        // Go wraps both: what it is, and what execve says to it.
        return Err(format!("{}: {}", reason(Errno::EISDIR), reason(Errno::EACCES)));
    }
    match nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
    {
        Ok(()) => Ok(()),
        // A filter may know no faccessat2: then the bits must do.
        Err(Errno::EPERM | Errno::ENOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::EPERM | Errno::ENOSYS) => Err(reason(Errno::EACCES)),
        Err(errno) => Err(reason(errno)),
    }
}

/// Points standard descriptors that are the host's null device to the container's own.
///
/// # Errors
/// [`Error::Kernel`].
pub fn reopen_null(root: impl AsFd) -> Result<()> {
    let what = || "error reopening /dev/null inside container".to_owned();
    let is_host_s = |fd: BorrowedFd<'_>| crate::rootfs::is_null(fd).unwrap_or(false);
    let standard =
        [is_host_s(stdin().as_fd()), is_host_s(stdout().as_fd()), is_host_s(stderr().as_fd())];
    if !standard.contains(&true) {
        return Ok(());
    }
    let null = crate::rootfs::open_null(root, libc::O_RDWR)?;
    if standard[0] {
        dup2_stdin(&null).context(what)?;
    }
    if standard[1] {
        dup2_stdout(&null).context(what)?;
    }
    if standard[2] {
        dup2_stderr(&null).context(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(name: &str, path: &str, text: &str) {
        let error = find_program(name, &[format!("PATH={path}")]).unwrap_err();
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_program_is_not_found_in_go_s_words() {
        fails("nope", "/bin", "exec: \"nope\": executable file not found in $PATH");
        fails("", "/bin", "exec: \"\": executable file not found in $PATH");
        fails("/nope", "/bin", "exec: \"/nope\": stat /nope: no such file or directory");
        fails("/etc/passwd", "", "exec: \"/etc/passwd\": permission denied");
        fails("/etc", "", "exec: \"/etc\": is a directory: permission denied");
    }

    #[test]
    fn a_program_is_found_where_path_says() {
        assert_eq!(
            find_program("sh", &["PATH=/nowhere:/bin".to_owned()]).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn a_directory_outside_the_root_is_noticed() {
        let base = std::env::temp_dir().join(format!("cleat-inside-{}", std::process::id()));
        std::fs::create_dir_all(base.join("root")).unwrap();
        let check = |into: &'static str| {
            let base = base.clone();
            // Root and directory of this thread alone.
            let thread = std::thread::spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
                nix::unistd::chdir(&base.join(into)).unwrap();
                nix::unistd::chroot(&base.join("root")).unwrap();
                check_inside().map_err(|error| error.to_string())
            });
            thread.join().unwrap()
        };
        assert_eq!(check("root"), Ok(()));
        let text = check(".").unwrap_err();
        assert!(text.contains("outside of container mount namespace root"), "{text}");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let env = ["A=1", "HOME=/h", "A=2"].map(str::to_owned).to_vec();
        let process = Process { env, ..Process::default() };
        assert_eq!(environment(&process).unwrap(), ["A=2", "HOME=/h"]);
        let process = Process { env: vec!["=x".to_owned()], ..Process::default() };
        assert!(environment(&process).is_err());
    }

    #[test]
    fn home_is_the_sixth_field_of_the_user_s_line() {
        let passwd =
            "garbage\nroot:x:0:0:root:/root:/bin/sh\nc:x:4294967296:0::/evil:\nd:x:7:7::/d:\n";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 7).as_deref(), Some("/d"));
        assert_eq!(home_in(passwd, 9), None);
    }
}
