//! What is refused at create: what makes no sense, and what we do not have. Nothing that was asked for is ignored.

use cleat_proto::{
    docker::container::{Config, HostConfig, PortMap, RestartPolicy},
    kind::Kind,
};

use super::{Error, Result};
use crate::{config::Config as DaemonConfig, network};

/// The default log driver, and the one that keeps nothing.
const LOG_DRIVERS: [&str; 2] = ["json-file", "none"];

/// Those that Docker has besides.
const DOCKERS_LOG_DRIVERS: [&str; 8] =
    ["awslogs", "fluentd", "gcplogs", "gelf", "journald", "local", "splunk", "syslog"];

/// The options of `json-file`.
const LOG_OPTIONS: [&str; 9] = [
    "max-file",
    "max-size",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
];

fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

fn not_yet(what: &str) -> Error {
    Error::new(Kind::NotImplemented, format!("{what} is not supported yet"))
}

/// Checks a request, defaults filled in; returns what the client should know.
///
/// # Errors
/// Docker's words where it refuses too.
pub(super) fn check(
    config: &Config,
    host: &HostConfig,
    daemon: &DaemonConfig,
) -> Result<Vec<String>> {
    crate::spec::check(config, host)?;
    check_restart_policy(&host.restart_policy, host.auto_remove)?;
    check_log(config, host)?;
    check_runtime(host, daemon)?;
    check_network(config, host)?;
    check_namespaces(host)?;
    check_absent(config, host)?;
    check_texts(config, host)?;
    let mut warnings = Vec::new();
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

/// Checks what becomes a path or a line of a file.
fn check_texts(config: &Config, host: &HostConfig) -> Result<()> {
    let signal = config.stop_signal.as_str();
    if !signal.is_empty() && crate::container::signal::parse(signal).is_none() {
        return Err(invalid(format!("invalid signal: {signal}")));
    }
    let parent = host.cgroup_parent.as_str();
    if parent.split('/').any(|part| part == "..") || parent.contains('\0') {
        return Err(invalid(format!(
            "invalid cgroup parent {parent:?}: it may not leave its root"
        )));
    }
    let mut hosts = host.extra_hosts.iter().flatten();
    match hosts.find(|text| text.contains(char::is_whitespace) || text.contains('\0')) {
        Some(text) => Err(invalid(format!("bad format for add-host: {text:?}"))),
        None => Ok(()),
    }
}

/// Checks a restart policy.
///
/// # Errors
/// Docker's words.
pub(super) fn check_restart_policy(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let retries = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if retries != 0 => {
            let why = if retries < 0 { " and cannot be negative" } else { "" };
            return Err(invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{why}"
            )));
        }
        "on-failure" if retries < 0 => {
            return Err(invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

fn check_log(config: &Config, host: &HostConfig) -> Result<()> {
    let driver = host.log_config.kind.as_str();
    if !(LOG_DRIVERS.contains(&driver) || DOCKERS_LOG_DRIVERS.contains(&driver)) {
        return Err(invalid(format!(
            "error looking up logging plugin {driver}: plugin {driver:?} not found"
        )));
    }
    if !LOG_DRIVERS.contains(&driver) {
        return Err(not_yet(&format!("the logging driver {driver}")));
    }
    let options = host.log_config.config.as_ref();
    for (key, value) in options.into_iter().flatten() {
        if driver == "json-file" && !LOG_OPTIONS.contains(&key.as_str()) {
            return Err(invalid(format!("unknown log opt '{key}' for json-file log driver")));
        }
        if matches!(key.as_str(), "labels-regex" | "env-regex" | "tag") && !value.is_empty() {
            return Err(not_yet(&format!("the log option {key}")));
        }
        if key == "mode" && value != "blocking" {
            // The shim never blocks a container on its log, and never drops from it: there is one mode.
            return Err(not_yet(&format!("the log mode {value}")));
        }
    }
    super::start::log_orders(host, config, String::new()).map(drop)
}

fn check_runtime(host: &HostConfig, daemon: &DaemonConfig) -> Result<()> {
    if daemon.runtimes.contains_key(&host.runtime) {
        return Ok(());
    }
    Err(invalid(format!("unknown or invalid runtime name: {}", host.runtime)))
}

fn check_network(config: &Config, host: &HostConfig) -> Result<()> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    network::check_ports(host.port_bindings.as_ref().unwrap_or(&PortMap::new()))?;
    network::check_extra_hosts(&list(&host.extra_hosts))?;
    network::check_dns(&list(&host.dns))?;
    let (search, options) = (list(&host.dns_search), list(&host.dns_options));
    network::check_names(&search, &options, &config.domainname)?;
    Ok(())
}

fn check_namespaces(host: &HostConfig) -> Result<()> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    if !matches!(host.ipc_mode.as_str(), "none" | "private" | "shareable" | "host")
        && !container(&host.ipc_mode)
    {
        return Err(invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !matches!(host.pid_mode.as_str(), "" | "host") && !container(&host.pid_mode) {
        return Err(invalid(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "private" | "host") {
        return Err(invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    match host.userns_mode.as_str() {
        "" | "host" => Ok(()),
        other => Err(invalid(format!("invalid USER mode: {other}"))),
    }
}

/// What this release does not have, and says so.
fn check_absent(config: &Config, host: &HostConfig) -> Result<()> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let absent = [
        (some(&host.links), "linking containers (--link)"),
        (host.device_requests.as_ref().is_some_and(|r| !r.is_empty()), "a device request (--gpus)"),
        (host.storage_opt.as_ref().is_some_and(|o| !o.is_empty()), "a storage option"),
        (!matches!(host.volume_driver.as_str(), "" | "local"), "a volume driver other than local"),
        (!matches!(host.isolation.as_str(), "" | "default"), "an isolation technology"),
        (!host.cgroup.is_empty(), "joining a cgroup of another container"),
        (config.network_disabled, "NetworkDisabled"),
        (host.cpu_count != 0 || host.cpu_percent != 0, "CpuCount and CpuPercent"),
        (
            host.io_maximum_iops != 0 || host.io_maximum_bandwidth != 0,
            "IOMaximumIOps and IOMaximumBandwidth",
        ),
    ];
    match absent.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(not_yet(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_policy(name: &str, retries: i64, auto_remove: bool, expected: Option<&str>) {
        let policy = RestartPolicy { name: name.into(), maximum_retry_count: retries };
        let error = check_restart_policy(&policy, auto_remove).err().map(|error| error.whole());
        assert_eq!(error.as_deref(), expected, "{name} {retries} {auto_remove}");
    }

    #[test]
    fn only_known_restart_policies_are_taken() {
        check_policy("always", 0, false, None);
        check_policy("on-failure", 3, false, None);
        check_policy(
            "sometimes",
            0,
            false,
            Some(
                "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            ),
        );
    }

    #[test]
    fn retries_belong_to_on_failure() {
        check_policy(
            "always",
            3,
            false,
            Some("invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        );
    }

    #[test]
    fn what_removes_itself_is_not_restarted() {
        check_policy(
            "always",
            0,
            true,
            Some("can't create 'AutoRemove' container with restart policy"),
        );
    }

    #[test]
    fn what_is_not_there_yet_is_refused() {
        let host = HostConfig { links: Some(vec!["db".into()]), ..HostConfig::default() };
        let error = check_absent(&Config::default(), &host).unwrap_err();
        assert_eq!(error.kind(), Kind::NotImplemented);
    }
}
