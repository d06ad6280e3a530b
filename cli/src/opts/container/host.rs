//! How the container sits on the host.

use std::collections::BTreeMap;

use cleat_proto::docker::container::{HostConfig, LogConfig, StrSlice};

use super::{Read, limits, parsed};
use crate::flags::Flags;
use crate::opts::{mount, pairs_to_map};

/// The host's part of the request.
///
/// # Errors
/// A mount or a limit that cannot be read.
pub fn host(flags: &Flags, read: Read) -> Result<HostConfig, String> {
    let open_paths = read.security.open_system_paths;
    let empty_if_open = || open_paths.then(Vec::new);
    Ok(HostConfig {
        binds: read.volumes.binds,
        container_id_file: flags.text("cidfile").into(),
        log_config: read.log_config,
        network_mode: read.network_mode,
        port_bindings: Some(read.ports.bindings),
        restart_policy: read.restart_policy,
        auto_remove: flags.on("rm"),
        volume_driver: flags.text("volume-driver").into(),
        volumes_from: flags.slice("volumes-from"),
        annotations: some_map(pairs_to_map(&flags.list("annotation"))),
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
        security_opt: read.security.options,
        storage_opt: some_map(read.storage),
        tmpfs: some_map(tmpfs(flags)),
        uts_mode: flags.text("uts").into(),
        userns_mode: flags.text("userns").into(),
        shm_size: flags.bytes("shm-size"),
        sysctls: some_map(pairs_to_map(&flags.list("sysctl"))),
        runtime: flags.text("runtime").into(),
        isolation: flags.text("isolation").into(),
        mounts: Some(parsed(flags, "mount", mount::parse)?).filter(|mounts| !mounts.is_empty()),
        masked_paths: empty_if_open(),
        readonly_paths: empty_if_open(),
        init: flags.changed("init").then(|| flags.on("init")),
        ..limits::limits(flags, read.devices)?
    })
}

fn some_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

fn tmpfs(flags: &Flags) -> BTreeMap<String, String> {
    let mut mounts = BTreeMap::new();
    for text in flags.list("tmpfs") {
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        mounts.insert(path.to_owned(), options.to_owned());
    }
    mounts
}

/// Refuses namespaces that do not exist.
pub fn check_modes(flags: &Flags) -> Result<(), String> {
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

/// The logging driver with its options.
pub fn log_config(flags: &Flags) -> Result<LogConfig, String> {
    let options = flags.list("log-opt");
    let driver = flags.text("log-driver");
    if driver == "none" && !options.is_empty() {
        return Err(format!("invalid logging opts for driver {driver}"));
    }
    Ok(LogConfig { kind: driver.into(), config: Some(pairs_to_map(&options)) })
}

/// The storage driver's options.
pub fn storage_options(flags: &Flags) -> Result<BTreeMap<String, String>, String> {
    let words = flags.list("storage-opt");
    if words.iter().any(|word| !word.contains('=')) {
        return Err("invalid storage option".into());
    }
    Ok(pairs_to_map(&words))
}
