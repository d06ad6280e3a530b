//! `exec`: one more process in a running container.
//!
//! The child joins the cgroups by itself, then every namespace of the container's init with one `setns(pidfd, …)`; nothing is
//! looked up by path. Like init it is not dumpable from its birth until it has become the program.

use crate::capability::Masks;
use crate::cgroup::{Cgroup, Joiner, Unit};
use crate::channel::{self, Channel, Message};
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::foreground::{self, Signals};
use crate::process::{self, Finish};
use crate::procfs::Procfs;
use crate::seccomp::Filter;
use crate::spec::{self, Process, Spec, User};
use crate::state::{self, Container, FILTER, Status};
use crate::{Global, affinity, agent, console, create, log, lsm, rootless, selfexe};
use cleat_sys::clone::{Fork, fork};
use cleat_sys::pidfd::PidFd;
use cleat_sys::process::set_namespaces;
use cleat_sys::{Errno, keyring};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "console-socket",
        "pidfd-socket",
        "cwd",
        "env,e",
        "user,u",
        "additional-gids,g",
        "process,p",
        "pid-file",
        "process-label",
        "apparmor",
        "cap,c",
        "preserve-fds",
        "cgroup",
    ],
    switches: &["tty,t", "detach,d", "no-new-privs", "ignore-paused"],
    least: 1,
    most: usize::MAX,
};

/// Runs the verb; returns the exit code for this process.
///
/// # Errors
/// [`Error`] in runc's words.
pub fn run(global: &Global, words: &[String]) -> Result<i32> {
    selfexe::protect(&global.root)?;
    let arguments = Arguments::parse_verb("exec", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    match container.status()? {
        Status::Stopped => return Err(stopped()),
        Status::Paused if !arguments.has("ignore-paused") => {
            let text = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Error::State(text.to_owned()));
        }
        _ => {}
    }
    let mut preserve = arguments.number("preserve-fds")?.unwrap_or(0);
    let process = create::with_listen_fds(&process_of(&arguments, &container)?, &mut preserve)?;
    process.check()?;
    let detach = arguments.has("detach");
    let (console, ours) = open_console(&arguments, &process, detach)?;
    let init = container.open_init()?.ok_or_else(stopped)?;
    let cgroup = cgroup_of(&arguments, &container)?;
    // Into a user's unit only systemd may move what comes from elsewhere.
    let joiner =
        cgroup.as_ref().filter(|_| !is_moved(&container)).map(Cgroup::joiner).transpose().map_err(
            |error| {
                let pid = std::process::id();
                Error::State(format!("error adding pid {pid} to cgroups: {}", Error::from(error)))
            },
        )?;
    let filter = filter_of(&container)?;
    let own = rootless::capabilities()?;
    let none = Default::default();
    let lists = process
        .capabilities
        .as_ref()
        .or(container.state.cleat.capabilities.as_ref())
        .unwrap_or(&none);
    let (capabilities, unknown) = Masks::new(lists, own);
    if !unknown.is_empty() {
        log::warn(&format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
    }
    let child = Child {
        container: &container,
        process: &process,
        init: &init,
        rootless: rootless::is_rootless(),
        joiner: joiner.as_ref(),
        console,
        finish: Finish {
            process: &process,
            capabilities,
            own_capabilities: own,
            filter: filter.as_ref(),
            personality: container.state.cleat.personality,
            preserve,
            keep: Vec::new(),
        },
    };
    let (pid, pidfd) = start(child, cgroup.as_ref())?;
    if let Some(path) = arguments.path("pidfd-socket") {
        create::hand_over_pidfd(&path, Some(&pidfd))?;
    }
    if let Some(path) = arguments.path("pid-file") {
        state::write_whole(&path, pid.to_string().as_bytes())?;
    }
    if detach {
        return Ok(0);
    }
    let signals = Signals::block()?;
    let terminal = ours.as_ref().map(foreground::receive_terminal).transpose()?;
    foreground::wait(pid, &pidfd, &signals, terminal)
}

fn stopped() -> Error {
    Error::State("cannot exec in a stopped container".to_owned())
}

/// Returns the process of `--process`, or that of the configuration with what the flags change.
fn process_of(arguments: &Arguments, container: &Container) -> Result<Process> {
    if let Some(path) = arguments.path("process") {
        return spec::read_json(&path);
    }
    if arguments.rest.len() < 2 {
        return Err(Error::Invalid("exec args cannot be empty".to_owned()));
    }
    let spec = Spec::load(&container.state.cleat.bundle)?;
    let mut process = spec.process()?.clone();
    process.args = arguments.rest[1..].to_vec();
    process.terminal = arguments.has("tty");
    process.no_new_privileges |= arguments.has("no-new-privs");
    if let Some(cwd) = arguments.value("cwd") {
        process.cwd = cwd.to_owned();
    }
    if let Some(profile) = arguments.value("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = arguments.value("process-label") {
        process.selinux_label = label.to_owned();
    }
    process.env.extend(arguments.all("env").iter().cloned());
    if let Some(user) = arguments.value("user") {
        (process.user.uid, process.user.gid) = parse_user(user, &process.user)?;
    }
    for gid in arguments.all("additional-gids") {
        let wrong = || Error::Usage(format!("invalid value {gid:?} for flag -g: parse error"));
        process.user.additional_gids.push(gid.parse().map_err(|_| wrong())?);
    }
    let added = arguments.all("cap");
    if !added.is_empty() {
        let lists = process.capabilities.get_or_insert_default();
        for list in [&mut lists.bounding, &mut lists.effective, &mut lists.permitted] {
            list.extend(added.iter().cloned());
        }
        // Ambient ones have to be inheritable, to which nothing is added here.
        if !lists.inheritable.is_empty() {
            lists.ambient.extend(added.iter().cloned());
        }
    }
    Ok(process)
}

/// Reads `uid[:gid]`; names are for those who know the image.
fn parse_user(text: &str, default: &User) -> Result<(u32, u32)> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, number(gid)?)),
        None => Ok((number(text)?, default.gid)),
    }
}

fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        Error::Invalid(format!("parsing {text:?} as a user or group id: invalid number"))
    })
}

/// Returns the socket for the terminal's master, and our end of it where nobody else takes it.
fn open_console(
    arguments: &Arguments,
    process: &Process,
    detach: bool,
) -> Result<(Option<console::Taker>, Option<OwnedFd>)> {
    match (process.terminal, arguments.path("console-socket")) {
        (true, Some(path)) => Ok((Some(console::Taker::connect(&path)?), None)),
        (true, None) if detach => Err(Error::Invalid(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        )),
        (true, None) => {
            let (taker, ours) = console::Taker::worker()?;
            Ok((Some(taker), Some(ours)))
        }
        (false, Some(_)) => Err(Error::Invalid(
            "cannot use console socket if runc will not detach or allocate tty".to_owned(),
        )),
        (false, None) => Ok((None, None)),
    }
}

/// Returns the container's cgroup, or those below it that `--cgroup` names.
fn cgroup_of(arguments: &Arguments, container: &Container) -> Result<Option<Cgroup>> {
    let Some(cgroup) = container.cgroup().transpose()? else { return Ok(None) };
    Ok(Some(cgroup.below(arguments.all("cgroup"))?))
}

fn filter_of(container: &Container) -> Result<Option<Filter>> {
    let extra = &container.state.cleat;
    let Some(flags) = extra.filter_flags else { return Ok(None) };
    let path = container.directory.join(FILTER);
    let mut program = std::fs::read(&path).context(|| format!("open {}", path.display()))?;
    if let Some(length) = extra.filter_bytes {
        program.truncate(length as usize);
    }
    Ok(Some(Filter {
        program,
        flags,
        listener_path: extra.filter_listener.clone(),
        listener_metadata: extra.filter_metadata.clone(),
    }))
}

struct Child<'a> {
    container: &'a Container,
    process: &'a Process,
    init: &'a PidFd,
    rootless: bool,
    joiner: Option<&'a Joiner>,
    console: Option<console::Taker>,
    finish: Finish<'a>,
}

/// Starts the process; returns when it has become the program, or has failed to.
fn start(child: Child<'_>, cgroup: Option<&Cgroup>) -> Result<(nix::unistd::Pid, PidFd)> {
    let what = || "unable to start container process".to_owned();
    let (channel, child_channel) = channel::pair()?;
    let namespaces = child.container.state.cleat.namespaces;
    let user = namespaces & libc::CLONE_NEWUSER != 0;
    let container = child.container;
    if !child.rootless {
        process::close_to_others()?;
    }
    // Who is not root has rights in the container's namespaces only once they are in that of its users.
    let first = if child.rootless { libc::CLONE_NEWUSER } else { 0 } & namespaces;
    if (namespaces & libc::CLONE_NEWPID) | first != 0 {
        // A PID namespace is entered by children only.
        set_namespaces(child.init, (namespaces & libc::CLONE_NEWPID) | first).context(what)?;
    }
    // Somebody in a user namespace of its own could not leave our cgroup: then we move it.
    let into = if user { None } else { child.joiner.and_then(|joiner| joiner.clone_into()) };
    let forked = match (fork(0, into), cgroup) {
        (Err(Errno::EBUSY), Some(cgroup)) if into.is_some() => {
            let beside = cgroup.of_member(init_of(container))?.joiner()?;
            fork(0, beside.clone_into())
        }
        (forked, _) => forked,
    };
    let (pid, pidfd) = match forked {
        Err(Errno::ENOMEM) if namespaces & libc::CLONE_NEWPID != 0 => return Err(stopped()),
        forked => match forked.context(what)? {
            Fork::Child => {
                drop(channel);
                become_program(child, child_channel)
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        },
    };
    drop((child, child_channel));
    let done = (|| {
        if user || is_moved(container) {
            if let Some(cgroup) = cgroup {
                cgroup.add(pid).or_else(|_| cgroup.of_member(init_of(container))?.add(pid))?;
            }
            channel.send(&Message::Go).context(what)?;
        }
        follow(&channel, container, pid.as_raw())
    })();
    if let Err(error) = done {
        let _ = pidfd.kill();
        let _ = waitpid(pid, None);
        return Err(error);
    }
    Ok((pid, pidfd))
}

/// Returns whether the process cannot join the cgroup by itself.
fn is_moved(container: &Container) -> bool {
    container.state.cleat.unit.as_ref().is_some_and(Unit::is_user_s)
}

fn init_of(container: &Container) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(container.state.init_process_pid)
}

