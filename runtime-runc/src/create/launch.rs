//! The steps of making a container, each with its undo.

use super::follow::{self, Follower};
use super::{Request, birth, with_listen_fds};
use crate::capability::Masks;
use crate::cgroup::{Cgroup, Joiner, Unit, is_denied};
use crate::channel::{self, Channel, Message};
use crate::console::Taker;
use crate::error::{Context, Error, Result};
use crate::init::Plan;
use crate::namespace::{self, Namespaces};
use crate::procfs::Procfs;
use crate::seccomp::{self, Cached};
use crate::spec::{Process, Spec};
use crate::state::{self, Config, Container, Extra, FIFO, FILTER, State};
use crate::{Global, fault, log, process, rootless, sysctl};
use cleat_sys::fdpass;
use cleat_sys::pidfd::PidFd;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, linkat, mkfifo};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The cache of compiled filters below `--root`. A container's name cannot begin like that and contain it.
const FILTER_CACHE: &str = ".seccomp";

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
    pub fn release(mut self) -> Result<(Container, Pid, PidFd)> {
        self.container.state.cleat.starting = false;
        self.container.save()?;
        self.channel
            .send(&Message::Go)
            .context(|| "container process is already dead".to_owned())?;
        Ok((self.container, self.pid, self.pidfd))
    }
}

/// What has been made so far; taken back when it is dropped before [`Undo::keep`].
#[derive(Default)]
pub struct Undo {
    pub directory: Option<PathBuf>,
    pub cgroup: Option<Cgroup>,
    pub init: Option<(Pid, PidFd)>,
    /// There is a state by which the rest can be removed later, and somebody who wants that.
    pub keep_state: bool,
}

impl Undo {
    /// Leaves everything as it is.
    pub fn keep(mut self) -> (Option<PathBuf>, Option<Cgroup>, Option<(Pid, PidFd)>) {
        (self.directory.take(), self.cgroup.take(), self.init.take())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((pid, pidfd)) = self.init.take() {
            let _ = pidfd.kill();
            let _ = waitpid(pid, None);
        }
        if self.keep_state {
            return;
        }
        if let Some(cgroup) = self.cgroup.take() {
            let done = cgroup.kill().and_then(|()| cgroup.delete());
            if let Err(error) = done {
                log::warn(&format!("unable to destroy container cgroup: {error}"));
            }
        }
        if let Some(directory) = self.directory.take() {
            let _ = state::remove_directory(&directory);
        }
    }
}

/// What follows from the configuration and the command line before anything is made.
pub struct Draft {
    process: Process,
    pub rootfs: PathBuf,
    namespaces: Namespaces,
    own_capabilities: u64,
    capabilities: Masks,
    personality: Option<u64>,
    filter: Option<Cached>,
    console: Option<Taker>,
}

impl Draft {
    /// Decides all of it; opens what is to be joined, and connects to the console socket.
    ///
    /// # Errors
    /// [`Error`] for what cannot be.
    pub fn new(global: &Global, request: &mut Request, spec: &Spec) -> Result<Self> {
        let process = with_listen_fds(spec.process()?, &mut request.preserve)?;
        let root = spec.root.as_ref().map(|root| &root.path);
        let rootfs = root.map(|root| request.bundle.join(root)).unwrap_or_default();
        if request.layers.is_none() && !rootfs.is_dir() {
            let text = "no such file or directory";
            return Err(Error::Invalid(format!(
                "invalid rootfs: stat {}: {text}",
                rootfs.display()
            )));
        }
        let namespaces = Namespaces::new(&spec.linux)?;
        sysctl::check(spec, &namespaces)?;
        rootless::check(spec)?;
        let own_capabilities = rootless::capabilities()?;
        let (capabilities, unknown) =
            Masks::new(&process.capabilities.clone().unwrap_or_default(), own_capabilities);
        if !unknown.is_empty() {
            log::warn(&format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
        }
        let personality = spec.linux.personality.as_ref().map(process::personality).transpose()?;
        let console = match (&request.console_socket, request.own_console.take()) {
            (Some(path), _) => Some(Taker::connect(path)?),
            (None, own) => own,
        };
        let filter = compile(global, spec)?;
        Ok(Self {
            process,
            rootfs,
            namespaces,
            own_capabilities,
            capabilities,
            personality,
            filter,
            console,
        })
    }

    /// Returns what later verbs need to know of it.
    pub fn extra(&self, request: &Request, spec: &Spec) -> Extra {
        let filter = self.filter.as_ref().map(|cached| &cached.filter);
        Extra {
            oci_version: spec.oci_version.clone(),
            bundle: request.bundle.clone(),
            annotations: spec.annotations.clone(),
            namespaces: self.namespaces.all(),
            capabilities: self.process.capabilities.clone(),
            filter_flags: filter.map(|filter| filter.flags),
            filter_bytes: filter.map(|filter| filter.program.len() as u64),
            filter_listener: filter.and_then(|filter| filter.listener_path.clone()),
            filter_metadata: filter.and_then(|filter| filter.listener_metadata.clone()),
            new_keyring: request.new_keyring,
            personality: self.personality,
            starting: !request.fifo,
            poststart_hooks: !spec.hooks.poststart.is_empty(),
            poststop_hooks: !spec.hooks.poststop.is_empty(),
            unit: None,
        }
    }

    /// Leaves the filter in the container's directory, for `exec`: a link to the very file that it was read from (which nobody
    /// changes; another one may have taken its name by now), or a file of its own.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn keep_filter(&self, directory: &Path) -> Result<()> {
        let Some(cached) = &self.filter else { return Ok(()) };
        let path = directory.join(FILTER);
        let link = |file| linkat(file, "", AT_FDCWD, &path, AtFlags::AT_EMPTY_PATH);
        match cached.file.as_ref().map(link) {
            Some(Ok(())) => Ok(()),
            _ => state::write_whole(&path, &cached.filter.program),
        }
    }
}

