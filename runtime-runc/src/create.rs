//! `create`: makes everything of a container but its program's start; `run` goes through the same.

use crate::capability::Masks;
use crate::cgroup::Cgroup;
use crate::channel::{self, Channel, Message};
use crate::cli::{self, Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::init::{self, Plan};
use crate::namespace::{self, Namespaces};
use crate::rootfs::layer;
use crate::seccomp::{self, Filter};
use crate::spec::{Process, Spec};
use crate::state::{self, Config, Container, Extra, FIFO, FILTER, State};
use crate::{Global, agent, console, hook, log, process, selfexe, sysctl};
use cleat_sys::clone::{Fork, fork};
use cleat_sys::pidfd::PidFd;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, mkfifo};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "bundle,b",
        "console-socket",
        "pidfd-socket",
        "pid-file",
        "preserve-fds",
        "rootfs-mounts",
    ],
    switches: &["no-pivot", "no-new-keyring"],
    least: 1,
    most: 1,
};

/// The cache of compiled filters below `--root`. A container's name cannot begin like that and contain it.
const FILTER_CACHE: &str = ".seccomp";

/// What the command line says about the new container.
#[derive(Debug)]
pub struct Request {
    pub id: String,
    pub bundle: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve: u32,
    pub layers: Option<Vec<layer::Layer>>,
    pub new_keyring: bool,
    /// Wait in the fifo for `start`; without, for [`Launched::release`].
    pub fifo: bool,
    /// Where the terminal's master goes if there is no socket for it.
    pub own_console: Option<OwnedFd>,
}

impl Request {
    /// Reads the flags that `create` and `run` share.
    ///
    /// # Errors
    /// [`Error`] for values that make no sense.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        arguments.refuse(&["no-pivot", "pidfd-socket"])?;
        let bundle = arguments.path("bundle").unwrap_or_else(|| PathBuf::from("."));
        let bundle = bundle.canonicalize().context(|| format!("chdir {}", bundle.display()))?;
        Ok(Self {
            id: cli::check_id(&arguments.rest[0])?.to_owned(),
            bundle,
            console_socket: arguments.path("console-socket"),
            pid_file: arguments.path("pid-file"),
            preserve: arguments.number("preserve-fds")?.unwrap_or(0),
            layers: arguments.value("rootfs-mounts").map(layer::parse).transpose()?,
            new_keyring: !arguments.has("no-new-keyring"),
            fifo: true,
            own_console: None,
        })
    }
}

/// Runs the verb.
///
/// # Errors
/// [`Error`]; nothing of the container is left then.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    selfexe::protect()?;
    let request = Request::new(&Arguments::parse_verb("create", words, &SYNTAX)?)?;
    let spec = Spec::load(&request.bundle)?;
    check_terminal(&spec, &request, true)?;
    launch(global, request, &spec).map(drop)
}

/// A terminal needs somebody who takes its master, and the other way round.
///
/// # Errors
/// [`Error::Invalid`] in runc's words.
pub fn check_terminal(spec: &Spec, request: &Request, detach: bool) -> Result<()> {
    let terminal = spec.process()?.terminal;
    let refuse = |text: &str| Err(Error::Invalid(text.to_owned()));
    match (terminal, request.console_socket.is_some()) {
        (true, false) if detach => {
            refuse("cannot allocate tty if runc will detach without setting console socket")
        }
        (false, true) => {
            refuse("cannot use console socket if runc will not detach or allocate tty")
        }
        _ => Ok(()),
    }
}

/// A container whose init is set up and waits.
#[derive(Debug)]
pub struct Launched {
    pub container: Container,
    pub pid: Pid,
    pub pidfd: PidFd,
    channel: Channel,
}

impl Launched {
    /// Lets init become the program, where it waits for us and not in the fifo.
    ///
    /// # Errors
    /// Where it has died.
    pub fn release(self) -> Result<(Container, Pid, PidFd)> {
        self.channel
            .send(&Message::Go)
            .context(|| "container process is already dead".to_owned())?;
        Ok((self.container, self.pid, self.pidfd))
    }
}

/// What has been made so far; taken back when it is dropped before [`Undo::keep`].
#[derive(Default)]
struct Undo {
    directory: Option<PathBuf>,
    cgroup: Option<Cgroup>,
    init: Option<(Pid, PidFd)>,
}

