//! `daemon.json` and flags (raw) → [`Config`] (checked), handed down by value. There are no globals.
//!
//! Keys and texts are dockerd's, see `dockerd(8)`: a key that nobody knows, and one that stands both in the file and on the command
//! line, end the start. A key that dockerd knows and we do not honour is refused too, rather than ignored.

pub mod cgroups;
mod file;
mod flags;

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
};

use cleat_proto::docker::container::Ulimit;
use sha2::{Digest, Sha256};

pub use flags::Flags;

use file::File;

use crate::{
    image::pull,
    registry::{Proxies, Proxy},
};

/// What must survive a reboot, unless told otherwise.
const DEFAULT_ROOT: &str = "/var/lib/cleat";
/// What must not.
const DEFAULT_STATE: &str = "/run/cleat";
/// Where clients look.
const DEFAULT_SOCKET: &str = "/run/cleat.sock";
/// The options' file; it may be missing, one that was named may not.
pub const DEFAULT_FILE: &str = "/etc/cleat/daemon.json";
/// Where Docker looks for registries' certificates.
const DOCKER_CERTIFICATES: &str = "/etc/docker/certs.d";
/// Where containerd looks for registries' hosts.
const CONTAINERD_HOSTS: &str = "/etc/containerd/certs.d";
/// Our own runtime's name towards clients.
const NATIVE_RUNTIME: &str = "runc";
/// dockerd's default.
const DOWNLOAD_ATTEMPTS: usize = 5;
/// dockerd's default.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;
/// Logging drivers that we have.
pub const LOG_DRIVERS: [&str; 2] = ["json-file", "none"];

/// What the daemon was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What must survive a reboot: database, content, snapshots, volumes, container logs. `/var/lib/cleat`.
    pub root: PathBuf,
    /// What must not: sockets, bundles, exit files. `/run/cleat`.
    pub state: PathBuf,
    /// Where clients come in.
    pub hosts: Vec<Host>,
    /// Whose unix sockets are, beside root's; empty for nobody's.
    pub group: String,
    /// Where our pid is written.
    pub pidfile: PathBuf,
    /// What is logged, and how.
    pub log: Log,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Names to runtimes; `default_runtime` is one of them.
    pub runtimes: BTreeMap<String, Runtime>,
    /// `cleat-runc`, shown as `runc` where Docker shows that.
    pub default_runtime: String,
    /// The init binary for `--init`, if there is one.
    pub init: Option<PathBuf>,
    /// Containers that do not say get an init.
    pub init_by_default: bool,
    /// Who makes containers' cgroups, and where: `exec-opts`, `cgroup-parent`.
    pub cgroups: cgroups::Cgroups,
    /// The default bridge.
    pub network: crate::network::Config,
    /// `log-driver` and `log-opts`.
    pub log_driver: String,
    /// Options for containers that name none.
    pub log_opts: BTreeMap<String, String>,
    /// `default-shm-size`.
    pub shm_size_bytes: u64,
    /// `default-ulimits`: for containers that do not name the limit.
    pub ulimits: Vec<Ulimit>,
    /// Stop every container at SIGTERM, as Docker does.
    pub stop_containers: bool,
    /// How long that may take.
    pub shutdown_timeout: std::time::Duration,
    /// `image-gc-days` and `image-gc-disk-percent`.
    pub image_gc: crate::gc::Policy,
    /// `label`: what `/info` shows.
    pub labels: Vec<String>,
    /// `registry-mirrors`.
    pub registry_mirrors: Vec<String>,
    /// `insecure-registries`.
    pub insecure_registries: Vec<String>,
    /// `max-concurrent-downloads`, 0 for all of them.
    pub max_downloads: usize,
    /// `max-concurrent-uploads`, 0 for all of them.
    pub max_uploads: usize,
    /// `max-download-attempts`.
    pub download_attempts: u32,
    /// `proxies`, or the environment's.
    pub proxies: Proxies,
    /// Where `HOST:PORT/{ca.crt,client.cert,client.key}` are looked for: beside the options' file, and where Docker has them.
    pub certificates: Vec<PathBuf>,
    /// Where `HOST:PORT/hosts.toml` is looked for: the same places, and where containerd has them.
    pub hosts_files: Vec<PathBuf>,
}

