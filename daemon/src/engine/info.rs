//! What the daemon says of itself and of the host: `/info` and `/version`.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use cleat_proto::docker::system::{
    API_VERSION, Component, FirewallBackend, IndexConfig, Info, MIN_API_VERSION, PRODUCT_VERSION,
    Platform, Plugins, RegistryConfig, Runtime, Swarm, Version,
};
use serde_json::json;

use super::Engine;
use crate::{
    config::{Config, LOG_DRIVERS},
    container::State,
    event, registry,
};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

impl Engine {
    /// Describes the program.
    pub fn version() -> Version {
        let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        let (api, min) = (text(API_VERSION), text(MIN_API_VERSION));
        let host = Host::get();
        let details = [
            ("ApiVersion", api.as_str()),
            ("Arch", go_arch()),
            ("BuildTime", ""),
            ("Experimental", "false"),
            ("GitCommit", GIT_COMMIT),
            ("GoVersion", NOT_GO),
            ("KernelVersion", &host.kernel),
            ("MinAPIVersion", &min),
            ("Os", "linux"),
        ];
        let details = details.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let engine = Component {
            name: "Engine".to_owned(),
            version: PRODUCT_VERSION.to_owned(),
            details: BTreeMap::from(details),
        };
        Version {
            platform: Platform { name: concat!("cleat ", env!("CARGO_PKG_VERSION")).to_owned() },
            components: vec![engine],
            version: PRODUCT_VERSION.to_owned(),
            api_version: api,
            min_api_version: min,
            git_commit: GIT_COMMIT.to_owned(),
            go_version: NOT_GO.to_owned(),
            os: "linux".to_owned(),
            arch: go_arch().to_owned(),
            kernel_version: host.kernel.clone(),
            build_time: BUILD_TIME.to_owned(),
        }
    }

    /// Describes the daemon, its containers and the host.
    pub fn info(&self) -> Info {
        let config = &*self.config();
        let host = Host::get();
        let containers = self.containers();
        let count =
            |wanted: fn(State) -> bool| containers.iter().filter(|c| wanted(c.state)).count();
        let (running, paused) = (
            count(|state| matches!(state, State::Running { .. } | State::Restarting)),
            count(|state| matches!(state, State::Paused { .. })),
        );
        let ipv4_forwarding = read("/proc/sys/net/ipv4/ip_forward") == "1";
        Info {
            id: daemon_id(config),
            containers: containers.len(),
            containers_running: running,
            containers_paused: paused,
            containers_stopped: containers.len() - running - paused,
            images: self.images().count(),
            driver: "overlay2".to_owned(),
            driver_status: vec![(
                "Backing Filesystem".to_owned(),
                filesystem(&config.root).to_owned(),
            )],
            plugins: Plugins {
                volume: vec!["local".to_owned()],
                network: ["bridge", "host", "null"].map(str::to_owned).into(),
                authorization: None,
                log: LOG_DRIVERS
                    .iter()
                    .filter(|name| **name != "none")
                    .map(|name| (*name).to_owned())
                    .collect(),
            },
            memory_limit: host.has("memory"),
            swap_limit: host.swap_limit,
            kernel_memory_tcp: !host.unified && host.has("memory"),
            cpu_cfs_period: host.has("cpu"),
            cpu_cfs_quota: host.has("cpu"),
            cpu_shares: host.has("cpu"),
            cpu_set: host.has("cpuset"),
            pids_limit: host.has("pids"),
            ipv4_forwarding,
            debug: config.log.level >= tracing::Level::DEBUG,
            n_fd: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            oom_kill_disable: !host.unified && host.has("memory"),
            n_goroutines: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            system_time: jiff::Timestamp::now().to_string(),
            logging_driver: config.log_driver.clone(),
            cgroup_driver: config.cgroups.driver.name().to_owned(),
            cgroup_version: if host.unified { "2" } else { "1" }.to_owned(),
            n_events_listener: self.events().listeners(),
            kernel_version: host.kernel.clone(),
            operating_system: host.system.clone(),
            os_version: host.system_version.clone(),
            os_type: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: registry_config(config),
            n_cpu: host.cpus,
            mem_total: host.memory_bytes,
            generic_resources: None,
            docker_root_dir: config.root.display().to_string(),
            http_proxy: shown(config.proxies.http.as_ref()),
            https_proxy: shown(config.proxies.https.as_ref()),
            no_proxy: config.proxies.except.join(","),
            name: host_name(),
            labels: config.labels.clone(),
            experimental_build: false,
            server_version: PRODUCT_VERSION.to_owned(),
            runtimes: runtimes(config),
            default_runtime: config.default_runtime.clone(),
            swarm: Swarm::default(),
            live_restore_enabled: !config.stop_containers,
            isolation: String::new(),
            init_binary: config
                .init
                .as_deref()
                .and_then(Path::file_name)
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            containerd_commit: Default::default(),
            runc_commit: Default::default(),
            init_commit: Default::default(),
            security_options: security_options(host),
            firewall_backend: Some(FirewallBackend { driver: "nftables".to_owned() }),
            // Where Docker looks for them. There is no device driver here: a request for one fails at start, by name.
            cdi_spec_dirs: CDI_SPEC_DIRS.map(str::to_owned).into(),
            warnings: Some(warnings(host, ipv4_forwarding)).filter(|all| !all.is_empty()),
        }
    }

