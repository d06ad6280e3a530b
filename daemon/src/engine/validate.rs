//! What is refused at create: what makes no sense, and what we do not have. Nothing that was asked for is ignored.

use cleat_proto::{
    docker::container::{Config, HostConfig, RestartPolicy},
    kind::Kind,
};

use super::{
    Error, Result,
    discard::{Kernel, discard},
    log_orders,
};
use crate::{config::Config as DaemonConfig, network};

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
    host: &mut HostConfig,
    daemon: &DaemonConfig,
    kernel: Kernel,
) -> Result<Vec<String>> {
    let mut warnings = discard(host, kernel);
    let host = &*host;
    check_net_mode(config, host)?;
    crate::spec::check(config, host)?;
    check_restart_policy(&host.restart_policy, host.auto_remove)?;
    log_orders::check(&host.log_config)?;
    check_cgroup_parent(host, daemon)?;
    check_runtime(host, daemon)?;
    check_network(config, host)?;
    check_namespaces(host)?;
    check_absent(host)?;
    check_texts(config, host)?;
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

/// Checks the parent of the container's cgroup against the driver; as Docker at every start too, since that may have changed.
///
/// # Errors
/// Docker's words.
pub(super) fn check_cgroup_parent(host: &HostConfig, daemon: &DaemonConfig) -> Result<()> {
    let checked = daemon.cgroups.driver.check_parent(&host.cgroup_parent);
    checked.map_err(|error| invalid(error.to_string()))
}

/// Checks what becomes a path or a line of a file.
fn check_texts(config: &Config, host: &HostConfig) -> Result<()> {
    let signal = config.stop_signal.as_str();
    let is_number = signal.parse::<u32>().is_ok_and(|number| number > 0);
    // Any number will do until the container is stopped.
    if !(signal.is_empty() || is_number || crate::container::signal::parse(signal).is_some()) {
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

fn check_runtime(host: &HostConfig, daemon: &DaemonConfig) -> Result<()> {
    if daemon.runtimes.contains_key(&host.runtime) {
        return Ok(());
    }
    Err(invalid(format!("unknown or invalid runtime name: {}", host.runtime)))
}

fn check_network(config: &Config, host: &HostConfig) -> Result<()> {
    network::check_extra_hosts(host.extra_hosts.as_deref().unwrap_or_default())?;
    // A container that is on no network has no resolver whose file a line could spoil.
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (search, options) = (list(&host.dns_search), list(&host.dns_options));
    network::check_names(&search, &options, &config.domainname)?;
    Ok(())
}

/// What does not go together with the network's mode. Source: moby, `runconfig`, in its order.
fn check_net_mode(config: &Config, host: &HostConfig) -> Result<()> {
    let conflict = |what: &str| Err(invalid(format!("conflicting options: {what}")));
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let joined = host.network_mode.strip_prefix("container:");
    if joined == Some("") || host.network_mode == "container" {
        return Err(invalid("invalid network mode: invalid container format container:<name|id>"));
    }
    if joined.is_some() {
        let bound = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
        let exposed = config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty());
        for (wrong, what) in [
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (
                some(&host.links),
                "container type network can't be used with links. This would result in undefined behavior",
            ),
            (some(&host.dns), "dns and the network mode"),
            (some(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
            (
                bound || host.publish_all_ports,
                "port publishing and the container type network mode",
            ),
            (exposed, "port exposing and the container type network mode"),
        ] {
            if wrong {
                return conflict(what);
            }
        }
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    if host.network_mode == "host" && some(&host.links) {
        return conflict(
            "host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    Ok(())
}

/// What Docker finds out only when the container starts.
///
/// # Errors
/// Docker's words, as a failure of its own.
pub(super) fn check_at_start(host: &HostConfig) -> Result<()> {
    for address in host.dns.iter().flatten() {
        if address.parse::<std::net::IpAddr>().is_err() {
            let text = format!(
                "bad nameserver address {address}: ParseAddr({address:?}): unable to parse IP"
            );
            return Err(Error::new(Kind::Internal, text));
        }
    }
    Ok(())
}

fn check_namespaces(host: &HostConfig) -> Result<()> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    if !matches!(host.ipc_mode.as_str(), "none" | "private" | "shareable" | "host" | "container:")
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
    // Of user namespaces there is the host's alone: whatever is asked for is that, as with a dockerd without a remapping.
    Ok(())
}

/// What this release does not have, and says so.
fn check_absent(host: &HostConfig) -> Result<()> {
    if let Some(option) = host.storage_opt.iter().flatten().map(|(key, _)| key).next() {
        // The words of Docker's overlay2 driver where there is no quota: there is none with ours.
        let text = match option.to_ascii_lowercase().as_str() {
            "size" => {
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                    .to_owned()
            }
            _ => format!("Unknown option {option}"),
        };
        return Err(Error::new(Kind::Internal, text));
    }
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let absent = [
        (some(&host.links), "linking containers (--link)"),
        (!matches!(host.isolation.as_str(), "" | "default"), "an isolation technology"),
        (!host.cgroup.is_empty(), "joining a cgroup of another container"),
    ];
    match absent.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(not_yet(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::go_json;

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
        assert_eq!(check_absent(&host).unwrap_err().kind(), Kind::NotImplemented);
        let sized = [("size".to_owned(), "1g".to_owned())].into();
        let host = HostConfig { storage_opt: Some(sized), ..HostConfig::default() };
        assert_eq!(check_absent(&host).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn who_joins_a_network_decides_nothing_about_it() {
        let check = |config: &str, host: &str| {
            let config: Config = go_json::from_slice(config.as_bytes()).unwrap();
            let host: HostConfig = go_json::from_slice(host.as_bytes()).unwrap();
            check_net_mode(&config, &host).map_err(|error| error.whole())
        };
        let refused = |config: &str, host: &str, expected: &str| {
            assert_eq!(check(config, host).unwrap_err(), expected, "{config} {host}");
        };
        refused(
            "{}",
            r#"{"NetworkMode":"container:"}"#,
            "invalid network mode: invalid container format container:<name|id>",
        );
        refused(
            r#"{"Hostname":"x"}"#,
            r#"{"NetworkMode":"container:a"}"#,
            "conflicting options: hostname and the network mode",
        );
        refused(
            "{}",
            r#"{"NetworkMode":"container:a","Dns":["1.1.1.1"]}"#,
            "conflicting options: dns and the network mode",
        );
        refused(
            "{}",
            r#"{"NetworkMode":"container:a","PublishAllPorts":true}"#,
            "conflicting options: port publishing and the container type network mode",
        );
        refused(
            r#"{"ExposedPorts":{"80/tcp":{}}}"#,
            r#"{"NetworkMode":"container:a"}"#,
            "conflicting options: port exposing and the container type network mode",
        );
        refused(
            r#"{"Hostname":"x"}"#,
            r#"{"UTSMode":"host"}"#,
            "conflicting options: hostname and the UTS mode",
        );
        assert_eq!(check(r#"{"Hostname":"x"}"#, r#"{"NetworkMode":"host"}"#), Ok(()));
    }

    #[test]
    fn a_wrong_resolver_is_found_at_start() {
        let host = HostConfig { dns: Some(vec!["bad".into()]), ..HostConfig::default() };
        assert_eq!(
            check_at_start(&host).unwrap_err().whole(),
            "bad nameserver address bad: ParseAddr(\"bad\"): unable to parse IP"
        );
    }
}