impl Config {
    /// Takes over what can change while the daemon runs; the rest takes a restart, as with Docker. Source: `dockerd(8)`,
    /// "Configuration reload behavior".
    pub fn reloaded(&self, told: Self) -> Self {
        Self {
            log: Log { level: told.log.level, ..self.log },
            runtimes: told.runtimes,
            default_runtime: told.default_runtime,
            shm_size_bytes: told.shm_size_bytes,
            stop_containers: told.stop_containers,
            shutdown_timeout: told.shutdown_timeout,
            image_gc: told.image_gc,
            labels: told.labels,
            registry_mirrors: told.registry_mirrors,
            insecure_registries: told.insecure_registries,
            max_downloads: told.max_downloads,
            max_uploads: told.max_uploads,
            download_attempts: told.download_attempts,
            ..self.clone()
        }
    }

    /// Returns what the client of registries is told.
    pub fn registries(&self) -> crate::registry::Config {
        crate::registry::Config {
            mirrors: self.registry_mirrors.clone(),
            insecure: self.insecure_registries.clone(),
            certificates: self.certificates.clone(),
            hosts: self.hosts_files.clone(),
            proxies: self.proxies.clone(),
            attempts: self.download_attempts,
            user_agent: format!(
                "cleat/{} os/linux arch/{}",
                env!("CARGO_PKG_VERSION"),
                cleat_proto::platform::Platform::host().architecture
            ),
        }
    }
}

/// Where clients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://address:port`
    Tcp(String, Option<Tls>),
    /// `fd://`: what the service manager passes.
    Inherited,
}

/// What TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who signs clients' certificates.
    pub ca: PathBuf,
    /// The daemon's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A client must have a certificate.
    pub verify: bool,
}

/// What the daemon logs of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least that is shown.
    pub level: tracing::Level,
    /// One JSON object a line.
    pub json: bool,
}

/// One OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// The binary.
    pub path: PathBuf,
    /// Global arguments before the verb.
    pub args: Vec<String>,
    /// It is our own `cleat-runc`.
    pub native: bool,
}

/// Why the options do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("unable to configure the Docker daemon with file {path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What Docker says.
        reason: String,
    },
    /// A value.
    #[error("{0}")]
    Invalid(String),
}

fn invalid(message: impl fmt::Display) -> Error {
    Error::Invalid(message.to_string())
}

/// Reads the file that the flags name, merges both, and checks the values.
///
/// # Errors
/// [`Error`], in dockerd's words.
pub fn load(flags: &Flags) -> Result<Config, Error> {
    let given = flags.as_file()?;
    let from_file = read_file(flags.config_file.as_deref(), &given)?;
    let mut config = check(from_file.or(given))?;
    let file = flags.config_file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let beside = file.parent().unwrap_or(Path::new("/")).join("certs.d");
    config.hosts_files.insert(0, beside.clone());
    config.certificates.insert(0, beside);
    Ok(config)
}

fn read_file(named: Option<&Path>, flags: &File) -> Result<File, Error> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let failed = |reason: String| Error::File { path: path.to_owned(), reason };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(File::default());
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    File::parse(&text, flags).map_err(failed)
}

