//! Container config → OCI runtime spec. Nothing here changes the host, and only device nodes are looked at.
//!
//! The result is what dockerd 28.5 makes of the same request, field by field. Order of the decisions: who the process is, what it
//! may do, what it sees, what it may use.

mod capabilities;
mod check;
mod default_seccomp;
mod devices;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod security_opt;
pub mod user;

use std::{collections::HashMap, io, path::PathBuf};

use cleat_proto::{
    docker::container::{Config, HostConfig},
    kind::Kind,
};
use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, Process, Root, Spec,
};

pub use check::{check, check_resources};
pub use process::environment;
pub use resources::build as resources;

/// All that a spec depends on.
pub struct Input<'a> {
    /// What is executed, entrypoint and command put together.
    pub args: Vec<String>,
    /// The record's.
    pub config: &'a Config,
    /// The record's, defaults filled in.
    pub host_config: &'a HostConfig,
    /// The container's mounts, sources resolved to paths of the host.
    pub mounts: Vec<Mount>,
    /// What `/etc/hosts` and its siblings are bound from; `None` leaves the image's.
    pub files: Files,
    /// The network namespace.
    pub network: Namespace,
    /// The IPC namespace.
    pub ipc: Namespace,
    /// The PID namespace.
    pub pid: Namespace,
    /// The UTS namespace.
    pub uts: Namespace,
    /// The cgroup namespace: `New` or `Host`.
    pub cgroup: Namespace,
    /// What `/dev/shm` is.
    pub shm: Shm,
    /// `cgroupsPath`.
    pub cgroups_path: String,
    /// With `--init`: the binary to bind at `/sbin/docker-init`.
    pub init_binary: Option<PathBuf>,
    /// Reads a small regular file of the container's root filesystem, following links inside it: `/etc/passwd`, `/etc/group`.
    pub read_file: &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>,
    /// The host's kernel, `(6, 18)`: some profile entries depend on it.
    pub kernel: (u32, u32),
}

/// A namespace's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// A new one, made by the worker.
    New,
    /// The host's.
    Host,
    /// One that exists, such as `/proc/<pid>/ns/ipc`.
    Join(PathBuf),
}

/// `/dev/shm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of the container's own.
    Private {
        /// Its size.
        size_bytes: u64,
    },
    /// Bound from there: another container's, or the host's.
    Bind(PathBuf),
    /// None at all.
    Absent,
}