impl Undo {
    fn keep(mut self) -> (Option<PathBuf>, Option<Cgroup>, Option<(Pid, PidFd)>) {
        (self.directory.take(), self.cgroup.take(), self.init.take())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((pid, pidfd)) = self.init.take() {
            let _ = pidfd.kill();
            let _ = waitpid(pid, None);
        }
        if let Some(cgroup) = self.cgroup.take() {
            let done = cgroup.kill().and_then(|()| cgroup.delete());
            if let Err(error) = done {
                log::warn(&format!("unable to destroy container cgroup: {error}"));
            }
        }
        if let Some(directory) = self.directory.take() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// Makes the container.
///
/// # Errors
/// [`Error`]; what was made is taken back.
pub fn launch(global: &Global, mut request: Request, spec: &Spec) -> Result<Launched> {
    let process = with_listen_fds(spec.process()?, &mut request.preserve)?;
    let rootfs = spec.root.as_ref().map(|root| request.bundle.join(&root.path)).unwrap_or_default();
    if request.layers.is_none() && !rootfs.is_dir() {
        return Err(Error::Invalid(format!(
            "invalid rootfs: stat {}: no such file or directory",
            rootfs.display()
        )));
    }
    let namespaces = Namespaces::new(&spec.linux)?;
    sysctl::check(spec, &namespaces)?;
    let own = cleat_sys::capability::get().context(|| "capget".to_owned())?.permitted;
    let (capabilities, unknown) =
        Masks::new(&process.capabilities.clone().unwrap_or_default(), own);
    if !unknown.is_empty() {
        log::warn(&format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
    }
    let personality = spec.linux.personality.as_ref().map(process::personality).transpose()?;
    let filter = compile(global, spec)?;
    let console = match (&request.console_socket, request.own_console.take()) {
        (Some(path), _) => Some(console::connect(path)?),
        (None, own) => own,
    };

    let mut undo = Undo::default();
    let directory = make_directory(&global.root, &request.id)?;
    undo.directory = Some(directory.clone());
    let fifo = if request.fifo { Some(make_fifo(&directory)?) } else { None };
    let cgroup = Cgroup::new(spec.linux.cgroups_path.as_deref(), &request.id)?;
    if cgroup.exists() {
        let count = cgroup.pids()?.len();
        if count > 0 {
            return Err(Error::Invalid(format!(
                "container's cgroup is not empty: {count} process(es) found"
            )));
        }
    }
    cgroup.create()?;
    let cgroup_paths = cgroup.paths();
    let joiner = cgroup.joiner()?;
    undo.cgroup = Some(cgroup);
    let extra = Extra {
        oci_version: spec.oci_version.clone(),
        bundle: request.bundle.clone(),
        annotations: spec.annotations.clone(),
        namespaces: namespaces.all(),
        capabilities: process.capabilities.clone(),
        filter_flags: filter.as_ref().map(|filter| filter.flags),
        filter_listener: filter.as_ref().and_then(|filter| filter.listener_path.clone()),
        filter_metadata: filter.as_ref().and_then(|filter| filter.listener_metadata.clone()),
        new_keyring: request.new_keyring,
        personality,
        poststart_hooks: !spec.hooks.poststart.is_empty(),
        poststop_hooks: !spec.hooks.poststop.is_empty(),
    };
    let document = state::document(&extra, &request.id, "creating", 0);
    let (channel, child_channel) = channel::pair()?;
    let plan = Plan {
        spec,
        process: &process,
        rootfs: &rootfs,
        layers: request.layers.as_deref(),
        namespaces: &namespaces,
        joiner: Some(&joiner),
        cgroup_paths: &cgroup_paths,
        filter: filter.as_ref(),
        console,
        fifo,
        preserve: request.preserve,
        capabilities,
        own_capabilities: own,
        personality,
        keyring: request.new_keyring.then(|| format!("_ses.{}", request.id)),
        state: &document,
    };
    let (init, channel) = start_init(plan, channel, child_channel, &mut undo)?;

    let start = state::stat_of(init.as_raw()).ok_or_else(died)?.start;
    let container = Container {
        directory,
        state: State {
            id: request.id.clone(),
            init_process_pid: init.as_raw(),
            init_process_start: start,
            created: log::rfc3339(SystemTime::now(), true),
            config: Config { rootfs: rootfs.clone(), labels: labels(spec, &request.bundle) },
            cgroup_paths: cgroup_paths.clone(),
            namespace_paths: namespace::paths(init.as_raw()).collect(),
            cleat: extra,
        },
    };
    if let Some(filter) = &filter {
        state::write_whole(&container.directory.join(FILTER), &filter.program)?;
    }
    container.save()?;
    if namespaces.has_user() {
        admit(spec, &process, own, &namespaces, init, undo.cgroup.as_ref())?;
        channel.send(&Message::Go).context(died_at)?;
    }
    follow(&channel, spec, &container, undo.cgroup.as_ref(), !request.fifo)
        .map_err(|error| explain(error, init))?;
    if let Some(path) = &request.pid_file {
        state::write_whole(path, init.to_string().as_bytes())?;
    }
    let (_, _, init) = undo.keep();
    let (pid, pidfd) = init.ok_or_else(died)?;
    Ok(Launched { container, pid, pidfd, channel })
}

fn died() -> Error {
    Error::Init("unable to start container process: container process is already dead".to_owned())
}

fn died_at() -> String {
    "unable to start container process: container process is already dead".to_owned()
}

/// Passes on what a service manager passed to us, `sd_listen_fds(3)`.
///
/// # Errors
/// Where a descriptor that is to be preserved is not open.
pub fn with_listen_fds(process: &Process, preserve: &mut u32) -> Result<Process> {
    let mut process = process.clone();
    let listen =
        std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if listen > 0 {
        process.env.push(format!("LISTEN_FDS={listen}"));
        process.env.push("LISTEN_PID=1".to_owned());
        *preserve = preserve.saturating_add(listen);
    }
    for number in 3..preserve.saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let text = format!("unable to find preserved-fd {} (fd {number})", number - 3);
            return Err(Error::Invalid(text));
        }
    }
    Ok(process)
}

fn compile(global: &Global, spec: &Spec) -> Result<Option<Filter>> {
    let Some(profile) = &spec.linux.seccomp else { return Ok(None) };
    let filter = seccomp::cached(&global.root.join(FILTER_CACHE), profile);
    filter.map(Some).map_err(|error| Error::Invalid(format!("unable to init seccomp: {error}")))
}

fn make_directory(root: &Path, id: &str) -> Result<PathBuf> {
    let directory = root.join(id);
    let make = || std::fs::DirBuilder::new().mode(0o711).create(&directory);
    let made = match make() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .context(|| format!("mkdir {}", root.display()))?;
            make()
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists),
        made => made.context(|| format!("mkdir {}", directory.display())).map(|()| directory),
    }
}

