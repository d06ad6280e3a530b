//! `restore`.

use super::criu::{Criu, Kind, Notice, inherit};
use super::wire::Writer;
use super::{DESCRIPTORS, Images, cgroup_binds, destination, external_mount, is_bind, source};
use crate::cgroup::Cgroup;
use crate::cli::{self, Arguments, Syntax};
use crate::console::Taker;
use crate::create::{Draft, Undo, make_cgroup, make_directory};
use crate::error::{Context, Error, Result};
use crate::foreground::{self, Signals};
use crate::namespace;
use crate::rootfs;
use crate::spec::Spec;
use crate::state::{self, Config, Container, Extra, State};
use crate::{Global, create, delete, hook, log};
use cleat_sys::pidfd::PidFd;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "console-socket",
        "image-path",
        "work-path",
        "manage-cgroups-mode",
        "bundle,b",
        "pid-file",
        "empty-ns",
        "lsm-profile",
        "lsm-mount-context",
    ],
    switches: &[
        "tcp-established",
        "ext-unix-sk",
        "shell-job",
        "file-locks",
        "detach,d",
        "no-subreaper",
        "no-pivot",
        "auto-dedup",
        "lazy-pages",
    ],
    least: 1,
    most: 1,
};

const LOG: &str = "restore.log";

/// Namespaces that CRIU leaves to us where they are joined: OCI kind, CRIU's name, runc's key.
pub(super) const EXTERNAL: [(&str, &str, &str); 2] =
    [("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS")];

/// Runs the verb; returns the exit code for this process.
///
/// # Errors
/// Where CRIU fails; it says why in its log. Nothing of the container is left then.
pub fn restore(global: &Global, words: &[String]) -> Result<i32> {
    let arguments = Arguments::parse_verb("restore", words, &SYNTAX)?;
    arguments.refuse(&["no-pivot"])?;
    let id = cli::check_id(&arguments.rest[0])?.to_owned();
    let bundle = arguments.path("bundle").unwrap_or_else(|| PathBuf::from("."));
    let bundle = bundle.canonicalize().context(|| format!("chdir {}", bundle.display()))?;
    let spec = Spec::load(&bundle)?;
    let detach = arguments.has("detach");
    if arguments.has("lazy-pages") {
        Criu::check_lazy_pages()?;
    }
    leave_the_host_s_mounts()?;
    let mut images = Images::open(&arguments, LOG, &spec)?;
    let mut request = create::Request::bare(&id, &bundle);
    let (taker, ours) = taker(&arguments, &spec, detach)?;
    let pid_file = arguments.path("pid-file").map(std::path::absolute).transpose();
    let pid_file = pid_file.context(|| "--pid-file".to_owned())?;
    let draft = Draft::new(global, &mut request, &spec)?;

    let mut undo = Undo::default();
    let directory = make_directory(&global.root, &id)?;
    undo.directory = Some(directory.clone());
    let (cgroup_paths, _) = make_cgroup(global, &spec, &id, &mut undo)?;
    let unit = undo.cgroup.as_ref().and_then(Cgroup::unit).cloned();
    let mut container = Container {
        directory,
        state: State {
            id,
            init_process_pid: 0,
            init_process_start: 0,
            created: log::rfc3339(SystemTime::now(), true),
            config: Config { rootfs: draft.rootfs.clone(), labels: create::labels(&spec, &bundle) },
            cgroup_paths,
            namespace_paths: Default::default(),
            cleat: Extra { unit, ..draft.extra(&request, &spec) },
        },
    };
    container.state.cleat.starting = false;
    draft.keep_filter(&container.directory)?;
    let root = prepare_root(&draft.rootfs, &bundle, &spec, &container.directory)?;
    let opened = describe(&mut images, &arguments, &spec, &container, &root)?;
    let signals = if detach { None } else { Some(Signals::block()?) };
    let criu = Criu::start()?;
    place(&criu, &spec, &undo, &mut images.options)?;
    let restored = criu.request(Kind::Restore, &images.options, |notice| {
        on_notice(notice, &mut container, &spec, taker.as_ref(), &mut undo)
    });
    drop(opened);
    restored.map_err(|error| images.explain(error, LOG))?;
    let gone = || Error::State("criu restored no process".to_owned());
    if let Some(path) = pid_file {
        state::write_whole(&path, container.state.init_process_pid.to_string().as_bytes())?;
    }
    let (_, _, init) = undo.keep();
    let (pid, pidfd) = init.ok_or_else(gone)?;
    let Some(signals) = signals else { return Ok(0) };
    drop(taker);
    let terminal = ours.as_ref().map(foreground::receive_terminal).transpose()?;
    let code = foreground::wait(pid, &pidfd, &signals, terminal)?;
    delete::destroy(&container)?;
    Ok(code)
}

