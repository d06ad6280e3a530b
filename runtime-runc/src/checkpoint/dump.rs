//! `checkpoint`.

use super::criu::{Criu, Kind, Notice};
use super::wire::Writer;
use super::{DESCRIPTORS, Images, cgroup_binds, destination, external_mount, is_bind};
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::state::{Container, Status};
use crate::{Global, delete};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "image-path",
        "work-path",
        "parent-path",
        "status-fd",
        "page-server",
        "manage-cgroups-mode",
        "empty-ns",
    ],
    switches: &[
        "leave-running",
        "tcp-established",
        "tcp-skip-in-flight",
        "link-remap",
        "ext-unix-sk",
        "shell-job",
        "lazy-pages",
        "file-locks",
        "pre-dump",
        "auto-dedup",
    ],
    least: 1,
    most: 1,
};

const LOG: &str = "dump.log";

/// Runs the verb.
///
/// # Errors
/// Where the container does not run, and where CRIU fails; it says why in its log.
pub fn checkpoint(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("checkpoint", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    let status = container.status()?;
    if matches!(status, Status::Created | Status::Stopped) {
        let text = format!("Container cannot be checkpointed in {} state", status.word());
        return Err(Error::State(text));
    }
    let status_fd = arguments.number::<i32>("status-fd")?;
    if arguments.has("lazy-pages") {
        Criu::check_lazy_pages()?;
        status_fd.map(check_writable).transpose()?;
    }
    let spec = Spec::load(&container.state.cleat.bundle)?;
    let mut images = Images::open(&arguments, LOG, &spec)?;
    let pre_dump = arguments.has("pre-dump");
    describe(&mut images.options, &arguments, &container)?;
    parent(&mut images, &arguments)?;
    external_namespaces(&mut images.options, &spec)?;
    if !pre_dump {
        external_mounts(&mut images.options, &spec, &container);
        let path = images.directory.join(DESCRIPTORS);
        let text = serde_json::json!(descriptors(container.state.init_process_pid)).to_string();
        std::fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    }
    let kind = if pre_dump { Kind::PreDump } else { Kind::Dump };
    let done = Criu::start()?.request(kind, &images.options, |notice| ready(&notice, status_fd));
    done.map_err(|error| images.explain(error, LOG))?;
    if arguments.has("leave-running") || pre_dump { Ok(()) } else { delete::destroy(&container) }
}

fn describe(options: &mut Writer, arguments: &Arguments, container: &Container) -> Result<()> {
    let state = &container.state;
    options.number(2, state.init_process_pid);
    options.text(13, &state.config.rootfs.display().to_string());
    options.flag(3, arguments.has("leave-running"));
    options.flag(18, arguments.has("link-remap"));
    options.flag(46, arguments.has("tcp-skip-in-flight"));
    if let Some(freezer) = state.cgroup_paths.get("freezer").or(state.cgroup_paths.get("")) {
        options.text(44, freezer);
    }
    if let Some(server) = arguments.value("page-server") {
        let wrong =
            || Error::Usage("Use --page-server ADDRESS:PORT to specify page server".to_owned());
        let (address, port) = server.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| Error::Usage("Invalid port number".to_owned()))?;
        let mut page_server = Writer::default();
        page_server.text(1, address).number(2, port);
        options.message(11, &page_server);
    }
    Ok(())
}

/// The images of the dump before this one are found from the image directory.
fn parent(images: &mut Images, arguments: &Arguments) -> Result<()> {
    let Some(parent) = arguments.path("parent-path") else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::Usage("--parent-path must be relative".to_owned()));
    }
    let found = std::fs::read_dir(images.directory.join(&parent));
    found.context(|| "invalid --parent-path".to_owned())?;
    images.options.text(14, &parent.display().to_string()).flag(15, true);
    Ok(())
}

/// Namespaces that were joined by path stay where they are.
fn external_namespaces(options: &mut Writer, spec: &Spec) -> Result<()> {
    for (kind, name, key) in super::restore::EXTERNAL {
        let joined = spec.linux.namespaces.iter().find(|namespace| namespace.kind == kind);
        let Some(path) =
            joined.map(|joined| &joined.path).filter(|path| !path.as_os_str().is_empty())
        else {
            continue;
        };
        let inode = std::fs::metadata(path).context(|| format!("stat {}", path.display()))?.ino();
        options.text(37, &format!("{name}[{inode}]:{key}"));
    }
    Ok(())
}

fn external_mounts(options: &mut Writer, spec: &Spec, container: &Container) {
    let rootfs = &container.state.config.rootfs;
    for mount in &spec.mounts {
        if is_bind(mount) {
            let at = destination(rootfs, mount);
            external_mount(options, &at, &at);
        } else if mount.kind == "cgroup" {
            for (at, _) in cgroup_binds(rootfs, mount, &container.state.cgroup_paths) {
                external_mount(options, &at, &at);
            }
        }
    }
    let root = format!("/proc/{}/root", container.state.init_process_pid);
    for masked in &spec.linux.masked_paths {
        let inside = Path::new(&root).join(masked.strip_prefix("/").unwrap_or(masked));
        if inside.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            external_mount(options, &masked.display().to_string(), "/dev/null");
        }
    }
    for device in &spec.linux.devices {
        let path = device.path.display().to_string();
        external_mount(options, &path, &path);
    }
}

/// Returns what the standard descriptors lead to.
fn descriptors(pid: i32) -> Vec<String> {
    let target = |fd: i32| std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    (0..3).map(|fd| target(fd).map_or(String::new(), |path| path.display().to_string())).collect()
}

/// Refuses a `--status-fd` that nobody could be told by.
fn check_writable(fd: i32) -> Result<()> {
    let what = format!("invalid --status-fd argument {fd}");
    let opened = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
    opened.map(drop).context(|| what)
}

/// Tells whoever waits that the server for lazy pages is there.
fn ready(notice: &Notice, status_fd: Option<i32>) -> Result<()> {
    match status_fd {
        Some(fd) if notice.script == "status-ready" => std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{fd}"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[0]))
            .context(|| "cannot write to the status descriptor".to_owned()),
        _ => Ok(()),
    }
}