/// Opened for both directions, so that a reader never sees the end, and a writer knows that init is there.
fn make_fifo(directory: &Path) -> Result<OwnedFd> {
    let what = || "unable to setup exec fifo".to_owned();
    let path = directory.join(FIFO);
    mkfifo(&path, Mode::from_bits_truncate(0o600)).context(what)?;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).context(what)?;
    Ok(file.into())
}

fn labels(spec: &Spec, bundle: &Path) -> Vec<String> {
    let bundle = format!("bundle={}", bundle.display());
    spec.annotations.iter().map(|(key, value)| format!("{key}={value}")).chain([bundle]).collect()
}

/// Clones init, by way of a process in between where a user namespace decides what may be joined or made.
fn start_init(
    plan: Plan<'_>,
    channel: Channel,
    child_channel: Channel,
    undo: &mut Undo,
) -> Result<(Pid, Channel)> {
    let what = || "unable to start init".to_owned();
    let namespaces = plan.namespaces;
    let later = libc::CLONE_NEWCGROUP | namespace::CLONE_NEWTIME;
    let flags = namespaces.new & !later;
    if namespaces.has_user() {
        return start_in_user_namespace(plan, channel, child_channel, flags, undo);
    }
    let cgroup = plan.joiner.and_then(|joiner| joiner.clone_into());
    let joins_pid = namespaces.joined.iter().any(|(flag, _)| *flag == libc::CLONE_NEWPID);
    let own =
        joins_pid.then(|| std::fs::File::open("/proc/self/ns/pid")).transpose().context(what)?;
    namespaces.enter(libc::CLONE_NEWPID)?;
    match fork(flags, cgroup).context(what)? {
        Fork::Child => {
            drop(channel);
            // What was made is the parent's to take back.
            std::mem::forget(std::mem::take(undo));
            init::run(plan, child_channel)
        }
        Fork::Parent { pid, pidfd } => {
            undo.init = Some((pid, pidfd));
            if let Some(own) = own {
                // Hooks are for the host's namespace again.
                cleat_sys::process::set_namespaces(&own, libc::CLONE_NEWPID).context(what)?;
            }
            Ok((pid, channel))
        }
    }
}

