//! The body of `POST /containers/create`, from the flags of `run` and `create`.

use std::collections::BTreeMap;

use cleat_proto::docker::container::{
    Config, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, LogConfig,
    NetworkingConfig, StrSlice,
};
use serde::Serialize;

use super::{
    address, blkio, device, duration, env, gpus, mount, network, port, restart, security, ulimit,
    volume,
};
use crate::flags::Flags;

/// What is sent: the three parts side by side, as Go's embedded structs come out.
#[derive(Clone, Debug, Serialize)]
pub struct CreateRequest {
    /// What runs.
    #[serde(flatten)]
    pub config: Config,
    /// How it sits on the host.
    #[serde(rename = "HostConfig")]
    pub host: HostConfig,
    /// Which networks it joins.
    #[serde(rename = "NetworkingConfig")]
    pub networking: NetworkingConfig,
}

/// Builds the request for `image` and its arguments. `proxies` come before the flags' variables.
///
/// # Errors
/// Flags that contradict each other, or files that cannot be read; in docker's words.
pub fn request(
    flags: &Flags,
    image: &str,
    arguments: &[String],
    proxies: Vec<String>,
) -> Result<CreateRequest, String> {
    let mac_address = flags.text("mac-address");
    if !mac_address.is_empty() && !address::is_mac(mac_address) {
        return Err(format!("{mac_address} is not a valid mac address"));
    }
    let swappiness = flags.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    let volumes = volume::parse(&flags.list("volume"))?;
    let ports = port::parse(&flags.list("publish"), &flags.list("expose"))?;
    let (devices, cdi) = devices(flags)?;
    let environment = env::read(&flags.list("env-file"), &proxies, env::from_environment)?;
    let labels = env::read(&flags.list("label-file"), &flags.list("label"), |_| None)?;
    check_modes(flags)?;
    let restart_policy = restart::parse(flags.text("restart"))?;
    let log_config = log_config(flags)?;
    let security = security::parse(flags.list("security-opt"))?;
    let storage_opt = storage_options(flags)?;
    let healthcheck = health(flags)?;
    let auto_remove = flags.on("rm");
    if auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    let networks = parsed(flags, "network", network::parse)?;
    let network_mode =
        networks.first().map_or("default", |network| network.target.as_str()).to_owned();
    let endpoints = endpoints(flags, networks)?;

    let attached = flags.list("attach");
    let attach = |stream: &str| attached.iter().any(|one| one == stream);
    let open_stdin = flags.on("interactive");
    let attach_stdin = open_stdin || attach("stdin");
    let endpoint_mac = endpoints
        .get(&network_mode)
        .and_then(|endpoint| endpoint.as_ref())
        .map(|e| e.mac_address.clone());
    let config = Config {
        hostname: flags.text("hostname").into(),
        domainname: flags.text("domainname").into(),
        user: flags.text("user").into(),
        attach_stdin,
        attach_stdout: attached.is_empty() || attach("stdout"),
        attach_stderr: attached.is_empty() || attach("stderr"),
        exposed_ports: Some(ports.exposed).filter(|ports| !ports.is_empty()),
        tty: flags.on("tty"),
        open_stdin,
        stdin_once: open_stdin && attach_stdin,
        env: environment,
        cmd: (!arguments.is_empty()).then(|| StrSlice(arguments.to_vec())),
        healthcheck,
        image: image.into(),
        volumes: Some(volumes.anonymous),
        working_dir: flags.text("workdir").into(),
        entrypoint: flags
            .changed("entrypoint")
            .then(|| StrSlice(vec![flags.text("entrypoint").into()])),
        mac_address: endpoint_mac.unwrap_or_else(|| mac_address.into()),
        labels: Some(super::pairs_to_map(&labels.unwrap_or_default())),
        stop_signal: flags.text("stop-signal").into(),
        stop_timeout: flags.changed("stop-timeout").then(|| flags.int("stop-timeout")),
        ..Config::default()
    };
    let empty_if_open = || security.open_system_paths.then(Vec::new);
    let host = HostConfig {
        binds: volumes.binds,
        container_id_file: flags.text("cidfile").into(),
        log_config,
        network_mode,
        port_bindings: Some(ports.bindings),
        restart_policy,
        auto_remove,
        volume_driver: flags.text("volume-driver").into(),
        volumes_from: flags.slice("volumes-from"),
        annotations: Some(super::pairs_to_map(&flags.list("annotation")))
            .filter(|map| !map.is_empty()),
        cap_add: flags.slice("cap-add").map(StrSlice),
        cap_drop: flags.slice("cap-drop").map(StrSlice),
        cgroupns_mode: flags.text("cgroupns").into(),
        dns: Some(flags.list("dns")),
        dns_options: Some(flags.list("dns-option")),
        dns_search: Some(flags.list("dns-search")),
        extra_hosts: flags.slice("add-host"),
        group_add: flags.slice("group-add"),
        ipc_mode: flags.text("ipc").into(),
        links: flags.slice("link"),
        oom_score_adj: flags.int("oom-score-adj"),
        pid_mode: flags.text("pid").into(),
        privileged: flags.on("privileged"),
        publish_all_ports: flags.on("publish-all"),
        readonly_rootfs: flags.on("read-only"),
        security_opt: security.options.clone(),
        storage_opt: Some(storage_opt).filter(|map| !map.is_empty()),
        tmpfs: Some(tmpfs(flags)).filter(|map| !map.is_empty()),
        uts_mode: flags.text("uts").into(),
        userns_mode: flags.text("userns").into(),
        shm_size: flags.bytes("shm-size"),
        sysctls: Some(super::pairs_to_map(&flags.list("sysctl"))).filter(|map| !map.is_empty()),
        runtime: flags.text("runtime").into(),
        isolation: flags.text("isolation").into(),
        mounts: Some(parsed(flags, "mount", mount::parse)?).filter(|mounts| !mounts.is_empty()),
        masked_paths: empty_if_open(),
        readonly_paths: empty_if_open(),
        init: flags.changed("init").then(|| flags.on("init")),
        ..resources(flags, devices, cdi)?
    };
    Ok(CreateRequest {
        config,
        host,
        networking: NetworkingConfig { endpoints_config: Some(endpoints) },
    })
}