/// Paths on the host of the files an engine provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// One mount the user asked for, ready for the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, in the container.
    pub destination: String,
    /// What.
    pub source: MountSource,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` and so on; empty is the default.
    pub propagation: String,
    /// How deep read-only goes.
    pub recursive_ro: crate::container::mount_point::RecursiveReadOnly,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Without the mounts below it.
        non_recursive: bool,
    },
    /// An image's directories, the uppermost first.
    Layers(Vec<PathBuf>),
    /// A tmpfs with mount(8) options.
    Tmpfs {
        /// Checked already.
        options: Vec<String>,
    },
}

/// What is wrong with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker's words.
    #[error("{0}")]
    Invalid(String),
    /// Docker's words for what it finds out only when the container starts.
    #[error("{0}")]
    AtStart(String),
    /// What makes no sense, though Docker by its own oversight calls it a failure of its own.
    #[error("{0}")]
    Unsound(String),
    /// A file of the container could not be read.
    #[error("cannot read {path} of the container")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::AtStart(_) | Self::Unsound(_) | Self::File { .. } => Kind::Internal,
        }
    }
}

/// The version of the OCI runtime-spec that the result follows.
const OCI_VERSION: &str = "1.2.1";

/// Builds the spec that the worker gets as `config.json`.
///
/// # Errors
/// [`Error::Invalid`] for what only the container's own files can tell, such as an unknown user.
pub fn build(input: &Input<'_>) -> Result<Spec, Error> {
    let host = input.host_config;
    check::check_at_start(input.config, host)?;
    let options = security_opt::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let capabilities = capabilities::granted(host, capabilities::available())?;
    let writable_cgroups = options.writable_cgroups.unwrap_or(host.privileged);
    let (mut mounts, root_propagation) = mounts::build(input, writable_cgroups);
    if let Some(binary) = process::init(input) {
        mounts.push(init_mount(binary.clone()));
    }
    let (nodes, device_rules) = devices::build(host)?;
    let mut resources = resources::build(host)?;
    resources.set_devices(Some(device_rules));
    let seccomp = filter(input, &options.seccomp, &capabilities)?;

    let mut linux = Linux::default();
    linux
        .set_uid_mappings(None)
        .set_gid_mappings(None)
        .set_namespaces(Some(namespaces(input)))
        .set_sysctl(Some(sysctls(input)).filter(|sysctls| !sysctls.is_empty()))
        .set_resources(Some(resources))
        .set_cgroups_path(Some(input.cgroups_path.clone().into()))
        .set_devices(Some(nodes).filter(|nodes| !nodes.is_empty()))
        .set_seccomp(seccomp)
        .set_rootfs_propagation(root_propagation.map(str::to_owned))
        .set_masked_paths(paths(&host.masked_paths))
        .set_readonly_paths(paths(&host.readonly_paths));

    let mut root = Root::default();
    root.set_path("rootfs".into())
        .set_readonly(Some(host.readonly_rootfs).filter(|&readonly| readonly));
    let own_name = input.uts == Namespace::New && !input.config.hostname.is_empty();
    let annotations = host.annotations.clone().filter(|annotations| !annotations.is_empty());
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_process(Some(process(input, &capabilities, options.no_new_privileges)?))
        .set_root(Some(root))
        .set_hostname(own_name.then(|| input.config.hostname.clone()))
        .set_mounts(Some(mounts))
        .set_annotations(annotations.map(|annotations| annotations.into_iter().collect()))
        .set_linux(Some(linux));
    Ok(spec)
}

fn process(
    input: &Input<'_>,
    capabilities: &[&str],
    no_new_privileges: bool,
) -> Result<Process, Error> {
    let (config, host) = (input.config, input.host_config);
    let files = user::Files::read(input.read_file)?;
    let user = user::resolve(&config.user, host.group_add.as_deref().unwrap_or_default(), &files)?;
    let ulimits =
        host.ulimits.iter().flatten().map(resources::rlimit).collect::<Result<Vec<_>, _>>()?;
    let directory = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let env = process::environment(
        config.env.as_deref().unwrap_or_default(),
        &config.hostname,
        config.tty,
    );
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty).filter(|&tty| tty))
        .set_console_size(console_size(input))
        .set_user(user)
        .set_args(Some(process::arguments(input)))
        .set_env(Some(env))
        .set_cwd(directory.into())
        .set_capabilities(Some(capabilities::sets(capabilities)))
        .set_rlimits(Some(ulimits).filter(|limits| !limits.is_empty()))
        .set_no_new_privileges(Some(no_new_privileges).filter(|&set| set))
        .set_oom_score_adj(i32::try_from(host.oom_score_adj).ok());
    Ok(process)
}

fn console_size(input: &Input<'_>) -> Option<oci_spec::runtime::Box> {
    let [height, width] = input.host_config.console_size;
    if !input.config.tty || height == 0 || width == 0 {
        return None;
    }
    oci_spec::runtime::BoxBuilder::default().height(height).width(width).build().ok()
}

fn init_mount(binary: PathBuf) -> oci_spec::runtime::Mount {
    let mut mount = oci_spec::runtime::Mount::default();
    mount
        .set_destination(process::INIT.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(binary))
        .set_options(Some(vec!["bind".to_owned(), "ro".to_owned()]));
    mount
}

/// A privileged container has no filter unless a profile was named.
fn filter(
    input: &Input<'_>,
    wanted: &security_opt::Seccomp,
    capabilities: &[&str],
) -> Result<Option<LinuxSeccomp>, Error> {
    let situation = seccomp::Situation { capabilities, kernel: input.kernel };
    Ok(match wanted {
        security_opt::Seccomp::Unconfined => None,
        security_opt::Seccomp::Default if input.host_config.privileged => None,
        security_opt::Seccomp::Default | security_opt::Seccomp::Builtin => {
            Some(seccomp::default(&situation))
        }
        security_opt::Seccomp::Profile(text) => Some(seccomp::custom(text, &situation)?),
    })
}

fn namespaces(input: &Input<'_>) -> Vec<LinuxNamespace> {
    let made = |kind, path| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let mut namespaces = vec![made(LinuxNamespaceType::Mount, None)];
    for (kind, origin) in [
        (LinuxNamespaceType::Network, &input.network),
        (LinuxNamespaceType::Uts, &input.uts),
        (LinuxNamespaceType::Pid, &input.pid),
        (LinuxNamespaceType::Ipc, &input.ipc),
        (LinuxNamespaceType::Cgroup, &input.cgroup),
    ] {
        match origin {
            Namespace::Host => {}
            Namespace::New => namespaces.push(made(kind, None)),
            Namespace::Join(path) => namespaces.push(made(kind, Some(path.clone()))),
        }
    }
    namespaces
}

/// Docker's own parameters for a network of the container's own, its domain, and then the user's, who wins.
fn sysctls(input: &Input<'_>) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    let mode = input.host_config.network_mode.as_str();
    if mode != "host" && !mode.starts_with("container:") {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    let domain = &input.config.domainname;
    if input.uts == Namespace::New && !domain.is_empty() {
        sysctls.insert("kernel.domainname".to_owned(), domain.clone());
    }
    sysctls.extend(input.host_config.sysctls.clone().into_iter().flatten());
    sysctls
}

fn paths(list: &Option<Vec<String>>) -> Option<Vec<String>> {
    list.clone().filter(|list| !list.is_empty())
}

/// Whether the kernel confines by AppArmor.
fn apparmor_is_enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// An I/O error's reason as Go words it: without the number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
