//! What Docker refuses at create, in its words, where no file of the container is needed to tell. What it lets pass to fail
//! at start we refuse here as well.

use std::collections::BTreeMap;

use cleat_proto::docker::{
    container::{Config, HealthConfig, HostConfig},
    sysctl,
};

use super::{Error, capabilities, devices, resources, seccomp, security_opt};

/// The least memory that a container is given.
const MIN_MEMORY: i64 = 6 << 20;
/// The most CPU shares that the kernel takes.
const MAX_SHARES: i64 = 262_144;
/// The highest CPU or memory node that Docker looks at.
const MAX_CPU: u64 = 8192;
/// A millisecond, in nanoseconds.
const MILLISECOND: i64 = 1_000_000;

fn refuse(condition: bool, text: impl Into<String>) -> Result<(), Error> {
    if condition { Err(Error::Invalid(text.into())) } else { Ok(()) }
}

/// Checks all of it.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(config: &Config, host: &HostConfig) -> Result<(), Error> {
    check_config(config)?;
    check_resources(host, false)?;
    security_opt::parse(host.security_opt.as_deref().unwrap_or_default())?;
    capabilities::granted(host, capabilities::available())?;
    let score = host.oom_score_adj;
    refuse(
        !(-1000..=1000).contains(&score),
        format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"),
    )?;
    refuse(host.shm_size < 0, "SHM size can not be less than 0")?;
    let parent = &host.cgroup_parent;
    let leaves = parent.split('/').any(|part| part == ".." || part.contains(char::is_control));
    refuse(leaves, format!("invalid cgroup parent {parent:?}"))?;
    let isolation = host.isolation.as_str();
    refuse(
        !matches!(isolation, "" | "default"),
        format!("invalid isolation ({isolation}): linux only supports 'default'"),
    )?;
    let empty_key = host.annotations.iter().flatten().any(|(key, _)| key.is_empty());
    refuse(empty_key, "invalid Annotations: the empty string is not permitted as an annotation key")
}

/// What the runtime says before its own words.
const RUNTIME: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed";

/// Checks what Docker leaves to the start of the container. Nothing of it has happened before.
///
/// # Errors
/// [`Error::AtStart`], or [`Error::Invalid`] where Docker too blames the caller.
pub fn check_at_start(config: &Config, host: &HostConfig) -> Result<(), Error> {
    let late = |error: Error| Error::AtStart(error.to_string());
    let runtime = |error: Error| Error::AtStart(format!("{RUNTIME}: {error}"));
    check_security(host).map_err(late)?;
    check_device_requests(host).map_err(late)?;
    for mapping in host.devices.iter().flatten() {
        devices::access(&mapping.cgroup_permissions).map_err(late)?;
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        devices::cgroup_rule(rule).map_err(late)?;
    }
    check_names(config).map_err(runtime)?;
    check_sysctl_names(host)?;
    check_sysctls(host).map_err(runtime)?;
    let shares = host.cpu_shares;
    refuse(shares == 1, "the minimum allowed cpu-shares is 2").map_err(runtime)?;
    let most = format!("the maximum allowed cpu-shares is {MAX_SHARES}");
    refuse(shares > MAX_SHARES, most).map_err(runtime)?;
    for ulimit in host.ulimits.iter().flatten() {
        resources::rlimit(ulimit).map_err(runtime)?;
    }
    Ok(())
}

/// There is no device driver, and no CDI specification is read.
fn check_device_requests(host: &HostConfig) -> Result<(), Error> {
    let Some(request) = host.device_requests.iter().flatten().next() else { return Ok(()) };
    let words = |list: &[String]| format!("[{}]", list.join(" "));
    let text = if request.driver == "cdi" {
        let devices = request.device_ids.as_deref().unwrap_or_default().join(", ");
        format!("CDI device injection failed: unresolvable CDI devices {devices}")
    } else {
        let sets = request.capabilities.iter().flatten().map(|set| words(set)).collect::<Vec<_>>();
        let driver = &request.driver;
        format!("could not select device driver {driver:?} with capabilities: {}", words(&sets))
    };
    Err(Error::Invalid(text))
}

/// The kernel takes up to 64 bytes; a line of `/etc/hosts` has no more than one line.
fn check_names(config: &Config) -> Result<(), Error> {
    for (what, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        let fits = name.len() <= 64 && !name.contains(char::is_control);
        refuse(!fits, format!("set{what}: invalid argument"))?;
    }
    Ok(())
}