    /// Says that the options were read again.
    pub(super) fn say_reloaded(&self, config: &Config) {
        let runtimes = config.runtimes.iter();
        let runtimes = runtimes.map(|(name, runtime)| format!("{name}:{}", runtime.path.display()));
        let attributes = [
            ("name", host_name()),
            ("debug", (config.log.level >= tracing::Level::DEBUG).to_string()),
            ("default-runtime", config.default_runtime.clone()),
            ("default-shm-size", config.shm_size_bytes.to_string()),
            ("insecure-registries", json!(config.insecure_registries).to_string()),
            ("labels", json!(config.labels).to_string()),
            ("live-restore", (!config.stop_containers).to_string()),
            ("max-concurrent-downloads", config.max_downloads.to_string()),
            ("max-concurrent-uploads", config.max_uploads.to_string()),
            ("max-download-attempts", config.download_attempts.to_string()),
            ("registry-mirrors", json!(config.registry_mirrors).to_string()),
            ("runtimes", runtimes.collect::<Vec<_>>().join(" ")),
            ("shutdown-timeout", config.shutdown_timeout.as_secs().to_string()),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value)).into();
        self.events().publish(event::Event::now(
            event::Kind::Daemon,
            "reload",
            daemon_id(config),
            attributes,
        ));
    }
}

/// Filled in by who builds a release; clients only print them.
const GIT_COMMIT: &str = match option_env!("CLEAT_GIT_COMMIT") {
    Some(commit) => commit,
    None => "",
};
const BUILD_TIME: &str = match option_env!("CLEAT_BUILD_TIME") {
    Some(time) => time,
    None => "unknown",
};
/// `GoVersion` is mandatory in the API.
const NOT_GO: &str = "none (rust)";

/// The architecture as Go and OCI name it.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Source: CNCF Container Device Interface, SPEC.md, "CDI JSON Specification", default directories.
const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What does not change while we run.
struct Host {
    kernel: String,
    system: String,
    system_version: String,
    cpus: usize,
    memory_bytes: u64,
    unified: bool,
    controllers: Vec<String>,
    swap_limit: bool,
}

