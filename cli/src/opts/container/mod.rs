//! The body of `POST /containers/create`, from the flags of `run` and `create`: what runs (`config`), how it sits on the host
//! (`host`, `limits`) and which networks it joins (`endpoints`).

mod config;
mod endpoints;
mod host;
pub mod limits;

use cleat_proto::docker::container::{
    Config, HealthConfig, HostConfig, LogConfig, NetworkingConfig, RestartPolicy,
};
use serde::Serialize;

use self::endpoints::Endpoints;
use super::{address, env, network, port, restart, security, volume};
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

/// What has to be read before it can be said: the flags that may be refused, in the order in which docker refuses them.
struct Read {
    volumes: volume::Volumes,
    ports: port::Ports,
    devices: limits::Devices,
    environment: Option<Vec<String>>,
    labels: Vec<String>,
    restart_policy: RestartPolicy,
    log_config: LogConfig,
    security: security::Security,
    storage: std::collections::BTreeMap<String, String>,
    healthcheck: Option<HealthConfig>,
    network_mode: String,
    endpoints: Endpoints,
}

impl Read {
    fn new(flags: &Flags, proxies: &[String]) -> Result<Self, String> {
        check_numbers(flags)?;
        let volumes = volume::parse(&flags.list("volume"))?;
        let ports = port::parse(&flags.list("publish"), &flags.list("expose"))?;
        let devices = limits::devices(flags)?;
        let environment = env::read(&flags.list("env-file"), proxies, env::from_environment)?;
        let labels = env::read(&flags.list("label-file"), &flags.list("label"), |_| None)?;
        host::check_modes(flags)?;
        let restart_policy = restart::parse(flags.text("restart"))?;
        let log_config = host::log_config(flags)?;
        let security = security::parse(flags.list("security-opt"))?;
        let storage = host::storage_options(flags)?;
        let healthcheck = config::health(flags)?;
        if flags.on("rm") && !matches!(restart_policy.name.as_str(), "" | "no") {
            return Err("conflicting options: cannot specify both --restart and --rm".into());
        }
        let networks = parsed(flags, "network", network::parse)?;
        let network_mode =
            networks.first().map_or("default", |network| network.target.as_str()).to_owned();
        Ok(Self {
            volumes,
            ports,
            devices,
            environment,
            labels: labels.unwrap_or_default(),
            restart_policy,
            log_config,
            security,
            storage,
            healthcheck,
            network_mode,
            endpoints: endpoints::read(flags, networks)?,
        })
    }
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
    let mut read = Read::new(flags, &proxies)?;
    let endpoints = std::mem::take(&mut read.endpoints);
    let config = Config {
        image: image.into(),
        mac_address: endpoints::mac_address(flags, &endpoints, &read.network_mode),
        ..config::config(flags, arguments, &mut read)
    };
    Ok(CreateRequest {
        config,
        host: host::host(flags, read)?,
        networking: NetworkingConfig { endpoints_config: Some(endpoints) },
    })
}

fn check_numbers(flags: &Flags) -> Result<(), String> {
    let mac_address = flags.text("mac-address");
    if !mac_address.is_empty() && !address::is_mac(mac_address) {
        return Err(format!("{mac_address} is not a valid mac address"));
    }
    let swappiness = flags.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    Ok(())
}

fn parsed<T>(
    flags: &Flags,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    flags.list(name).iter().map(|text| parse(text)).collect()
}