fn check_config(config: &Config) -> Result<(), Error> {
    let directory = &config.working_dir;
    refuse(
        !directory.is_empty() && !directory.starts_with('/'),
        format!("the working directory '{directory}' is invalid, it needs to be an absolute path"),
    )?;
    for entry in config.env.iter().flatten() {
        refuse(
            entry.is_empty() || entry.starts_with('='),
            format!("invalid environment variable: {entry}"),
        )?;
        refuse(entry.contains('\0'), "invalid environment variable: it contains a NUL byte")?;
    }
    let words = config.cmd.iter().chain(&config.entrypoint).flat_map(|list| &list.0);
    refuse(
        words.into_iter().any(|word| word.contains('\0')),
        "invalid command: it contains a NUL byte",
    )?;
    config.healthcheck.as_ref().map_or(Ok(()), check_health)
}

fn check_health(health: &HealthConfig) -> Result<(), Error> {
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        refuse(
            value != 0 && value < MILLISECOND,
            format!("{name} in Healthcheck cannot be less than 1ms"),
        )?;
    }
    refuse(health.retries < 0, "Retries in Healthcheck cannot be negative")?;
    let kind = health.test.as_ref().and_then(|test| test.first()).map_or("", String::as_str);
    refuse(
        !matches!(kind, "" | "NONE" | "CMD" | "CMD-SHELL"),
        format!("Unknown type in Healthcheck: {kind:?}: only NONE, CMD and CMD-SHELL are known"),
    )?;
    let has_no_command = health.test.as_ref().is_some_and(|test| test.len() == 1);
    refuse(kind == "CMD" && has_no_command, "Missing command after CMD in Healthcheck")
}

/// Checks limits, for a create or for an `update`, which may leave out what was set before.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_resources(host: &HostConfig, update: bool) -> Result<(), Error> {
    check_memory(host, update)?;
    check_cpu(host, update)?;
    let weight = host.blkio_weight;
    refuse(
        weight > 0 && !(10..=1000).contains(&weight),
        "Range of blkio weight is from 10 to 1000",
    )?;
    refuse(
        update && (host.io_maximum_bandwidth != 0 || host.io_maximum_iops != 0),
        "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
    )?;
    refuse(
        host.io_maximum_bandwidth != 0,
        "invalid option: QoS maximum bandwidth configuration is not supported on linux",
    )?;
    refuse(
        host.io_maximum_iops != 0,
        "invalid option: QoS maximum IOPs configuration is not supported on linux",
    )
}

fn check_memory(host: &HostConfig, update: bool) -> Result<(), Error> {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    refuse(memory != 0 && memory < MIN_MEMORY, "Minimum memory limit allowed is 6MB")?;
    refuse(
        memory > 0 && swap > 0 && swap < memory,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    )?;
    refuse(
        memory == 0 && swap > 0 && !update,
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    )?;
    if let Some(swappiness) = host.memory_swappiness {
        refuse(
            !(-1..=100).contains(&swappiness),
            format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"),
        )?;
    }
    refuse(
        reservation > 0 && reservation < MIN_MEMORY,
        "Minimum memory reservation allowed is 6MB",
    )?;
    let kernel = host.kernel_memory;
    refuse(kernel > 0 && kernel < MIN_MEMORY, "Minimum kernel memory limit allowed is 6MB")?;
    refuse(
        memory > 0 && reservation > 0 && memory < reservation,
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    )
}

fn check_cpu(host: &HostConfig, update: bool) -> Result<(), Error> {
    let nano = host.nano_cpus;
    refuse(
        nano > 0 && host.cpu_period > 0,
        "Conflicting options: Nano CPUs and CPU Period cannot both be set",
    )?;
    refuse(
        nano > 0 && host.cpu_quota > 0,
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
    )?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    refuse(
        nano < 0 || i128::from(nano) > cpus as i128 * 1_000_000_000,
        format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"),
    )?;
    let shares = host.cpu_shares;
    refuse(
        shares < 0 && !update,
        format!("invalid CPU shares ({shares}): value must be a positive integer"),
    )?;
    refuse(
        host.cpu_realtime_period != 0 && host.cpu_realtime_runtime > host.cpu_realtime_period,
        "cpu real-time runtime cannot be higher than cpu real-time period",
    )?;
    refuse(
        host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )?;
    refuse(
        host.cpu_quota > 0 && host.cpu_quota < 1000,
        "CPU cfs quota can not be less than 1ms (i.e. 1000)",
    )?;
    let online = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = online("/sys/devices/system/cpu/online");
    check_cpuset("cpus", "CPUs", &host.cpuset_cpus, &cpus)?;
    let nodes = online("/sys/devices/system/node/online");
    let nodes = if nodes.is_empty() { "0" } else { &nodes };
    check_cpuset("mems", "memory nodes", &host.cpuset_mems, nodes)
}