impl Host {
    fn get() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Self::look)
    }

    fn look() -> Self {
        let release = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        let release = release.unwrap_or_default();
        let unified = Path::new(CGROUP_ROOT).join("cgroup.controllers").exists();
        let kernel =
            nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
        Self {
            kernel: kernel.unwrap_or_default(),
            system: release_field(&release, "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            system_version: release_field(&release, "VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes().unwrap_or(0),
            unified,
            controllers: controllers(unified),
            swap_limit: swap_limit(unified),
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// Whether the kernel accounts for swap. v2's root cgroup has no limits: our own, below it, shows what there is.
fn swap_limit(unified: bool) -> bool {
    let own = read("/proc/self/cgroup");
    let file = match own.lines().find_map(|line| line.strip_prefix("0::/")) {
        Some(own) if unified => Path::new(own).join("memory.swap.max"),
        _ => "memory/memory.memsw.limit_in_bytes".into(),
    };
    Path::new(CGROUP_ROOT).join(file).exists()
}

/// What the host lacks, as clients print it. What v2 has for no host, or v1 for none any more, is nothing to warn of.
fn warnings(host: &Host, ipv4_forwarding: bool) -> Vec<String> {
    let (v1, io) = (!host.unified, host.has(if host.unified { "io" } else { "blkio" }));
    let wants = [
        (host.has("memory"), "No memory limit support"),
        (host.swap_limit, "No swap limit support"),
        (!v1 || host.has("memory"), "No kernel memory TCP limit support"),
        (!v1 || host.has("memory"), "No oom kill disable support"),
        (host.has("cpu"), "No cpu cfs quota support"),
        (host.has("cpu"), "No cpu cfs period support"),
        (host.has("cpu"), "No cpu shares support"),
        (host.has("cpuset"), "No cpuset support"),
        (v1 || io, "No io.weight support"),
        (v1 || io, "No io.weight (per device) support"),
        (v1 || io, "No io.max (rbps) support"),
        (v1 || io, "No io.max (wbps) support"),
        (v1 || io, "No io.max (riops) support"),
        (v1 || io, "No io.max (wiops) support"),
        (!v1 || io, "No blkio throttle.read_bps_device support"),
        (!v1 || io, "No blkio throttle.write_bps_device support"),
        (!v1 || io, "No blkio throttle.read_iops_device support"),
        (!v1 || io, "No blkio throttle.write_iops_device support"),
        (ipv4_forwarding, "IPv4 forwarding is disabled"),
    ];
    let missing = wants.into_iter().filter(|(has, _)| !has);
    missing.map(|(_, text)| format!("WARNING: {text}")).collect()
}

fn host_name() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

fn controllers(unified: bool) -> Vec<String> {
    if unified {
        return read("/sys/fs/cgroup/cgroup.controllers")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    }
    mounted(&read("/proc/cgroups"))
}

/// Reads off a `/proc/cgroups` which controllers are in a hierarchy of v1: a kernel may have some for v2 alone.
fn mounted(table: &str) -> Vec<String> {
    // cgroups(7): name, hierarchy, number of cgroups, enabled
    let rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [name, hierarchy, _, "1"] if hierarchy != "0" => Some(name.to_owned()),
        _ => None,
    })
    .collect()
}

fn memory_bytes() -> Option<u64> {
    let table = read("/proc/meminfo");
    let kib: u64 = table.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// `os-release(5)`: `KEY="value"`.
fn release_field(release: &str, key: &str) -> Option<String> {
    let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches(['"', '\'']).to_owned())
}

/// A UUID of the root's, kept beside the database.
fn daemon_id(config: &Config) -> String {
    let path = config.root.join("engine-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return id.trim().to_owned();
    }
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return String::new();
    }
    // RFC 9562, version 4
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let id =
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    if let Err(error) = fs::write(&path, &id) {
        tracing::warn!(%error, "the daemon's id cannot be kept");
    }
    id
}

fn filesystem(root: &Path) -> &'static str {
    use nix::sys::statfs;
    match statfs::statfs(root).map(|stat| stat.filesystem_type()) {
        Ok(statfs::EXT4_SUPER_MAGIC) => "extfs",
        Ok(statfs::TMPFS_MAGIC) => "tmpfs",
        Ok(statfs::BTRFS_SUPER_MAGIC) => "btrfs",
        Ok(statfs::XFS_SUPER_MAGIC) => "xfs",
        Ok(statfs::OVERLAYFS_SUPER_MAGIC) => "overlayfs",
        _ => "<unknown>",
    }
}

fn registry_config(config: &Config) -> RegistryConfig {
    let hub = IndexConfig {
        mirrors: config.registry_mirrors.clone(),
        name: "docker.io".to_owned(),
        official: true,
        secure: true,
    };
    let mut index_configs = BTreeMap::from([(hub.name.clone(), hub)]);
    let mut cidrs = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    for registry in &config.insecure_registries {
        if registry.contains('/') {
            cidrs.push(registry.clone());
        } else {
            let entry = IndexConfig { name: registry.clone(), ..IndexConfig::default() };
            index_configs.insert(registry.clone(), entry);
        }
    }
    let mirrors = Some(config.registry_mirrors.clone()).filter(|mirrors| !mirrors.is_empty());
    RegistryConfig { index_configs, insecure_registry_cidrs: cidrs, mirrors }
}

/// A proxy as `docker info` shows it: whoever may ask must not learn its password.
fn shown(proxy: Option<&registry::Proxy>) -> String {
    let Some(proxy) = proxy else { return String::new() };
    let credentials = if proxy.authorization.is_some() { "xxxxx:xxxxx@" } else { "" };
    format!("http://{credentials}{}", proxy.address)
}

fn runtimes(config: &Config) -> BTreeMap<String, Runtime> {
    let shown = config.runtimes.iter().map(|(name, runtime)| {
        let shown = Runtime {
            path: runtime.path.display().to_string(),
            runtime_args: runtime.args.clone(),
            status: None,
        };
        (name.clone(), shown)
    });
    shown.collect()
}

fn security_options(host: &Host) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if host.unified {
        options.push("name=cgroupns".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_in_no_hierarchy_of_v1_is_not_there() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t41\t1\npids\t4\t36\t1\nrdma\t9\t1\t0\n";
        assert_eq!(mounted(table), ["pids"]);
    }
}