/// Makes the container.
///
/// # Errors
/// [`Error`]; what was made is taken back.
pub fn launch(global: &Global, mut request: Request, spec: &Spec) -> Result<Launched> {
    let mut draft = Draft::new(global, &mut request, spec)?;
    // Hooks begin there.
    std::env::set_current_dir(&request.bundle)
        .context(|| format!("chdir {}", request.bundle.display()))?;
    let mut undo = Undo::default();
    fault::point("create.before-directory");
    let directory = make_directory(&global.root, &request.id)?;
    undo.directory = Some(directory.clone());
    fault::point("create.after-directory");
    let fifo = if request.fifo { Some(make_fifo(&directory)?) } else { None };
    let (cgroup_paths, joiner) = make_cgroup(global, spec, &request.id, &mut undo)?;
    fault::point("create.after-cgroup");
    let unit = undo.cgroup.as_ref().and_then(Cgroup::unit).cloned();
    let extra = Extra { unit, ..draft.extra(&request, spec) };
    let document = state::document(&extra, &request.id, "creating", 0);
    let (channel, child_channel) = channel::pair()?;
    let procfs = Procfs::open().context(|| "open /proc".to_owned())?;
    let shown = shown_cgroups(spec, &cgroup_paths);
    let plan = Plan {
        spec,
        process: &draft.process,
        bundle: &request.bundle,
        rootfs: &draft.rootfs,
        layers: request.layers.as_deref(),
        no_pivot: request.no_pivot,
        rootless: rootless::is_rootless(),
        namespaces: &draft.namespaces,
        is_admitted: draft.namespaces.has_user() || extra.unit.is_some(),
        joiner: joiner.as_ref(),
        cgroup_paths: &shown,
        procfs: &procfs,
        filter: draft.filter.as_ref().map(|cached| &cached.filter),
        console: draft.console.take(),
        fifo,
        preserve: request.preserve,
        capabilities: draft.capabilities,
        own_capabilities: draft.own_capabilities,
        personality: draft.personality,
        keyring: request.new_keyring.then(|| format!("_ses.{}", request.id)),
        state: &document,
    };
    let (init, channel) = birth::start_init(plan, channel, child_channel, &mut undo)?;
    fault::point("create.after-clone");
    let start = state::stat_of(init.as_raw()).ok_or_else(died)?.start;
    let container = Container {
        directory,
        state: State {
            id: request.id.clone(),
            init_process_pid: init.as_raw(),
            init_process_start: start,
            created: log::rfc3339(SystemTime::now(), true),
            config: Config { rootfs: draft.rootfs.clone(), labels: labels(spec, &request.bundle) },
            cgroup_paths,
            namespace_paths: namespace::paths(init.as_raw()).collect(),
            cleat: extra,
        },
    };
    draft.keep_filter(&container.directory)?;
    container.save()?;
    undo.keep_state = request.keep;
    fault::point("create.after-state");
    if let Some(path) = &request.pidfd_socket {
        hand_over_pidfd(path, undo.init.as_ref().map(|(_, pidfd)| pidfd))?;
    }
    let is_admitted = draft.namespaces.has_user() || container.state.cleat.unit.is_some();
    if is_admitted {
        let cgroup = undo.cgroup.as_ref();
        let own = draft.own_capabilities;
        birth::admit(spec, &draft.process, own, &draft.namespaces, init, cgroup)?;
        channel.send(&Message::Go).context(died_at)?;
    }
    let follower = Follower {
        channel: &channel,
        spec,
        container: &container,
        init: undo.init.as_ref().map(|(_, pidfd)| pidfd),
        cgroup: undo.cgroup.as_ref(),
        released_by_us: !request.fifo,
    };
    follower.follow().map_err(|error| follow::explain(error, init))?;
    if let Some(path) = &request.pid_file {
        state::write_whole(path, init.to_string().as_bytes())?;
    }
    fault::point("create.after-pid-file");
    let (_, _, init) = undo.keep();
    let (pid, pidfd) = init.ok_or_else(died)?;
    Ok(Launched { container, pid, pidfd, channel })
}