/// Reads a list such as `0-3,7` as ranges; a range is never spelt out (CVE-2018-20699).
fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some((first, last))
    };
    text.split(',').filter(|part| !part.is_empty()).map(range).collect()
}

fn check_cpuset(what: &str, plural: &str, wanted: &str, online: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(asked) = ranges(wanted) else {
        return Err(Error::Invalid(format!(
            "Invalid value {wanted} for cpuset {what}: invalid format: {wanted}"
        )));
    };
    refuse(
        asked.iter().any(|(_, last)| *last > MAX_CPU),
        format!(
            "Invalid value {wanted} for cpuset {what}: value of out range, maximum is {MAX_CPU}"
        ),
    )?;
    let there = ranges(online).unwrap_or_default();
    let missing = asked
        .iter()
        .any(|(first, last)| !there.iter().any(|(from, to)| from <= first && last <= to));
    refuse(
        missing,
        format!("Requested {plural} are not available - requested {wanted}, available: {online}"),
    )
}

fn check_security(host: &HostConfig) -> Result<(), Error> {
    let available = capabilities::available();
    let granted = capabilities::granted(host, available)?;
    let options = security_opt::parse(host.security_opt.as_deref().unwrap_or_default())?;
    if let security_opt::Seccomp::Profile(text) = &options.seccomp {
        seccomp::custom(
            text,
            &seccomp::Situation { capabilities: &granted, kernel: (u32::MAX, 0) },
        )?;
    }
    Ok(())
}

/// A name that could lead out of the directory of its namespace is no parameter's.
fn check_sysctl_names(host: &HostConfig) -> Result<(), Error> {
    for name in host.sysctls.iter().flatten().map(|(name, _)| name) {
        let plain =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
                && !name.contains("..");
        let missing = format!("{RUNTIME}: open sysctl {name} file: no such file or directory");
        refuse(!plain, missing)?;
    }
    Ok(())
}