fn parsed<T>(
    flags: &Flags,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    flags.list(name).iter().map(|text| parse(text)).collect()
}

/// The limits, in an otherwise empty host configuration.
fn resources(
    flags: &Flags,
    devices: Vec<cleat_proto::docker::container::DeviceMapping>,
    cdi: Vec<String>,
) -> Result<HostConfig, String> {
    let mut device_requests = parsed(flags, "gpus", gpus::parse)?;
    if !cdi.is_empty() {
        device_requests.push(cleat_proto::docker::container::DeviceRequest {
            driver: "cdi".into(),
            device_ids: Some(cdi),
            ..Default::default()
        });
    }
    let mut limits = BTreeMap::new();
    for limit in parsed(flags, "ulimit", ulimit::parse)? {
        limits.insert(limit.name.clone(), limit);
    }
    Ok(HostConfig {
        cgroup_parent: flags.text("cgroup-parent").into(),
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        nano_cpus: flags.int("cpus"),
        blkio_weight: flags.int("blkio-weight") as u16,
        blkio_weight_device: parsed(flags, "blkio-weight-device", blkio::weight).map(Some)?,
        blkio_device_read_bps: parsed(flags, "device-read-bps", blkio::bps).map(Some)?,
        blkio_device_write_bps: parsed(flags, "device-write-bps", blkio::bps).map(Some)?,
        blkio_device_read_iops: parsed(flags, "device-read-iops", blkio::iops).map(Some)?,
        blkio_device_write_iops: parsed(flags, "device-write-iops", blkio::iops).map(Some)?,
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").into(),
        cpuset_mems: flags.text("cpuset-mems").into(),
        devices: Some(devices),
        device_cgroup_rules: flags.slice("device-cgroup-rule"),
        device_requests: Some(device_requests).filter(|requests| !requests.is_empty()),
        kernel_memory: flags.bytes("kernel-memory"),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: flags.bytes("memory-swap"),
        memory_swappiness: Some(flags.int("memory-swappiness")),
        oom_kill_disable: Some(flags.on("oom-kill-disable")),
        pids_limit: Some(flags.int("pids-limit")),
        ulimits: Some(limits.into_values().collect()),
        cpu_count: flags.int("cpu-count"),
        cpu_percent: flags.int("cpu-percent"),
        io_maximum_iops: flags.int("io-maxiops") as u64,
        io_maximum_bandwidth: flags.bytes("io-maxbandwidth") as u64,
        ..HostConfig::default()
    })
}