/// Raw → checked.
fn check(raw: File) -> Result<Config, Error> {
    let root = absolute(raw.data_root.as_deref().unwrap_or(DEFAULT_ROOT))?;
    let state = absolute(raw.exec_root.as_deref().unwrap_or(DEFAULT_STATE))?;
    let suffix = suffix(&root);
    let runtimes = runtimes(&raw)?;
    let default_runtime = raw.default_runtime.clone().unwrap_or_else(|| NATIVE_RUNTIME.to_owned());
    if !runtimes.contains_key(&default_runtime) {
        return Err(invalid(format_args!(
            "specified default runtime '{default_runtime}' does not exist"
        )));
    }
    let log_driver = raw.log_driver.clone().unwrap_or_else(|| LOG_DRIVERS[0].to_owned());
    if !LOG_DRIVERS.contains(&log_driver.as_str()) {
        return Err(invalid(format_args!(
            "logger: no log driver named '{log_driver}' is registered"
        )));
    }
    let shutdown_timeout = match raw.shutdown_timeout.unwrap_or(15) {
        // Docker's "for ever"; nobody waits longer than this.
        negative if negative < 0 => 24 * 3600,
        seconds => seconds.unsigned_abs(),
    };
    Ok(Config {
        hosts: hosts(&raw)?,
        group: raw.group.clone().unwrap_or_else(|| "docker".to_owned()),
        pidfile: raw.pidfile.clone().map_or_else(|| state.join("cleatd.pid"), PathBuf::from),
        log: log(&raw)?,
        shim: sibling("containerd-shim-cleat-v1"),
        runtimes,
        default_runtime,
        init: init(&raw)?,
        init_by_default: raw.init.unwrap_or(false),
        cgroups: cgroups::Cgroups::new(
            raw.exec_opts.as_deref().unwrap_or_default(),
            raw.cgroup_parent.as_deref(),
            named("cleat", &suffix),
            cgroups::Host::look(),
        )?,
        network: network(&raw, &suffix)?,
        log_driver,
        log_opts: raw.log_opts.clone().unwrap_or_default(),
        shm_size_bytes: raw
            .default_shm_size
            .as_ref()
            .map_or(Ok(DEFAULT_SHM_BYTES), file::Size::bytes)?,
        ulimits: raw.default_ulimits.clone().unwrap_or_default().into_values().collect(),
        stop_containers: stop_containers(&raw)?,
        shutdown_timeout: std::time::Duration::from_secs(shutdown_timeout),
        image_gc: image_gc(&raw)?,
        labels: labels(&raw)?,
        registry_mirrors: mirrors(&raw)?,
        insecure_registries: raw.insecure_registries.clone().unwrap_or_default(),
        max_downloads: limit(
            "concurrent downloads",
            raw.max_concurrent_downloads,
            pull::DOWNLOADS,
        )?,
        max_uploads: limit("concurrent uploads", raw.max_concurrent_uploads, pull::UPLOADS)?,
        download_attempts: download_attempts(&raw)?,
        proxies: proxies(&raw)?,
        certificates: vec![DOCKER_CERTIFICATES.into()],
        hosts_files: vec![DOCKER_CERTIFICATES.into(), CONTAINERD_HOSTS.into()],
        root,
        state,
    })
}

fn absolute(path: &str) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| invalid(format_args!("{path:?}: {error}")))
}

/// Names derived from this keep two daemons' links, tables and cgroups apart.
fn suffix(root: &Path) -> String {
    if root == Path::new(DEFAULT_ROOT) {
        return String::new();
    }
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    hash[..3].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(base: &str, suffix: &str) -> String {
    if suffix.is_empty() { base.to_owned() } else { format!("{base}-{suffix}") }
}

fn hosts(raw: &File) -> Result<Vec<Host>, Error> {
    let Some(texts) = &raw.hosts else { return Ok(vec![Host::Unix(DEFAULT_SOCKET.into())]) };
    let tls = tls(raw);
    // Whoever says that there shall be none knows what he does.
    let plain = raw.tls == Some(false) || raw.tlsverify == Some(false);
    texts.iter().map(|text| host(text, plain, tls.as_ref())).collect()
}

/// `tlsverify` means TLS as well; files that are not named are where docker keeps them.
fn tls(raw: &File) -> Option<Tls> {
    let verify = raw.tlsverify == Some(true);
    if !verify && raw.tls != Some(true) {
        return None;
    }
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".docker");
    let directory = env::var_os("DOCKER_CERT_PATH").map_or_else(home, PathBuf::from);
    let file = |named: &Option<String>, name: &str| {
        named.as_ref().map_or_else(|| directory.join(name), PathBuf::from)
    };
    Some(Tls {
        ca: file(&raw.tlscacert, "ca.pem"),
        cert: file(&raw.tlscert, "cert.pem"),
        key: file(&raw.tlskey, "key.pem"),
        // TLS without a word on it asks clients for theirs, as dockerd does.
        verify: raw.tlsverify.unwrap_or(true),
    })
}