fn check_sysctls(host: &HostConfig) -> Result<(), Error> {
    let empty = BTreeMap::new();
    for (name, value) in host.sysctls.as_ref().unwrap_or(&empty) {
        refuse(
            value.contains(['\n', '\0']),
            format!("invalid value of the sysctl {name}: it has more than one line"),
        )?;
        // Both separators mean the same: sysctl(8).
        let dotted = name.replace('/', ".");
        let foreign =
            || Error::Invalid(format!("sysctl {name:?} is not in a separate kernel namespace"));
        if sysctl::IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            if host.ipc_mode == "host" {
                return Err(foreign());
            }
        } else if dotted.starts_with("net.") {
            let why = format!("sysctl {name:?} not allowed in host network namespace");
            refuse(host.network_mode == "host", why)?;
        } else if dotted == "kernel.domainname" {
            // The host name is the container's own setting already.
            if host.uts_mode == "host" {
                return Err(foreign());
            }
        } else {
            return Err(foreign());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(host: HostConfig, expected: Result<(), &str>) {
        let got = check(&Config::default(), &host).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[track_caller]
    fn check_start(host: HostConfig, expected: Result<(), &str>) {
        let created = check(&Config::default(), &host).map_err(|error| error.to_string());
        assert_eq!(created, Ok(()), "Docker takes it at create");
        let got = check_at_start(&Config::default(), &host).map_err(|error| {
            assert_eq!(error.kind(), cleat_proto::kind::Kind::Internal);
            error.to_string().replace(RUNTIME, "runc")
        });
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    fn sysctl(name: &str, value: &str) -> HostConfig {
        HostConfig {
            sysctls: Some([(name.to_owned(), value.to_owned())].into()),
            ..HostConfig::default()
        }
    }

    #[test]
    fn memory_limits_fit_each_other() {
        let host =
            |memory, memory_swap| HostConfig { memory, memory_swap, ..HostConfig::default() };
        check_host(host(1, 0), Err("Minimum memory limit allowed is 6MB"));
        check_host(
            host(64 << 20, 32 << 20),
            Err("Minimum memoryswap limit should be larger than memory limit, see usage"),
        );
        check_host(
            host(0, 64 << 20),
            Err("You should always set the Memory limit when using Memoryswap limit, see usage"),
        );
        check_host(host(64 << 20, -1), Ok(()));
    }

    #[test]
    fn a_cpuset_is_read_as_ranges() {
        let host = |text: &str| HostConfig { cpuset_cpus: text.into(), ..HostConfig::default() };
        check_host(host("abc"), Err("Invalid value abc for cpuset cpus: invalid format: abc"));
        check_host(host("0"), Ok(()));
        check_host(
            host("0-99999999999"),
            Err("Invalid value 0-99999999999 for cpuset cpus: value of out range, maximum is 8192"),
        );
        assert!(check(&Config::default(), &host("3-1")).is_err());
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_at_start() {
        let shares = |cpu_shares| HostConfig { cpu_shares, ..HostConfig::default() };
        check_start(shares(1), Err("runc: the minimum allowed cpu-shares is 2"));
        check_start(shares(262_145), Err("runc: the maximum allowed cpu-shares is 262144"));
        check_start(shares(2), Ok(()));
        let parent =
            |text: &str| HostConfig { cgroup_parent: text.into(), ..HostConfig::default() };
        check_host(parent("../../x"), Err("invalid cgroup parent \"../../x\""));
        check_host(parent("/a/b"), Ok(()));
        let profile = "seccomp={\"defaultAction\":\"SCMP_ACT_NOTIFY\"}".to_owned();
        let notify = HostConfig { security_opt: Some(vec![profile]), ..HostConfig::default() };
        assert!(check_at_start(&Config::default(), &notify).is_err());
        let device = |driver: &str| HostConfig {
            device_requests: Some(vec![cleat_proto::docker::container::DeviceRequest {
                driver: driver.into(),
                capabilities: Some(vec![vec!["gpu".into()]]),
                device_ids: Some(vec!["x/y=z".into()]),
                ..Default::default()
            }]),
            ..HostConfig::default()
        };
        check_start(
            device("bad"),
            Err("could not select device driver \"bad\" with capabilities: [[gpu]]"),
        );
        check_start(
            device("cdi"),
            Err("CDI device injection failed: unresolvable CDI devices x/y=z"),
        );
    }

    #[test]
    fn only_namespaced_kernel_parameters_are_taken() {
        check_start(sysctl("net.ipv4.ip_forward", "0"), Ok(()));
        check_start(sysctl("net/ipv4/ip_forward", "0"), Ok(()));
        check_start(
            sysctl("kernel.core_pattern", "|/x"),
            Err("runc: sysctl \"kernel.core_pattern\" is not in a separate kernel namespace"),
        );
        assert!(
            check_at_start(&Config::default(), &sysctl("net/../kernel/core_pattern", "x")).is_err()
        );
        assert!(
            check_at_start(
                &Config::default(),
                &sysctl("net.ipv4.ip_forward", "0\n+kernel.core_pattern=x")
            )
            .is_err()
        );
    }

    #[test]
    fn what_would_fail_later_is_refused_now() {
        let config = |env: &str| Config { env: Some(vec![env.into()]), ..Config::default() };
        for wrong in ["", "=x", "A=b\0c"] {
            assert!(check(&config(wrong), &HostConfig::default()).is_err(), "{wrong:?}");
        }
        let named = |name: &str| {
            let named = Config { hostname: name.into(), ..Config::default() };
            check_at_start(&named, &HostConfig::default()).map_err(|error| error.to_string())
        };
        assert_eq!(named("a b"), Ok(()));
        assert_eq!(named("a\nb").unwrap_err(), format!("{RUNTIME}: sethostname: invalid argument"));
        assert!(named(&"a".repeat(65)).is_err());
        let relative = Config { working_dir: "x".into(), ..Config::default() };
        assert_eq!(
            check(&relative, &HostConfig::default()).unwrap_err().to_string(),
            "the working directory 'x' is invalid, it needs to be an absolute path"
        );
    }
}