fn follow(channel: &Channel, container: &Container, pid: i32) -> Result<()> {
    let mut ready = false;
    loop {
        match channel.receive().context(|| "sync with the process".to_owned())? {
            Some(Message::Ready) => ready = true,
            Some(Message::Listener(listener)) => {
                agent::hand_over(&container.state, listener.as_fd(), Some(pid))?
            }
            Some(Message::Failed(text)) => {
                return Err(Error::Init(format!("unable to start container process: {text}")));
            }
            None if ready => return Ok(()),
            _ => {
                let text = "unable to start container process: it ended without a word (possibly OOM-killed)";
                return Err(Error::Init(text.to_owned()));
            }
        }
    }
}

/// Becomes the program, or ends.
fn become_program(mut child: Child<'_>, channel: Channel) -> ! {
    match prepare(&mut child, &channel) {
        Err(error) => {
            if channel.send(&Message::Failed(error.to_string())).is_err() {
                eprintln!("{error}");
            }
            std::process::exit(1)
        }
        Ok(program) => {
            // The parent learns of success by the end of the channel, which execve brings about; of failure there is nobody to
            // tell but the reader of stderr, as with runc.
            log::debug(|| "setns_init: about to exec".to_owned());
            let Err(error): Result<Infallible> = program.execute();
            drop(channel);
            eprintln!("{error}");
            std::process::exit(255)
        }
    }
}

fn prepare(child: &mut Child<'_>, channel: &Channel) -> Result<process::Program> {
    let procfs = Procfs::open().context(|| "open /proc".to_owned())?;
    let own = child.finish.own_capabilities;
    if child.rootless {
        // Of a process that is not dumpable only root may write it.
        process::set_oom_score(child.process.oom_score_adj, own, &procfs)?;
        process::close_to_others()?;
    }
    log::debug(|| "nsexec container setup".to_owned());
    log::debug(|| "child process in init()".to_owned());
    let affinity = child.process.exec_cpu_affinity.clone().unwrap_or_default();
    if !affinity.initial.is_empty() {
        affinity::set(&affinity.initial)?;
    }
    let namespaces = child.container.state.cleat.namespaces;
    let user = namespaces & libc::CLONE_NEWUSER != 0;
    if user || is_moved(child.container) {
        if !matches!(channel.receive(), Ok(Some(Message::Go))) {
            return Err(Error::Init("the parent has gone".to_owned()));
        }
    } else if let Some(joiner) = child.joiner {
        joiner.join()?;
    }
    if !affinity.last.is_empty() {
        affinity::set(&affinity.last)?;
    } else if affinity.initial.is_empty() {
        // Whoever called us may have been pinned to some CPU.
        affinity::reset();
    }
    if !child.rootless {
        process::set_oom_score(child.process.oom_score_adj, own, &procfs)?;
    }
    lsm::apply(child.process, &procfs)?;
    drop(procfs);
    let entered = if child.rootless { libc::CLONE_NEWUSER } else { 0 };
    let kinds = namespaces & !libc::CLONE_NEWPID & !entered;
    match set_namespaces(child.init, kinds) {
        Err(Errno::ESRCH) => return Err(stopped()),
        other => other.context(|| "failed to setns".to_owned())?,
    }
    if user {
        cleat_sys::process::set_user(0, 0)
            .context(|| "failed to become root in the user namespace".to_owned())?;
    }
    nix::unistd::setsid().context(|| "setsid".to_owned())?;
    if child.container.state.cleat.new_keyring
        && let Err(errno) = keyring::join_session(&format!("_ses.{}", child.container.state.id))
    {
        log::warn(&format!("KeyctlJoinSessionKeyring: {}", crate::error::reason(errno)));
    }
    if let Some(taker) = child.console.take() {
        let slash = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| "open /".to_owned())?;
        console::open(slash, &taker, child.process.console_size, false)?;
    }
    child.finish.apply(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_two_numbers_or_one() {
        let default = User { uid: 1, gid: 2, ..User::default() };
        assert_eq!(parse_user("5:6", &default).unwrap(), (5, 6));
        assert_eq!(parse_user("5", &default).unwrap(), (5, 2));
        assert!(
            parse_user("root", &default).is_err() && parse_user("4294967296", &default).is_err()
        );
    }
}
