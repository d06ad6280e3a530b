//! A container's first process, from its birth to its program.
//!
//! ```text
//! parent            clone3 ────────────────────────────── hooks ── limits ─────────── state, pid file ─▶ exit (create)
//!   │                 ▼                                     ▲        ▲
//! child  cgroups, namespaces, root, mounts, /dev ── Hooks ──┘ Ready ─┘ privileges, user, look-up, channel's end ─▶ fifo ─▶ exec
//! ```
//! It is a copy of the worker, so it knows the configuration without being told. From its birth until it becomes the program it is
//! not dumpable: no process that already is in a joined PID namespace can trace it or reach the host through its `/proc` links
//! (CVE-2016-9962), and what it holds open is closed by `execve` (CVE-2024-21626).

use crate::capability::Masks;
use crate::cgroup::Joiner;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result};
use crate::namespace::{CLONE_NEWTIME, Namespaces};
use crate::process::{self, Finish, Program};
use crate::procfs::Procfs;
use crate::rootfs::layer::Layer;
use crate::rootfs::{Rootfs, Site};
use crate::seccomp::Filter;
use crate::spec::{Process, Spec};
use crate::{affinity, console, hook, log, lsm, start, sysctl};
use cleat_sys::{keyring, link};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Everything that init needs, made by the parent before the clone.
pub struct Plan<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub no_pivot: bool,
    pub rootless: bool,
    pub layers: Option<&'a [Layer]>,
    pub namespaces: &'a Namespaces,
    /// The parent does from outside what it could not do by itself, and says when.
    pub is_admitted: bool,
    pub joiner: Option<&'a Joiner>,
    pub cgroup_paths: &'a BTreeMap<String, String>,
    pub procfs: &'a Procfs,
    pub filter: Option<&'a Filter>,
    pub console: Option<console::Taker>,
    /// Where to wait for `start`; without, for the parent's word.
    pub fifo: Option<OwnedFd>,
    pub preserve: u32,
    pub capabilities: Masks,
    pub own_capabilities: u64,
    pub personality: Option<u64>,
    /// The name of the session keyring, if there is to be one.
    pub keyring: Option<String>,
    /// The state for the hooks that run in here.
    pub state: &'a serde_json::Value,
}

/// Becomes the container's program, or ends.
pub fn run(mut plan: Plan<'_>, channel: Channel) -> ! {
    log::debug(|| "nsexec container setup".to_owned());
    log::debug(|| "child process in init()".to_owned());
    let program = match set_up(&mut plan, &channel) {
        Ok(program) => program,
        Err(error) => {
            if channel.send(&Message::Failed(error.to_string())).is_err() {
                eprintln!("{error}");
            }
            std::process::exit(1);
        }
    };
    // Nobody listens any more but whoever reads the container's stderr.
    let Err(error) = execute(plan, channel, &program);
    eprintln!("{error}");
    std::process::exit(255);
}

/// Waits for the start, and becomes the program.
fn execute(mut plan: Plan<'_>, channel: Channel, program: &Program) -> Result<Infallible> {
    log::debug(|| "init: closing the pipe to signal completion".to_owned());
    if plan.rootless {
        // The user has no right to enter what is not dumpable. There is nothing in here any more that the container has not.
        let open = cleat_sys::process::set_dumpable(true);
        open.context(|| "prctl(SET_DUMPABLE)".to_owned())?;
    }
    match plan.fifo.take() {
        Some(fifo) => {
            // Nobody should need SIGKILL for a container that was never started.
            cleat_sys::process::end_on_signals().context(|| "signal".to_owned())?;
            drop(channel);
            if wait_for_start(fifo)? == start::DIE_WITH_PARENT {
                let set = cleat_sys::process::set_parent_death_signal(libc::SIGKILL);
                set.context(|| "prctl(SET_PDEATHSIG)".to_owned())?;
            }
        }
        None => {
            let told = channel.send(&Message::Settled);
            match told.and_then(|()| channel.receive()) {
                Ok(Some(Message::Go)) => drop(channel),
                _ => std::process::exit(1), // the parent has gone
            }
        }
    }
    let hooks = &plan.spec.hooks.start_container;
    if !hooks.is_empty() {
        let mut state = plan.state.clone();
        state["status"] = "created".into();
        state["pid"] = std::process::id().into();
        hook::run("startContainer", hooks, &state, &program.env())?;
    }
    program.execute()
}

/// Reads one byte; see `start.rs`. The fifo is open for writing as well, so it has no end.
fn wait_for_start(fifo: OwnedFd) -> Result<u8> {
    let mut byte = [0];
    loop {
        match nix::unistd::read(&fifo, &mut byte) {
            Err(cleat_sys::Errno::EINTR) => {}
            other => return other.map(|_| byte[0]).context(|| "read exec fifo".to_owned()),
        }
    }
}