fn host(text: &str, plain_tcp: bool, tls: Option<&Tls>) -> Result<Host, Error> {
    match text.split_once("://") {
        Some(("unix", "")) => Ok(Host::Unix(DEFAULT_SOCKET.into())),
        Some(("unix", path)) => absolute(path).map(Host::Unix),
        Some(("fd", _)) => Ok(Host::Inherited),
        Some(("tcp", _)) if !plain_tcp && tls.is_none() => Err(invalid(format_args!(
            "refusing to listen on {text} without TLS: whoever reaches it is root on this host. Use --tlsverify, or say --tls=false if that is wanted"
        ))),
        Some(("tcp", address)) => {
            let port = if tls.is_some() { 2376 } else { 2375 };
            let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
            let host = if address.is_empty() { "localhost" } else { address };
            let address = if has_port { host.to_owned() } else { format!("{host}:{port}") };
            Ok(Host::Tcp(address, tls.cloned()))
        }
        _ => Err(invalid(format_args!("unable to parse the host {text:?}: invalid bind address"))),
    }
}

fn log(raw: &File) -> Result<Log, Error> {
    let level = match (raw.debug, raw.log_level.as_deref()) {
        (Some(true), _) | (_, Some("debug")) => tracing::Level::DEBUG,
        (_, None | Some("info")) => tracing::Level::INFO,
        (_, Some("trace")) => tracing::Level::TRACE,
        (_, Some("warn")) => tracing::Level::WARN,
        (_, Some("error" | "fatal" | "panic")) => tracing::Level::ERROR,
        (_, Some(other)) => return Err(invalid(format_args!("invalid logging level: {other}"))),
    };
    let json = match raw.log_format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(invalid(format_args!("invalid log format: {other}"))),
    };
    Ok(Log { level, json })
}

fn runtimes(raw: &File) -> Result<BTreeMap<String, Runtime>, Error> {
    let native = Runtime { path: sibling("cleat-runc"), args: Vec::new(), native: true };
    let mut runtimes = BTreeMap::from([(NATIVE_RUNTIME.to_owned(), native)]);
    for (name, runtime) in raw.runtimes.iter().flatten() {
        if name == NATIVE_RUNTIME {
            return Err(invalid(format_args!("runtime name '{name}' is reserved")));
        }
        if runtime.runtime_type.as_deref().is_some_and(|kind| !kind.is_empty()) {
            return Err(invalid(format_args!(
                "runtime '{name}': runtimeType is not implemented by cleat yet"
            )));
        }
        let path = runtime.path.clone().filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| {
            invalid(format_args!(
                "runtime '{name}': either a runtimeType or a path must be configured"
            ))
        })?;
        let path = if path.contains('/') {
            PathBuf::from(path)
        } else {
            in_path(&path).unwrap_or_else(|| path.into())
        };
        let args = runtime.runtime_args.clone().unwrap_or_default();
        runtimes.insert(name.clone(), Runtime { path, args, native: false });
    }
    Ok(runtimes)
}

fn init(raw: &File) -> Result<Option<PathBuf>, Error> {
    let Some(named) = &raw.init_path else {
        return Ok(in_path("docker-init").or_else(|| in_path("tini-static")));
    };
    let found = if named.contains('/') { Some(PathBuf::from(named)) } else { in_path(named) };
    match found.filter(|path| path.is_file()) {
        Some(path) => Ok(Some(path)),
        None => Err(invalid(format_args!("init binary {named:?} not found"))),
    }
}