fn taker(
    arguments: &Arguments,
    spec: &Spec,
    detach: bool,
) -> Result<(Option<Taker>, Option<OwnedFd>)> {
    let terminal = spec.process()?.terminal;
    match arguments.path("console-socket") {
        Some(path) => Ok((Some(Taker::connect(&path)?), None)),
        None if terminal && detach => Err(Error::Invalid(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        )),
        None if terminal => Taker::worker().map(|(taker, ours)| (Some(taker), Some(ours))),
        None => Ok((None, None)),
    }
}

/// What CRIU needs to be mounted is in a mount namespace of this process's: the host sees nothing of it, and it ends with us. First of
/// all, since CRIU mounts below directories that we open for it.
fn leave_the_host_s_mounts() -> Result<()> {
    let what = || "prepare the mounts for criu".to_owned();
    unshare(CloneFlags::CLONE_NEWNS).context(what)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context(what)
}

/// CRIU wants a root that is a mount of its own, and every mount point to be there.
fn prepare_root(rootfs: &Path, bundle: &Path, spec: &Spec, directory: &Path) -> Result<PathBuf> {
    let what = || "prepare the root for criu".to_owned();
    rootfs::make_mount_points(rootfs, bundle, &spec.mounts)?;
    let root = directory.join("criu-root");
    std::fs::create_dir(&root).context(what)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(rootfs), &root, None::<&str>, flags, None::<&str>).context(what)?;
    Ok(root)
}

/// Tells CRIU of everything that comes from outside; returns what has to stay open for it.
fn describe(
    images: &mut Images,
    arguments: &Arguments,
    spec: &Spec,
    container: &Container,
    root: &Path,
) -> Result<Vec<File>> {
    let options = &mut images.options;
    // Evasive devices, and the restored process as our child.
    options.flag(6, true).flag(26, true).text(13, &root.display().to_string());
    if let Some(profile) = arguments.value("lsm-profile") {
        options.text(53, profile);
    }
    if let Some(label) = arguments.value("lsm-mount-context") {
        options.text(63, label);
    }
    external_mounts(options, spec, container);
    let path = images.directory.join(DESCRIPTORS);
    let names: Vec<String> = crate::spec::read_json(&path)?;
    for (fd, name) in (0_i32..).zip(&names) {
        if name.contains("pipe:") {
            inherit_fd(options, name, fd);
        }
    }
    join_namespaces(options, spec)
}

fn inherit_fd(options: &mut Writer, key: &str, fd: i32) {
    let mut inherited = Writer::default();
    inherited.text(1, key).number(2, fd);
    options.message(27, &inherited);
}

