//! The command line.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Parser;
use cleat_proto::docker::container::Ulimit;

use super::{
    Error,
    file::{File, Runtime, Size},
    invalid,
};

/// A switch: `--x`, `--x=true`, `--x=false`.
macro_rules! switch {
    () => {
        "true"
    };
}

/// cleat's daemon: Docker's Engine API; containers outlive it.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "cleatd", version, disable_help_subcommand = true)]
pub struct Flags {
    /// Daemon configuration file
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    pub validate: bool,
    /// Print where a test can have the daemon killed, and exit
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub list_fault_points: bool,
    /// What must survive a reboot
    #[arg(long, alias = "data-root", value_name = "DIR")]
    root: Option<String>,
    /// What must not: sockets, exit statuses
    #[arg(long, alias = "exec-root", value_name = "DIR")]
    state: Option<String>,
    /// Where to listen: unix:///path, fd://, tcp://address:port (with --tlsverify, or --tls=false)
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Use TLS; --tls=false permits TCP without it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    tls: Option<bool>,
    /// Use TLS and take only clients with a certificate
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    tlsverify: Option<bool>,
    /// Who signs clients' certificates [default: ~/.docker/ca.pem]
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<String>,
    /// The daemon's certificate [default: ~/.docker/cert.pem]
    #[arg(long, value_name = "FILE")]
    tlscert: Option<String>,
    /// Its key [default: ~/.docker/key.pem]
    #[arg(long, value_name = "FILE")]
    tlskey: Option<String>,
    /// Group of the unix socket [default: docker]
    #[arg(short = 'G', long)]
    group: Option<String>,
    /// Where to write the pid [default: STATE/cleatd.pid]
    #[arg(short = 'p', long, value_name = "FILE")]
    pidfile: Option<String>,
    /// Same as --log-level debug
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    debug: Option<bool>,
    /// trace, debug, info, warn or error
    #[arg(short = 'l', long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Register an OCI runtime: NAME=PATH
    #[arg(long, value_name = "NAME=PATH")]
    add_runtime: Vec<String>,
    /// Runtime for containers that name none
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// Run an init in containers that do not say
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    init: Option<bool>,
    /// The init's binary
    #[arg(long, value_name = "FILE")]
    init_path: Option<String>,
    /// Parent cgroup of all containers [default: /cleat, or system.slice with systemd]
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Who makes containers' cgroups: native.cgroupdriver=cgroupfs or systemd [default: systemd on cgroup v2 where it runs]
    #[arg(long = "exec-opt", value_name = "OPTION=VALUE")]
    exec_opts: Vec<String>,
    /// Name of the default bridge, or none
    #[arg(short = 'b', long)]
    bridge: Option<String>,
    /// Address of the default bridge, with its prefix length
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// MTU of the default bridge
    #[arg(long)]
    mtu: Option<i64>,
    /// DNS server for containers
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// DNS search domain for containers
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// resolv.conf option for containers
    #[arg(long = "dns-opt", value_name = "OPTION")]
    dns_opts: Vec<String>,
    /// Where published ports listen [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Let containers of the default bridge talk to each other [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    icc: Option<bool>,
    /// Log driver for containers that name none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Log option for containers that name none
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    log_opts: Vec<String>,
    /// Size of /dev/shm [default: 64M]
    #[arg(long, value_name = "SIZE")]
    default_shm_size: Option<String>,
    /// Limit for containers that do not set it: NAME=SOFT[:HARD]
    #[arg(long = "default-ulimit", value_name = "LIMIT")]
    default_ulimits: Vec<String>,
    /// Stop all containers when the daemon is told to end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    stop_containers: Option<bool>,
    /// As always: containers outlive the daemon
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = switch!())]
    live_restore: Option<bool>,
    /// Seconds that --stop-containers may take [default: 15]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    shutdown_timeout: Option<i64>,
    /// Label of this daemon: KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Registry mirror
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Vec<String>,
    /// Registry that may be reached without TLS
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Vec<String>,
    /// Layers that are downloaded at once, 0 for all [default: 3]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_concurrent_downloads: Option<i64>,
    /// Layers that are uploaded at once, 0 for all [default: 5]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_concurrent_uploads: Option<i64>,
    /// How often in a row a layer's download may bring nothing [default: 5]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_download_attempts: Option<i64>,
    /// Proxy for http:// registries [default: HTTP_PROXY]
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// Proxy for https:// registries [default: HTTPS_PROXY]
    #[arg(long, value_name = "URL")]
    https_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without a proxy [default: NO_PROXY]
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
}