fn start_in_user_namespace(
    plan: Plan<'_>,
    channel: Channel,
    child_channel: Channel,
    flags: i32,
    undo: &mut Undo,
) -> Result<(Pid, Channel)> {
    let what = || "unable to start init".to_owned();
    match fork(0, None).context(what)? {
        Fork::Child => {
            drop(channel);
            std::mem::forget(std::mem::take(undo));
            // Others' namespaces first, while we still have the right to; the user namespace last.
            let entered = plan
                .namespaces
                .enter(!libc::CLONE_NEWUSER)
                .and_then(|()| plan.namespaces.enter(libc::CLONE_NEWUSER));
            let forked =
                entered.and_then(|()| fork(flags | libc::CLONE_PARENT, None).context(what));
            match forked {
                Ok(Fork::Child) => init::run(plan, child_channel),
                Ok(Fork::Parent { pid, .. }) => {
                    let _ = child_channel.send(&Message::Born(pid.as_raw()));
                    std::process::exit(0)
                }
                Err(error) => {
                    let _ = child_channel.send(&Message::Failed(error.to_string()));
                    std::process::exit(1)
                }
            }
        }
        Fork::Parent { pid: between, .. } => {
            drop((plan, child_channel));
            let first = channel.receive().context(what)?;
            let _ = waitpid(between, None);
            match first {
                Some(Message::Born(pid)) => {
                    let pid = Pid::from_raw(pid);
                    undo.init = Some((pid, PidFd::open(pid).context(what)?));
                    Ok((pid, channel))
                }
                Some(Message::Failed(text)) => {
                    Err(Error::Init(format!("unable to start container process: {text}")))
                }
                _ => Err(died()),
            }
        }
    }
}

/// Does from outside what a process in a user namespace cannot do for itself.
fn admit(
    spec: &Spec,
    process: &Process,
    own: u64,
    namespaces: &Namespaces,
    init: Pid,
    cgroup: Option<&Cgroup>,
) -> Result<()> {
    if let Some(cgroup) = cgroup {
        cgroup.add(init)?;
    }
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{init}/{file}");
        std::fs::write(&path, text).context(|| format!("failed to write {path}"))
    };
    if namespaces.makes(libc::CLONE_NEWUSER) {
        write("gid_map", &namespace::id_map(&spec.linux.gid_mappings))?;
        write("uid_map", &namespace::id_map(&spec.linux.uid_mappings))?;
    }
    if let Some(score) = process.oom_score_adj
        && let Err(error) = write("oom_score_adj", &score.to_string())
    {
        process::tolerate_oom_score(error, own)?;
    }
    Ok(())
}

/// Goes along with init until it is set up.
fn follow(
    channel: &Channel,
    spec: &Spec,
    container: &Container,
    cgroup: Option<&Cgroup>,
    released_by_us: bool,
) -> Result<()> {
    let limit = || -> Result<()> {
        if let (Some(cgroup), Some(resources)) = (cgroup, &spec.linux.resources) {
            cgroup.apply(resources)?;
        }
        Ok(())
    };
    let mut ready = false;
    loop {
        match channel.receive().context(|| "sync with init".to_owned())? {
            Some(Message::Hooks) => {
                let state = container.document("creating", container.state.init_process_pid);
                hook::run("prestart", &spec.hooks.prestart, &state, &[])?;
                hook::run("createRuntime", &spec.hooks.create_runtime, &state, &[])?;
                channel.send(&Message::Go).context(died_at)?;
            }
            Some(Message::Ready) => {
                limit()?;
                ready = true;
            }
            Some(Message::Listener(listener)) => {
                agent::hand_over(&container.state, listener.as_fd(), None)?
            }
            Some(Message::Failed(text)) => return Err(Error::Init(text)),
            Some(Message::Settled) if released_by_us => return Ok(()),
            None if ready && !released_by_us => return Ok(()),
            _ => return Err(Error::State(String::new())),
        }
    }
}

/// Words a failure of init: what it said, or what became of it.
fn explain(error: Error, init: Pid) -> Error {
    match error {
        Error::Init(text) => Error::Init(format!(
            "unable to start container process: error during container init: {text}"
        )),
        Error::State(_) => {
            let text = match waitpid(init, None) {
                Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => {
                    "container init was OOM-killed (memory limit too low?)"
                }
                _ => "error during container init: it ended without a word",
            };
            Error::Init(format!("unable to start container process: {text}"))
        }
        other => Error::Init(format!("unable to start container process: {other}")),
    }
}
