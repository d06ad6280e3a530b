//! `POST /containers/create`: the body, and what older clients mean by theirs.

use axum::extract::{Request, State};
use cleat_proto::docker::{
    container::{Config, EndpointSettings, HostConfig, NetworkingConfig},
    go_json::Document,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        body::{self, json_body, json_error},
        error::{Error, Result},
        query::Query,
        version::ApiVersion,
    },
    container::names::ContainerRef,
    engine::{CreateRequest, Engine},
};

/// A `HostConfig` may carry whole seccomp profiles.
const MAX_BODY_BYTES: usize = 8 << 20;

/// What lies beside the fields of `Config` in the same object.
#[derive(Default, Deserialize)]
#[serde(rename = "CreateRequest", rename_all = "PascalCase", default)]
struct Beside {
    host_config: Option<HostConfig>,
    networking_config: Option<NetworkingConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateResponse<'a> {
    id: &'a str,
    warnings: Vec<String>,
}

/// The handler.
pub async fn create(
    State(engine): State<Engine>,
    query: Query,
    version: ApiVersion,
    request: Request,
) -> Result {
    let body = json_body(request, MAX_BODY_BYTES).await?.unwrap_or_default();
    let mut asked = parse(&body)?;
    let warnings = adapt(&mut asked, version)?;
    asked.name = query.optional("name").map(str::to_owned);
    if version.since(1, 41) {
        asked.platform = crate::api::images::named_platform(&query)?;
    }
    check_links(&engine, &asked.host_config)?;
    let mut created = engine.create(asked).await?;
    created.warnings.extend(warnings);
    let answer = CreateResponse { id: created.id.as_str(), warnings: created.warnings };
    Ok(body::json(StatusCode::CREATED, &answer))
}

/// Go's struct only embeds the fields, and its error texts leave its name out.
fn parse(body: &[u8]) -> Result<CreateRequest, Error> {
    let document = Document::parse(body).map_err(json_error)?;
    let beside: Beside = document.read_named(Some("")).map_err(json_error)?;
    let config: Config = document.read_named(Some("")).map_err(json_error)?;
    if !document.names_field_of::<Config>() {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    Ok(CreateRequest {
        config,
        host_config: beside.host_config.unwrap_or_default(),
        networking: beside.networking_config.unwrap_or_default(),
        ..CreateRequest::default()
    })
}

/// A link to nobody is the client's mistake, whether or not we can link.
fn check_links(engine: &Engine, host: &HostConfig) -> Result<(), Error> {
    for link in host.links.iter().flatten() {
        let name = link.split(':').next().unwrap_or_default();
        if let Err(error) = engine.container(&ContainerRef(name.to_owned())) {
            return Err(Error::invalid(format!(
                "could not get container for {name}: {}",
                error.whole()
            )));
        }
    }
    Ok(())
}

/// Undoes what the client's version does not know, and does what it relied on. Returns warnings.
///
/// # Errors
/// 400 for options that the version does not have.
fn adapt(asked: &mut CreateRequest, version: ApiVersion) -> Result<Vec<String>, Error> {
    asked.config.labels.get_or_insert_default();
    check_ports(&asked.host_config)?;
    let host = &mut asked.host_config;
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
        let endpoints = asked.networking.endpoints_config.get_or_insert_default();
        if let Some(endpoint) = endpoints.remove("default") {
            endpoints.insert(host.network_mode.clone(), endpoint);
        }
    }
    before_1_42(asked, version);
    check_mounts(&asked.host_config, version)?;
    before_1_45(asked, version)?;
    before_1_48(asked, version)?;
    let mut warnings = Vec::new();
    warnings.extend(volume_driver_warning(&asked.host_config, version));
    warnings.extend(move_mac_address(asked, version)?);
    // 0 and negative numbers are "unlimited".
    asked.host_config.pids_limit = asked.host_config.pids_limit.filter(|limit| *limit > 0);
    Ok(warnings)
}

/// A container's port is a number, a host's one or a range of them; a protocol may follow either. No number is 0.
fn check_ports(host: &HostConfig) -> Result<(), Error> {
    let wrong = |text: &str| Error::invalid(format!("invalid port specification: {text:?}"));
    let number = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    let port = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u16>().ok() };
    for (container_port, bindings) in host.port_bindings.iter().flatten() {
        let inside = number(container_port);
        port(&inside).ok_or_else(|| wrong(&inside))?;
        for binding in bindings.iter().flatten() {
            let text = number(&binding.host_port);
            let is_good = match text.split_once('-') {
                None => port(&text).is_some(),
                Some((first, last)) => {
                    let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                    matches!((first, last), (Ok(first), Ok(last)) if first <= last)
                }
            };
            if !is_good {
                return Err(wrong(&binding.host_port));
            }
        }
    }
    Ok(())
}