fn external_mounts(options: &mut Writer, spec: &Spec, container: &Container) {
    let rootfs = &container.state.config.rootfs;
    let bundle = &container.state.cleat.bundle;
    for mount in &spec.mounts {
        if is_bind(mount) {
            external_mount(options, &destination(rootfs, mount), &source(bundle, mount));
        } else if mount.kind == "cgroup" {
            for (at, from) in cgroup_binds(rootfs, mount, &container.state.cgroup_paths) {
                external_mount(options, &at, &from);
            }
        }
    }
    if !spec.linux.masked_paths.is_empty() {
        external_mount(options, "/dev/null", "/dev/null");
    }
    for device in &spec.linux.devices {
        let path = device.path.display().to_string();
        external_mount(options, &path, &path);
    }
}

fn join_namespaces(options: &mut Writer, spec: &Spec) -> Result<Vec<File>> {
    let mut opened = Vec::new();
    for namespace in spec.linux.namespaces.iter().filter(|one| !one.path.as_os_str().is_empty()) {
        let path = &namespace.path;
        if let Some((_, _, key)) = EXTERNAL.iter().find(|(kind, ..)| *kind == namespace.kind) {
            let file = File::open(path).context(|| format!("open {}", path.display()))?;
            inherit(&file)?;
            inherit_fd(options, key, file.as_raw_fd());
            opened.push(file);
            continue;
        }
        let name = match namespace.kind.as_str() {
            "mount" => "mnt",
            kind @ ("ipc" | "uts" | "user") => kind,
            other => {
                let text = format!("do not know how to restore into a {other} namespace");
                return Err(Error::Invalid(text));
            }
        };
        let mut joined = Writer::default();
        joined.text(1, name).text(2, &path.display().to_string());
        options.message(39, &joined);
    }
    Ok(opened)
}

/// Puts CRIU into the new container's cgroups, which so become the restored processes'.
fn place(criu: &Criu, spec: &Spec, undo: &Undo, options: &mut Writer) -> Result<()> {
    let Some(cgroup) = &undo.cgroup else { return Ok(()) };
    cgroup.admit(Pid::from_raw(criu.pid()), &spec.annotations)?;
    if let Some(resources) = &spec.linux.resources {
        cgroup.apply(resources)?;
    }
    let path = format!("/proc/{}/cgroup", criu.pid());
    let text = std::fs::read_to_string(&path).context(|| format!("open {path}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',') {
            let mut root = Writer::default();
            root.text(1, controller).text(2, path);
            options.message(25, &root);
        }
    }
    Ok(())
}

fn on_notice(
    notice: Notice,
    container: &mut Container,
    spec: &Spec,
    taker: Option<&Taker>,
    undo: &mut Undo,
) -> Result<()> {
    match notice.script.as_str() {
        "setup-namespaces" => {
            let state = container.document("creating", notice.pid);
            hook::run("prestart", &spec.hooks.prestart, &state, &[])?;
            hook::run("createRuntime", &spec.hooks.create_runtime, &state, &[])
        }
        "orphan-pts-master" => match (taker, notice.descriptor) {
            (Some(taker), Some(master)) => taker.hand_over(&master),
            _ => Err(Error::State("the container has a terminal that nobody takes".to_owned())),
        },
        "post-restore" => {
            let pidfd =
                PidFd::open(Pid::from_raw(notice.pid)).context(|| "pidfd_open".to_owned())?;
            undo.init = Some((Pid::from_raw(notice.pid), pidfd));
            remember(container, notice.pid)
        }
        _ => Ok(()),
    }
}

fn remember(container: &mut Container, pid: i32) -> Result<()> {
    let gone = || Error::State("the restored process has gone".to_owned());
    let state = &mut container.state;
    state.init_process_pid = pid;
    state.init_process_start = state::stat_of(pid).ok_or_else(gone)?.start;
    state.namespace_paths = namespace::paths(pid).collect();
    // CRIU may put them into a time namespace, so that their clocks go on where they stood.
    let clock =
        |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/time")).map(|found| found.ino());
    if let (Ok(own), Ok(theirs)) = (clock("self"), clock(&pid.to_string()))
        && own != theirs
    {
        state.cleat.namespaces |= namespace::CLONE_NEWTIME;
    }
    container.save()
}