fn devices(
    flags: &Flags,
) -> Result<(Vec<cleat_proto::docker::container::DeviceMapping>, Vec<String>), String> {
    let (cdi, paths): (Vec<String>, Vec<String>) =
        flags.list("device").into_iter().partition(|name| device::is_cdi(name));
    let devices = paths.iter().map(|path| device::parse(path)).collect::<Result<_, _>>()?;
    Ok((devices, cdi))
}

fn tmpfs(flags: &Flags) -> BTreeMap<String, String> {
    let mut mounts = BTreeMap::new();
    for text in flags.list("tmpfs") {
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        mounts.insert(path.to_owned(), options.to_owned());
    }
    mounts
}

fn check_modes(flags: &Flags) -> Result<(), String> {
    let pid = flags.text("pid");
    if !matches!(pid, "" | "host") && pid.strip_prefix("container:").is_none_or(str::is_empty) {
        return Err("--pid: invalid PID mode".into());
    }
    if !matches!(flags.text("uts"), "" | "host") {
        return Err("--uts: invalid UTS mode".into());
    }
    if !matches!(flags.text("userns"), "" | "host") {
        return Err("--userns: invalid USER mode".into());
    }
    if !matches!(flags.text("cgroupns"), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".into());
    }
    Ok(())
}

fn log_config(flags: &Flags) -> Result<LogConfig, String> {
    let options = flags.list("log-opt");
    let driver = flags.text("log-driver");
    if driver == "none" && !options.is_empty() {
        return Err(format!("invalid logging opts for driver {driver}"));
    }
    Ok(LogConfig { kind: driver.into(), config: Some(super::pairs_to_map(&options)) })
}

fn storage_options(flags: &Flags) -> Result<BTreeMap<String, String>, String> {
    let words = flags.list("storage-opt");
    if words.iter().any(|word| !word.contains('=')) {
        return Err("invalid storage option".into());
    }
    Ok(super::pairs_to_map(&words))
}

fn health(flags: &Flags) -> Result<Option<HealthConfig>, String> {
    let time = |name: &str| match flags.text(name) {
        "" => Ok(0),
        text => duration::parse(text),
    };
    let command = flags.text("health-cmd");
    let health = HealthConfig {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".into(), command.into()]),
        interval: time("health-interval")?,
        timeout: time("health-timeout")?,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries: flags.int("health-retries"),
    };
    let asked = health != HealthConfig::default();
    if flags.on("no-healthcheck") {
        if asked {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..HealthConfig::default()
        }));
    }
    for (value, name) in [
        (health.interval, "interval"),
        (health.timeout, "timeout"),
        (health.retries, "retries"),
        (health.start_period, "start-period"),
        (health.start_interval, "start-interval"),
    ] {
        if value < 0 {
            return Err(format!("--health-{name} cannot be negative"));
        }
    }
    Ok(asked.then_some(health))
}

type Endpoints = BTreeMap<String, Option<EndpointSettings>>;