fn before_1_42(asked: &mut CreateRequest, version: ApiVersion) {
    let host = &mut asked.host_config;
    if !version.since(1, 25) {
        // The client removes it.
        host.auto_remove = false;
    }
    if !version.since(1, 40) {
        host.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "shareable".to_owned();
        }
        for options in
            host.mounts.iter_mut().flatten().filter_map(|mount| mount.bind_options.as_mut())
        {
            options.non_recursive = false;
        }
    }
    if !version.since(1, 41) && host.cgroupns_mode.is_empty() && !unified_cgroups() {
        host.cgroupns_mode = "host".to_owned();
    }
    if version.since(1, 42) {
        host.kernel_memory = 0;
        return;
    }
    host.console_size = [0, 0];
    for mount in host.mounts.iter_mut().flatten() {
        if let Some(options) = &mut mount.bind_options {
            options.create_mountpoint = false;
        }
        if mount.kind != "volume" {
            mount.volume_options = None;
        }
        if mount.kind != "tmpfs" {
            mount.tmpfs_options = None;
        }
    }
}

fn unified_cgroups() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn check_mounts(host: &HostConfig, version: ApiVersion) -> Result<(), Error> {
    if !version.since(1, 42) {
        return Ok(());
    }
    for mount in host.mounts.iter().flatten() {
        let of_another = [
            ("VolumeOptions", mount.volume_options.is_some() && mount.kind != "volume"),
            ("BindOptions", mount.bind_options.is_some() && mount.kind != "bind"),
            ("TmpfsOptions", mount.tmpfs_options.is_some() && mount.kind != "tmpfs"),
        ];
        if let Some((name, _)) = of_another.iter().find(|(_, wrong)| *wrong) {
            let text = format!("{name} must not be specified on mount type {:?}", mount.kind);
            return Err(Error::invalid(text));
        }
    }
    Ok(())
}