fn network(raw: &File, suffix: &str) -> Result<crate::network::Config, Error> {
    let bridge = raw.bridge.clone().unwrap_or_default();
    if raw.bip.is_some() && bridge == "none" {
        return Err(invalid(
            "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ));
    }
    let mtu = raw.mtu.unwrap_or(0);
    let mtu =
        u32::try_from(mtu).map_err(|_| invalid(format_args!("invalid default MTU: {mtu}")))?;
    let addresses = raw.dns.clone().unwrap_or_default();
    for address in addresses.iter().chain(&raw.ip) {
        address
            .parse::<std::net::IpAddr>()
            .map_err(|_| invalid(format_args!("{address} is not an ip address")))?;
    }
    Ok(crate::network::Config {
        bridge: match bridge.as_str() {
            "none" => None,
            "" if suffix.is_empty() => Some("cleat0".to_owned()),
            "" => Some(named("cleat", suffix)),
            name => Some(name.to_owned()),
        },
        bip: raw.bip.clone(),
        mtu,
        suffix: suffix.to_owned(),
        dns: addresses,
        dns_search: raw.dns_search.clone().unwrap_or_default(),
        dns_opts: raw.dns_opts.clone().unwrap_or_default(),
        default_host_ip: raw.ip.clone().unwrap_or_else(|| "0.0.0.0".to_owned()),
        icc: raw.icc.unwrap_or(true),
    })
}

/// Containers outlive the daemon unless `--stop-containers` says otherwise: Docker's `live-restore` is always on.
fn stop_containers(raw: &File) -> Result<bool, Error> {
    match (raw.stop_containers, raw.live_restore) {
        (Some(true), Some(true)) => {
            Err(invalid("live-restore and stop-containers are mutually exclusive"))
        }
        (None, Some(false)) => Ok(true),
        (stop, _) => Ok(stop.unwrap_or(false)),
    }
}

fn image_gc(raw: &File) -> Result<crate::gc::Policy, Error> {
    let (days, percent) = (raw.image_gc_days.unwrap_or(0), raw.image_gc_disk_percent.unwrap_or(0));
    let days = u32::try_from(days).map_err(|_| {
        invalid(format_args!("invalid image-gc-days {days}: it must be a number of days, or 0"))
    })?;
    let percent = u8::try_from(percent).ok().filter(|percent| *percent < 100).ok_or_else(|| {
        invalid(format_args!(
            "invalid image-gc-disk-percent {percent}: it must be from 1 to 99, or 0"
        ))
    })?;
    let day = std::time::Duration::from_secs(24 * 3600);
    Ok(crate::gc::Policy {
        max_unused: (days > 0).then(|| day * days),
        disk_percent: Some(percent).filter(|percent| *percent > 0),
    })
}

fn labels(raw: &File) -> Result<Vec<String>, Error> {
    let labels = raw.labels.clone().unwrap_or_default();
    match labels.iter().find(|label| !label.contains('=')) {
        Some(bad) => Err(invalid(format_args!("bad attribute format: {bad}"))),
        None => Ok(labels),
    }
}

/// Addresses without a name, a password, a query or a fragment, shown with a slash at the end. Source: dockerd's words.
fn mirrors(raw: &File) -> Result<Vec<String>, Error> {
    let checked = raw.registry_mirrors.iter().flatten().map(|text| {
        let either = "must use either 'https://' or 'http://'";
        let refuse = |why: String| Err(invalid(format_args!("invalid mirror: {why}")));
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty())
        else {
            return refuse(format!("no scheme specified for {text:?}: {either}"));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            refuse(format!("unsupported scheme {scheme:?} in {text:?}: {either}"))
        } else if rest.contains(['?', '#']) {
            refuse(format!("query or fragment at end of the URI {text:?}"))
        } else if let Some((user, host)) = authority.rsplit_once('@') {
            let user = user.split(':').next().unwrap_or_default();
            let shown = format!("{scheme}://{user}:xxxxx@{host}{}", &rest[authority.len()..]);
            refuse(format!("username/password not allowed in URI {shown:?}"))
        } else if text.parse::<http::Uri>().is_err() {
            refuse(format!("{text:?} is not a valid URI"))
        } else {
            Ok(format!("{}/", text.strip_suffix('/').unwrap_or(text)))
        }
    });
    checked.collect()
}

fn limit(what: &str, given: Option<i64>, default: usize) -> Result<usize, Error> {
    let wrong = |number| invalid(format_args!("invalid max {what}: {number}"));
    given.map_or(Ok(default), |number| usize::try_from(number).map_err(|_| wrong(number)))
}

fn download_attempts(raw: &File) -> Result<u32, Error> {
    match limit("download attempts", raw.max_download_attempts, DOWNLOAD_ATTEMPTS)? {
        // dockerd takes it for its default.
        0 => Ok(DOWNLOAD_ATTEMPTS as u32),
        number => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
    }
}

fn proxies(raw: &File) -> Result<Proxies, Error> {
    let given = [("http-proxy", &raw.http_proxy), ("https-proxy", &raw.https_proxy)];
    for (key, text) in given {
        if let Some(text) = text
            && !text.is_empty()
            && Proxy::parse(text).is_none()
        {
            // Not shown: it may have a password.
            return Err(invalid(format_args!(
                "invalid {key}: a proxy's address is http://host:port"
            )));
        }
    }
    Ok(Proxies::configured(raw.http_proxy.clone(), raw.https_proxy.clone(), raw.no_proxy.clone()))
}

/// A program of ours: beside this one, else in `PATH`.
fn sibling(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    beside.filter(|path| path.is_file()).or_else(|| in_path(name)).unwrap_or_else(|| name.into())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        let file = File::parse(text.as_bytes(), &File::default())?;
        check(file).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(parsed(text).map(|_| ()).unwrap_err(), expected, "{text}");
    }

    fn id() -> cleat_proto::id::ContainerId {
        "a".repeat(64).parse().unwrap()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parsed("").unwrap();
        assert_eq!(config.root, Path::new("/var/lib/cleat"));
        assert_eq!(config.network.suffix, "");
        assert!(config.cgroups.path("", &id()).contains("cleat"));
        assert_eq!(config.network.bridge.as_deref(), Some("cleat0"));
        assert_eq!(config.hosts, [Host::Unix(DEFAULT_SOCKET.into())]);
        assert!(!config.stop_containers);
    }

    #[test]
    fn a_mirror_is_a_plain_address() {
        let mirror = |text: &str| parsed(&format!(r#"{{"registry-mirrors":["{text}"]}}"#));
        for text in ["https://m.example", "https://m.example/"] {
            assert_eq!(mirror(text).unwrap().registry_mirrors, ["https://m.example/"]);
        }
        for (text, why) in [
            ("m.example:5000", "no scheme specified for"),
            ("ftp://m.example", "unsupported scheme"),
            ("http://m.example/?x", "query or fragment at end"),
            ("http://u:secret@m.example/x", "not allowed in URI \"http://u:xxxxx@m.example/x\""),
            ("http://m exam", "is not a valid URI"),
        ] {
            let error = mirror(text).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn images_stay_unless_the_options_say_otherwise() {
        let policy = |text: &str| parsed(text).unwrap().image_gc;
        assert_eq!(policy("{}"), crate::gc::Policy::default());
        assert_eq!(
            policy(r#"{"image-gc-days":0,"image-gc-disk-percent":0}"#),
            crate::gc::Policy::default()
        );
        let both = policy(r#"{"image-gc-days":30,"image-gc-disk-percent":85}"#);
        assert_eq!(both.max_unused, Some(std::time::Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(both.disk_percent, Some(85));
        for days in ["-1", "4294967296"] {
            let why = format!("invalid image-gc-days {days}: it must be a number of days, or 0");
            refused(&format!(r#"{{"image-gc-days":{days}}}"#), &why);
        }
        for percent in ["-1", "100", "300"] {
            let why =
                format!("invalid image-gc-disk-percent {percent}: it must be from 1 to 99, or 0");
            refused(&format!(r#"{{"image-gc-disk-percent":{percent}}}"#), &why);
        }
    }

    #[test]
    fn two_roots_share_no_name() {
        let config = parsed(r#"{"data-root":"/tmp/other"}"#).unwrap();
        assert_eq!(config.network.suffix.len(), 6);
        let own = format!("cleat-{}", config.network.suffix);
        assert!(config.cgroups.path("", &id()).contains(&own));
        assert!(
            config.network.bridge.unwrap().len() < 16,
            "an interface's name has 15 bytes at most"
        );
    }

    #[test]
    fn unknown_and_unsupported_keys_end_the_start() {
        refused(
            r#"{"nosuch":1}"#,
            "the following directives don't match any configuration option: nosuch",
        );
        refused(
            r#"{"userns-remap":"x"}"#,
            "the following directives are not implemented by cleat yet: userns-remap",
        );
        refused("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}");
    }

    #[test]
    fn a_key_in_file_and_flag_ends_the_start() {
        let flags = File { debug: Some(true), ..File::default() };
        assert_eq!(
            File::parse(br#"{"debug":false}"#, &flags).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: false)"
        );
    }

    #[test]
    fn tcp_needs_a_word() {
        assert!(parsed(r#"{"hosts":["tcp://127.0.0.1:1"]}"#).is_err());
        let config = parsed(r#"{"hosts":["tcp://127.0.0.1:1","fd://"],"tls":false}"#).unwrap();
        assert_eq!(config.hosts, [Host::Tcp("127.0.0.1:1".into(), None), Host::Inherited]);
        let all = parsed(
            r#"{"hosts":["tcp://127.0.0.1"],"tlsverify":true,"tlscacert":"/c/ca","tlscert":"/c/cert","tlskey":"/c/key"}"#,
        );
        let tls =
            Tls { ca: "/c/ca".into(), cert: "/c/cert".into(), key: "/c/key".into(), verify: true };
        assert_eq!(all.unwrap().hosts, [Host::Tcp("127.0.0.1:2376".into(), Some(tls))]);
        let without = parsed(r#"{"hosts":["tcp://[::1]"],"tls":true,"tlsverify":false}"#).unwrap();
        let [Host::Tcp(address, Some(tls))] = &without.hosts[..] else {
            panic!("{:?}", without.hosts)
        };
        assert_eq!((address.as_str(), tls.verify), ("[::1]:2376", false));
    }

    #[test]
    fn sizes_and_limits_are_read() {
        let config = parsed(
            r#"{"default-shm-size":"128M","default-ulimits":{"nofile":{"Name":"nofile","Hard":2,"Soft":1}},"log-opts":{"max-size":"1m"}}"#,
        )
        .unwrap();
        assert_eq!(config.shm_size_bytes, 128 << 20);
        assert_eq!((config.ulimits[0].hard, config.ulimits[0].soft), (2, 1));
        assert_eq!(config.log_opts["max-size"], "1m");
    }

    #[test]
    fn what_registries_need_is_read() {
        let config = parsed(
            r#"{"max-concurrent-downloads":0,"max-download-attempts":0,"proxies":{"http-proxy":"http://p:1","no-proxy":"a"}}"#,
        )
        .unwrap();
        assert_eq!((config.max_downloads, config.max_uploads, config.download_attempts), (0, 5, 5));
        assert_eq!(config.proxies.http.unwrap().address, "p:1");
        assert_eq!(config.proxies.except, ["a"]);
        let flags = File { http_proxy: Some("http://q".into()), ..File::default() };
        let conflict =
            File::parse(br#"{"proxies":{"http-proxy":"http://p"}}"#, &flags).unwrap_err();
        assert!(
            conflict.ends_with("http-proxy: (from flag: http://q, from file: http://p)"),
            "{conflict}"
        );
    }

    #[test]
    fn bad_values_have_dockers_words() {
        refused(r#"{"default-runtime":"x"}"#, "specified default runtime 'x' does not exist");
        refused(r#"{"exec-opts":["a=b"]}"#, "invalid exec-opt (a=b): unknown option: 'a'");
        refused(r#"{"log-driver":"x"}"#, "logger: no log driver named 'x' is registered");
        refused(r#"{"log-level":"x"}"#, "invalid logging level: x");
        refused(r#"{"labels":["x"]}"#, "bad attribute format: x");
        refused(r#"{"max-concurrent-downloads":-1}"#, "invalid max concurrent downloads: -1");
        refused(r#"{"max-concurrent-uploads":-2}"#, "invalid max concurrent uploads: -2");
        refused(r#"{"max-download-attempts":-3}"#, "invalid max download attempts: -3");
        refused(
            r#"{"proxies":{"https-proxy":"socks5://u:p@x"}}"#,
            "invalid https-proxy: a proxy's address is http://host:port",
        );
    }
}