impl Flags {
    /// Returns the keys that the flags stand for.
    ///
    /// # Errors
    /// A flag whose value has parts, and is wrong.
    pub fn as_file(&self) -> Result<File, Error> {
        let flags = self.clone();
        Ok(File {
            data_root: flags.root,
            exec_root: flags.state,
            hosts: list(flags.hosts),
            tls: flags.tls,
            tlsverify: flags.tlsverify,
            tlscacert: flags.tlscacert,
            tlscert: flags.tlscert,
            tlskey: flags.tlskey,
            group: flags.group,
            pidfile: flags.pidfile,
            debug: flags.debug,
            log_level: flags.log_level,
            log_format: flags.log_format,
            runtimes: runtimes(&flags.add_runtime)?,
            default_runtime: flags.default_runtime,
            init: flags.init,
            init_path: flags.init_path,
            cgroup_parent: flags.cgroup_parent,
            exec_opts: list(flags.exec_opts),
            bridge: flags.bridge,
            bip: flags.bip,
            mtu: flags.mtu,
            dns: list(flags.dns),
            dns_search: list(flags.dns_search),
            dns_opts: list(flags.dns_opts),
            ip: flags.ip,
            icc: flags.icc,
            log_driver: flags.log_driver,
            log_opts: pairs(&flags.log_opts)?,
            default_shm_size: flags.default_shm_size.map(Size),
            default_ulimits: ulimits(&flags.default_ulimits)?,
            stop_containers: flags.stop_containers,
            live_restore: flags.live_restore,
            shutdown_timeout: flags.shutdown_timeout,
            // In the file alone.
            image_gc_days: None,
            image_gc_disk_percent: None,
            labels: list(flags.labels),
            registry_mirrors: list(flags.registry_mirrors),
            insecure_registries: list(flags.insecure_registries),
            max_concurrent_downloads: flags.max_concurrent_downloads,
            max_concurrent_uploads: flags.max_concurrent_uploads,
            max_download_attempts: flags.max_download_attempts,
            http_proxy: flags.http_proxy,
            https_proxy: flags.https_proxy,
            no_proxy: flags.no_proxy,
            proxies: None,
        })
    }
}

fn list(values: Vec<String>) -> Option<Vec<String>> {
    Some(values).filter(|values| !values.is_empty())
}

fn pairs(values: &[String]) -> Result<Option<BTreeMap<String, String>>, Error> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| invalid(format_args!("invalid key=value pair: {text}")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let pairs = values.iter().map(pair).collect::<Result<BTreeMap<_, _>, Error>>()?;
    Ok(Some(pairs).filter(|pairs| !pairs.is_empty()))
}

fn runtimes(values: &[String]) -> Result<Option<BTreeMap<String, Runtime>>, Error> {
    let named = pairs(values)?;
    Ok(named.map(|named| {
        let runtime = |path| Runtime { path: Some(path), ..Runtime::default() };
        named.into_iter().map(|(name, path)| (name, runtime(path))).collect()
    }))
}

/// Reads `nofile=1024:2048`; -1 is without limit.
fn ulimits(values: &[String]) -> Result<Option<BTreeMap<String, Ulimit>>, Error> {
    let limit = |(name, text): (String, String)| {
        let wrong = || invalid(format_args!("invalid ulimit argument: {name}={text}"));
        let (soft, hard) = text.split_once(':').unwrap_or((&text, &text));
        let soft = soft.parse().map_err(|_| wrong())?;
        let hard = hard.parse().map_err(|_| wrong())?;
        Ok((name.clone(), Ulimit { name: name.clone(), hard, soft }))
    };
    let Some(pairs) = pairs(values)? else { return Ok(None) };
    pairs.into_iter().map(limit).collect::<Result<BTreeMap<_, _>, Error>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_for_keys() {
        let flags = Flags::parse_from([
            "cleatd",
            "-D",
            "--root",
            "/r",
            "--exec-root=/s",
            "-H",
            "unix:///x",
            "-H",
            "fd://",
            "--icc=false",
            "--log-opt",
            "a=b",
            "--default-ulimit",
            "nofile=1:2",
        ]);
        let file = flags.as_file().unwrap();
        assert_eq!((file.debug, file.icc, file.init), (Some(true), Some(false), None));
        assert_eq!(
            (file.data_root.as_deref(), file.exec_root.as_deref()),
            (Some("/r"), Some("/s"))
        );
        assert_eq!(file.hosts.unwrap(), ["unix:///x", "fd://"]);
        assert_eq!(file.log_opts.unwrap()["a"], "b");
        assert_eq!(file.default_ulimits.unwrap()["nofile"].hard, 2);
    }
}