fn before_1_45(asked: &mut CreateRequest, version: ApiVersion) -> Result<(), Error> {
    let host = &mut asked.host_config;
    if !version.since(1, 43) {
        host.annotations = None;
    }
    if !version.since(1, 44) {
        if let Some(health) = &mut asked.config.healthcheck {
            health.start_interval = 0;
        }
        for mount in host.mounts.iter_mut().flatten().filter(|mount| mount.kind == "bind") {
            let options = mount.bind_options.get_or_insert_default();
            if options.read_only_force_recursive {
                return Err(Error::invalid(
                    "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
                ));
            }
            // Read-only was not recursive then.
            options.read_only_non_recursive = mount.read_only;
        }
        let names: Vec<&str> = asked
            .networking
            .endpoints_config
            .iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        if names.len() > 1 {
            return Err(Error::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    let has_subpath = |mount: &cleat_proto::docker::container::Mount| {
        mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty())
    };
    if !version.since(1, 45) && host.mounts.iter().flatten().any(has_subpath) {
        return Err(Error::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    Ok(())
}

fn before_1_48(asked: &mut CreateRequest, version: ApiVersion) -> Result<(), Error> {
    if version.since(1, 48) {
        return Ok(());
    }
    let endpoints = asked.networking.endpoints_config.iter_mut().flatten();
    for endpoint in endpoints.filter_map(|(_, endpoint)| endpoint.as_mut()) {
        endpoint.gw_priority = 0;
    }
    if asked.host_config.mounts.iter().flatten().any(|mount| mount.kind == "image") {
        return Err(Error::invalid("Mount type \"Image\" needs API v1.48 or newer"));
    }
    Ok(())
}

fn volume_driver_warning(host: &HostConfig, version: ApiVersion) -> Option<String> {
    if host.volume_driver.is_empty() || !version.since(1, 48) {
        return None;
    }
    let ambiguous =
        host.mounts.iter().flatten().filter(|mount| mount.kind == "volume").any(|mount| {
            let driver =
                mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
            driver.is_none_or(|driver| driver.name.is_empty())
        });
    ambiguous.then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead".to_owned()
    })
}

/// The container-wide MAC address belongs to the main network's endpoint since 1.44.
fn move_mac_address(
    asked: &mut CreateRequest,
    version: ApiVersion,
) -> Result<Option<String>, Error> {
    let address = asked.config.mac_address.clone();
    let mode = asked.host_config.network_mode.clone();
    let endpoints = asked.networking.endpoints_config.get_or_insert_default();
    let is_networked =
        !(matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:"));
    if address.is_empty() {
        if !version.since(1, 44) {
            // Such a client cannot have meant it.
            endpoints.values_mut().flatten().for_each(|endpoint| endpoint.mac_address.clear());
        }
        return Ok(None);
    }
    if !is_networked && !version.since(1, 44) {
        return Err(Error::invalid("conflicting options: mac-address and the network mode"));
    }
    if is_networked {
        if endpoints.is_empty() {
            endpoints.insert(mode.clone(), None);
        }
        let key = if version.since(1, 44) { Some(mode) } else { endpoints.keys().next().cloned() };
        let endpoint = key.and_then(|key| endpoints.get_mut(&key)).ok_or_else(|| {
            Error::invalid(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            )
        })?;
        set_mac_address(endpoint.get_or_insert_default(), &address, version)?;
    }
    if !version.since(1, 44) {
        return Ok(None);
    }
    asked.config.mac_address.clear();
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned(),
    ))
}

fn set_mac_address(
    endpoint: &mut EndpointSettings,
    address: &str,
    version: ApiVersion,
) -> Result<(), Error> {
    if version.since(1, 44) && !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
        return Err(Error::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ));
    }
    endpoint.mac_address = address.to_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ApiVersion {
        ApiVersion::of(text)
    }

    #[track_caller]
    fn refused(body: &str, api: &str, expected: &str) {
        let result = parse(body.as_bytes()).and_then(|mut asked| adapt(&mut asked, version(api)));
        assert_eq!(result.unwrap_err().message(), expected, "{body}");
    }

    fn adapted(body: &str, api: &str) -> CreateRequest {
        let mut asked = parse(body.as_bytes()).unwrap();
        adapt(&mut asked, version(api)).unwrap();
        asked
    }

    #[test]
    fn one_object_holds_all_three() {
        let asked = adapted(
            r#"{"image":"a","HostConfig":{"memory":5},"NetworkingConfig":{"EndpointsConfig":{"n":null}}}"#,
            "1.51",
        );
        assert_eq!((asked.config.image.as_str(), asked.host_config.memory), ("a", 5));
        assert_eq!(asked.host_config.network_mode, "bridge");
        assert!(asked.networking.endpoints_config.unwrap().contains_key("n"));
    }

    #[test]
    fn a_body_without_a_config_is_refused() {
        refused("", "1.51", "invalid JSON: got EOF while reading request body");
        for empty in ["{}", "null", r#"{"HostConfig":{}}"#] {
            refused(empty, "1.51", "config cannot be empty in order to create a container");
        }
        refused(
            "[]",
            "1.51",
            "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest",
        );
        refused(
            r#"{"HostConfig":{"Memory":"x"}}"#,
            "1.51",
            "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64",
        );
    }

    #[test]
    fn old_clients_get_what_they_relied_on() {
        let asked =
            adapted(r#"{"Image":"a","HostConfig":{"AutoRemove":true,"PidsLimit":0}}"#, "1.24");
        assert!(!asked.host_config.auto_remove);
        assert_eq!(asked.host_config.ipc_mode, "shareable");
        assert_eq!(asked.host_config.pids_limit, None);
        let asked = adapted(r#"{"Image":"a","HostConfig":{"AutoRemove":true}}"#, "1.51");
        assert!(asked.host_config.auto_remove && asked.host_config.ipc_mode.is_empty());
    }

    #[test]
    fn options_of_newer_versions_are_refused() {
        let two = r#"{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
        refused(two, "1.43", "Container cannot be created with multiple network endpoints: a, b");
        let wrong = r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}"#;
        refused(wrong, "1.42", "VolumeOptions must not be specified on mount type \"bind\"");
        assert!(adapted(wrong, "1.41").host_config.mounts.unwrap()[0].volume_options.is_none());
    }

    #[test]
    fn ports_are_checked_as_docker_checks_them() {
        let ports = |text: &str| {
            let host = cleat_proto::docker::go_json::from_slice(text.as_bytes()).unwrap();
            check_ports(&HostConfig { port_bindings: Some(host), ..HostConfig::default() })
                .map_err(|error| error.message().to_owned())
        };
        for good in [
            "{}",
            r#"{"80/xxx":null,"":[{}],"0/tcp":[{}]}"#,
            r#"{"80":[{"HostPort":"80/tcp"},{"HostPort":"8-9","HostIp":"bad"}]}"#,
        ] {
            assert_eq!(ports(good), Ok(()), "{good}");
        }
        for (wrong, named) in [
            (r#"{"x/tcp":[]}"#, "x"),
            (r#"{"80-90/tcp":[]}"#, "80-90"),
            (r#"{"80":[{"HostPort":"9-8"}]}"#, "9-8"),
            (r#"{"80":[{"HostPort":"70000"}]}"#, "70000"),
        ] {
            assert_eq!(ports(wrong), Err(format!("invalid port specification: {named:?}")));
        }
    }

    #[test]
    fn the_mac_address_moves_to_the_endpoint() {
        let asked = adapted(r#"{"Image":"a","MacAddress":"02:00:00:00:00:01"}"#, "1.51");
        assert_eq!(asked.config.mac_address, "");
        let endpoints = asked.networking.endpoints_config.unwrap();
        assert_eq!(endpoints["bridge"].as_ref().unwrap().mac_address, "02:00:00:00:00:01");
    }
}