/// Returns what a `cgroup` mount of v1 shows: the container's cgroup or, where it has none, as much as there is of the one that it was
/// started from.
fn shown_cgroups<'a>(
    spec: &Spec,
    paths: &'a BTreeMap<String, String>,
) -> Cow<'a, BTreeMap<String, String>> {
    if !paths.is_empty() || spec.mounts.iter().all(|mount| mount.kind != "cgroup") {
        return Cow::Borrowed(paths);
    }
    let mut own = Cgroup::own().map(|own| own.paths()).unwrap_or_default();
    own.retain(|_, directory| Path::new(directory).is_dir());
    Cow::Owned(own)
}

/// Makes the cgroup, which nobody may be in, or be frozen in.
///
/// # Errors
/// Where somebody is, or it cannot be made.
pub fn make_cgroup(
    global: &Global,
    spec: &Spec,
    id: &str,
    undo: &mut Undo,
) -> Result<(BTreeMap<String, String>, Option<Joiner>)> {
    let path = spec.linux.cgroups_path.as_deref();
    let of_user = global.is_rootless()?;
    let optional = !global.systemd_cgroup && rootless::can_do_without_cgroup(spec);
    let without = || {
        if spec.linux.namespaces.iter().all(|namespace| namespace.kind != "pid") {
            log::warn(
                "a container with neither a cgroup nor a PID namespace of its own: nobody can kill all of its processes for sure. \
                Such configuration is strongly discouraged",
            );
        }
        Ok((BTreeMap::new(), None))
    };
    // Who is not root has none of their own; root of a user namespace may have been given one.
    if optional && rootless::is_rootless() {
        return without();
    }
    let cgroup = match global.systemd_cgroup {
        true => Cgroup::of_unit(Unit::new(path, id, of_user)?)?,
        false => Cgroup::new(path, id)?,
    };
    if cgroup.exists() {
        let count = cgroup.pids()?.len();
        if count > 0 {
            let text = format!("container's cgroup is not empty: {count} process(es) found");
            return Err(Error::Invalid(text));
        }
    }
    if cgroup.stops_newcomers()? {
        return Err(Error::Invalid("container's cgroup unexpectedly frozen".to_owned()));
    }
    if cgroup.unit().is_some() {
        // It begins with a process in it.
        let paths = cgroup.paths();
        undo.cgroup = Some(cgroup);
        return Ok((paths, None));
    }
    let text = "unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    match cgroup.create() {
        Err(error) if optional && is_denied(&error) => return without(),
        Err(error) if rootless::is_without_host_s_rights() => {
            return Err(Error::Invalid(format!("{text}: {}", Error::from(error))));
        }
        done => done?,
    }
    let made = (cgroup.paths(), Some(cgroup.joiner()?));
    undo.cgroup = Some(cgroup);
    Ok(made)
}

/// Sends a handle to a process to whoever asked for one with `--pidfd-socket`.
///
/// # Errors
/// Where nobody listens there.
pub fn hand_over_pidfd(path: &Path, pidfd: Option<&PidFd>) -> Result<()> {
    let Some(pidfd) = pidfd else { return Ok(()) };
    let what = || format!("failed to dial {}", path.display());
    let socket = UnixStream::connect(path).context(what)?;
    fdpass::send(&socket, b"pidfd", &[pidfd.as_fd().as_raw_fd()]).context(what).map(drop)
}

pub(super) fn died() -> Error {
    Error::Init("unable to start container process: container process is already dead".to_owned())
}

pub(super) fn died_at() -> String {
    "unable to start container process: container process is already dead".to_owned()
}

fn compile(global: &Global, spec: &Spec) -> Result<Option<Cached>> {
    let Some(profile) = &spec.linux.seccomp else { return Ok(None) };
    let cached = seccomp::cached(&global.root.join(FILTER_CACHE), profile);
    cached.map(Some).map_err(|error| Error::Invalid(format!("unable to init seccomp: {error}")))
}

/// Makes the container's directory below `--root`.
///
/// # Errors
/// [`Error::Exists`].
pub fn make_directory(root: &Path, id: &str) -> Result<PathBuf> {
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

/// Returns the labels of runc's state file.
pub fn labels(spec: &Spec, bundle: &Path) -> Vec<String> {
    let bundle = format!("bundle={}", bundle.display());
    spec.annotations.iter().map(|(key, value)| format!("{key}={value}")).chain([bundle]).collect()
}