fn endpoints(flags: &Flags, mut networks: Vec<network::Attachment>) -> Result<Endpoints, String> {
    let mut endpoints = Endpoints::new();
    if networks.is_empty() {
        let mut attachment = network::Attachment { target: "default".into(), ..Default::default() };
        apply_flags(flags, &mut attachment)?;
        endpoints.insert("default".into(), Some(endpoint(attachment)?));
        return Ok(endpoints);
    }
    let count = networks.len();
    let any_user = networks.iter().any(|network| network::is_user_defined(&network.target));
    let any_mode = networks.iter().any(|network| !network::is_user_defined(&network.target));
    for (index, mut attachment) in networks.drain(..).enumerate() {
        if index == 0 {
            apply_flags(flags, &mut attachment)?;
        }
        let target = attachment.target.clone();
        let endpoint = endpoint(attachment)?;
        if endpoints.contains_key(&target) {
            return Err(format!(
                "network {} is specified multiple times",
                crate::go::quote(&target)
            ));
        }
        if count > 1 || endpoint != EndpointSettings::default() {
            endpoints.insert(target, Some(endpoint));
        }
    }
    if any_user && any_mode {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    Ok(endpoints)
}

fn apply_flags(flags: &Flags, network: &mut network::Attachment) -> Result<(), String> {
    let conflict = |given: bool, flag: &str, also: bool, name: &str| {
        if given && also {
            return Err(format!(
                "conflicting options: cannot specify both --{flag} and per-network {name}"
            ));
        }
        Ok(())
    };
    let (aliases, links, local) =
        (flags.list("network-alias"), flags.list("link"), flags.list("link-local-ip"));
    let (ip, ip6, mac) = (flags.text("ip"), flags.text("ip6"), flags.text("mac-address"));
    conflict(!network.aliases.is_empty(), "network-alias", !aliases.is_empty(), "alias")?;
    conflict(!network.links.is_empty(), "link", !links.is_empty(), "links")?;
    conflict(!network.ipv4.is_empty(), "ip", !ip.is_empty(), "IPv4 address")?;
    conflict(!network.ipv6.is_empty(), "ip6", !ip6.is_empty(), "IPv6 address")?;
    conflict(!network.mac.is_empty(), "mac-address", !mac.is_empty(), "MAC address")?;
    conflict(
        !network.link_local_ips.is_empty(),
        "link-local-ip",
        !local.is_empty(),
        "link-local IP addresses",
    )?;
    if !aliases.is_empty() {
        network.aliases = aliases;
    }
    if network::is_user_defined(&network.target) && !links.is_empty() {
        network.links = links;
    }
    for (field, value) in
        [(&mut network.ipv4, ip), (&mut network.ipv6, ip6), (&mut network.mac, mac)]
    {
        if !value.is_empty() {
            value.clone_into(field);
        }
    }
    if !local.is_empty() {
        network.link_local_ips = local;
    }
    Ok(())
}

fn endpoint(network: network::Attachment) -> Result<EndpointSettings, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".into());
    }
    if !network::is_user_defined(&network.target) {
        if !network.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".into()
            );
        }
        if !network.links.is_empty() {
            return Err("links are only supported for user-defined networks".into());
        }
    }
    if !network.mac.is_empty() && !address::is_mac(&network.mac) {
        return Err(format!("{} is not a valid mac address", network.mac));
    }
    let asked =
        !network.ipv4.is_empty() || !network.ipv6.is_empty() || !network.link_local_ips.is_empty();
    Ok(EndpointSettings {
        ipam_config: asked.then(|| EndpointIpamConfig {
            ipv4_address: network.ipv4,
            ipv6_address: network.ipv6,
            link_local_ips: Some(network.link_local_ips).filter(|ips| !ips.is_empty()),
        }),
        links: Some(network.links).filter(|links| !links.is_empty()),
        aliases: Some(network.aliases).filter(|aliases| !aliases.is_empty()),
        mac_address: network.mac,
        driver_opts: Some(network.driver_opts).filter(|opts| !opts.is_empty()),
        gw_priority: network.gw_priority,
        ..EndpointSettings::default()
    })
}