fn set_up(plan: &mut Plan<'_>, channel: &Channel) -> Result<Program> {
    enter_namespaces(plan, channel)?;
    if plan.rootless {
        // Not before: our parent could not write what is not ours. Whoever is in the namespaces already is the same user.
        process::close_to_others()?;
    }
    nix::unistd::setsid().context(|| "setsid".to_owned())?;
    if let Some(name) = &plan.keyring
        && let Err(errno) = keyring::join_session(name)
    {
        // Kernels without keyrings, and a user at the quota: the container runs without one of its own.
        log::warn(&format!("KeyctlJoinSessionKeyring: {}", crate::error::reason(errno)));
    }
    if plan.namespaces.makes(libc::CLONE_NEWNET) {
        link::loopback_up().context(|| "cannot bring the loopback interface up".to_owned())?;
    }
    let spec = plan.spec;
    if !plan.namespaces.has_user() {
        let own = plan.own_capabilities;
        process::set_oom_score(plan.process.oom_score_adj, own, plan.procfs)?;
    }
    set_names(spec)?;
    sysctl::write_all(&spec.linux.sysctl, plan.procfs)?;
    lsm::apply(plan.process, plan.procfs)?;
    let fetch = |index| fetch_source(channel, index);
    let site = site(plan, &fetch);
    let rootfs = Rootfs::prepare(&site)?;
    run_hooks(plan, channel, &rootfs)?;
    rootfs.enter(&site)?;
    if rootfs.own_devices {
        process::reopen_null(&rootfs)?;
    }
    crate::rootfs::open_or_make(
        &rootfs,
        Path::new(&plan.process.cwd),
        crate::rootfs::Kind::Directory,
    )
    .map(drop)
    .context(|| format!("mkdir {}", plan.process.cwd))?;
    if let Some(taker) = plan.console.take() {
        console::open(&rootfs, &taker, plan.process.console_size, true)?;
    }
    rootfs.finish(spec)?;
    drop(rootfs);
    let finish = Finish {
        process: plan.process,
        capabilities: plan.capabilities,
        own_capabilities: plan.own_capabilities,
        filter: plan.filter,
        personality: plan.personality,
        preserve: plan.preserve,
        keep: plan.fifo.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    finish.apply(channel)
}

fn site<'a>(plan: &Plan<'a>, fetch: &'a dyn Fn(usize) -> Result<OwnedFd>) -> Site<'a> {
    Site {
        spec: plan.spec,
        bundle: plan.bundle,
        rootfs: plan.rootfs,
        layers: plan.layers,
        cgroups: plan.cgroup_paths,
        user_namespace: plan.namespaces.has_user(),
        // Before the mappings take effect; 0 in there is somebody else out here.
        rootless: plan.rootless,
        own_mounts: plan.namespaces.all() & libc::CLONE_NEWNS != 0,
        no_pivot: plan.no_pivot,
        fetch,
    }
}

/// Asks the parent for a mount's source; see `create/source.rs`.
fn fetch_source(channel: &Channel, index: usize) -> Result<OwnedFd> {
    let what = || "sync mount source".to_owned();
    channel.send(&Message::Source(index as u32)).context(what)?;
    match channel.receive().context(what)? {
        Some(Message::Tree(tree)) => Ok(tree),
        Some(Message::Failed(text)) => Err(Error::Invalid(text)),
        _ => Err(Error::Init("the parent has gone".to_owned())),
    }
}

/// Joins cgroups first: a new cgroup namespace takes the place where the process is for its root.
fn enter_namespaces(plan: &Plan<'_>, channel: &Channel) -> Result<()> {
    // The parent puts it into its cgroups and writes the mappings: in here there is no right to.
    if plan.is_admitted && !matches!(channel.receive(), Ok(Some(Message::Go))) {
        return Err(Error::Init("the parent has gone".to_owned()));
    }
    if plan.namespaces.has_user() {
        cleat_sys::process::set_user(0, 0)
            .context(|| "failed to become root in the user namespace".to_owned())?;
    } else {
        if let Some(joiner) = plan.joiner {
            joiner.join()?;
        }
        plan.namespaces.enter(!libc::CLONE_NEWPID)?;
    }
    // Whoever called us may have been pinned to some CPU.
    affinity::reset();
    if plan.namespaces.makes(libc::CLONE_NEWCGROUP) {
        unshare(CloneFlags::CLONE_NEWCGROUP)
            .context(|| "failed to unshare cgroup namespace".to_owned())?;
    }
    if plan.namespaces.makes(CLONE_NEWTIME) {
        // Entered by execve; the offsets can be set until then.
        unshare(CloneFlags::from_bits_retain(CLONE_NEWTIME))
            .context(|| "failed to unshare time namespace".to_owned())?;
        if !plan.spec.linux.time_offsets.is_empty() {
            // Not dumpable, and perhaps in a user namespace, we may not write it ourselves.
            channel.send(&Message::Clocks).context(|| "sync time offsets".to_owned())?;
            if !matches!(channel.receive(), Ok(Some(Message::Go))) {
                return Err(Error::Init("the parent has gone".to_owned()));
            }
        }
    }
    Ok(())
}

fn set_names(spec: &Spec) -> Result<()> {
    if !spec.hostname.is_empty() {
        nix::unistd::sethostname(&spec.hostname).context(|| "sethostname".to_owned())?;
    }
    if !spec.domainname.is_empty() {
        cleat_sys::process::set_domain_name(&spec.domainname)
            .context(|| "setdomainname".to_owned())?;
    }
    Ok(())
}

/// The parent runs those of the host, this process those of the container; both while the old root is still there.
fn run_hooks(plan: &Plan<'_>, channel: &Channel, rootfs: &Rootfs) -> Result<()> {
    let hooks = &plan.spec.hooks;
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        channel.send(&Message::Hooks).context(|| "sync hooks".to_owned())?;
        if !matches!(channel.receive(), Ok(Some(Message::Go))) {
            return Err(Error::Init("the parent has gone".to_owned()));
        }
    }
    if hooks.create_container.is_empty() {
        return Ok(());
    }
    nix::unistd::fchdir(rootfs).context(|| "chdir to the rootfs".to_owned())?;
    let mut state = plan.state.clone();
    state["status"] = "creating".into();
    state["pid"] = std::process::id().into();
    hook::run("createContainer", &hooks.create_container, &state, &[])
}
