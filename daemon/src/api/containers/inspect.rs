//! `GET /containers/{name}/json`.

use std::{borrow::Cow, collections::BTreeMap};

use axum::extract::{Path, State};
use cleat_proto::docker::{
    container::{EndpointSettings, PortMap},
    inspect::{self as wire, GraphDriver, NetworkSettings},
};

use super::list;
use crate::{
    api::{body, error::Result, query::Query, time, version::ApiVersion},
    container::{self, Container, names::ContainerRef},
    engine::Engine,
};

/// The handler.
pub async fn inspect(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
) -> Result {
    let container = engine.container_settled(&ContainerRef(name)).await?;
    let sizes = if query.bool("size") {
        list::summary_sizes(&engine, std::slice::from_ref(&container)).await?.pop()
    } else {
        None
    };
    let mut shown = whole(&engine, &container);
    shown.size_rw = sizes.map(list::Sizes::own);
    shown.size_root_fs = sizes.map(list::Sizes::whole);
    if !version.since(1, 44) {
        restore_mac_address(&mut shown);
    }
    body::ok(&shown)
}

/// Before 1.44 the address stood in `Config` as well.
fn restore_mac_address(shown: &mut wire::Container<'_>) {
    let address = shown.network_settings.mac_address.to_owned();
    if !address.is_empty() {
        shown.config.to_mut().mac_address = address;
    }
}

fn whole<'a>(engine: &Engine, container: &'a Container) -> wire::Container<'a> {
    let record = &*container.record;
    let directory = engine.container_dir(&record.id);
    let file = |name: &str| directory.join(name).display().to_string();
    let has_files = container.run.started_at_nanos != 0;
    let file = |name: &str| if has_files { file(name) } else { String::new() };
    let log_path = match record.host_config.log_config.kind.as_str() {
        "json-file" if has_files => engine.log_path(&record.id).display().to_string(),
        _ => String::new(),
    };
    let exec_ids: Vec<&str> = container.exec_ids.iter().map(|id| id.as_str()).collect();
    wire::Container {
        id: record.id.as_str(),
        created: time::rfc3339_nano(record.created_at_nanos),
        path: &record.path,
        args: &record.args,
        state: state(container),
        image: &record.image_id,
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path,
        name: format!("/{}", record.name),
        restart_count: container.run.restart_count,
        driver: "overlay2",
        platform: "linux",
        mount_label: "",
        process_label: "",
        app_armor_profile: "",
        exec_ids: Some(exec_ids).filter(|ids| !ids.is_empty()),
        host_config: &record.host_config,
        graph_driver: graph_driver(engine, container),
        size_rw: None,
        size_root_fs: None,
        mounts: list::mounts(engine, container),
        config: Cow::Borrowed(&record.config),
        network_settings: network_settings(engine, container),
    }
}

fn state(container: &Container) -> wire::State<'_> {
    use container::State as S;
    let run = &container.run;
    wire::State {
        status: container.state.as_str(),
        running: container.state.is_running(),
        paused: matches!(container.state, S::Paused { .. }),
        restarting: matches!(container.state, S::Restarting),
        oom_killed: run.oom_killed,
        dead: matches!(container.state, S::Dead),
        pid: container.state.pid(),
        exit_code: run.exit_code,
        error: &run.error,
        started_at: time::or_zero(run.started_at_nanos),
        finished_at: time::or_zero(run.finished_at_nanos),
        health: run.health.as_ref().map(health),
    }
}

fn health(health: &container::Health) -> wire::Health<'_> {
    let log = health.log.iter().map(|probe| wire::HealthcheckResult {
        start: time::rfc3339_nano(probe.started_at_nanos),
        end: time::rfc3339_nano(probe.ended_at_nanos),
        exit_code: probe.exit_code,
        output: &probe.output,
    });
    wire::Health {
        status: health.status.as_str(),
        failing_streak: health.failing_streak,
        log: log.collect(),
    }
}

fn graph_driver(engine: &Engine, container: &Container) -> GraphDriver {
    let record = &container.record;
    let top = record.top_layer.as_ref().and_then(|layer| layer.parse().ok());
    let mut data = BTreeMap::from([("ID", record.id.to_string())]);
    if let Ok((lower, upper, work)) = engine.snapshots().graph_paths(&record.id, top.as_ref()) {
        data.insert("LowerDir", lower);
        data.insert("UpperDir", upper.display().to_string());
        data.insert("WorkDir", work.display().to_string());
        // Nothing is mounted on the host: the merged view exists in the container alone.
        data.insert("MergedDir", String::new());
    }
    GraphDriver { data, name: "overlay2" }
}

/// The ports that are bound while it runs; `None` where there are none to show, exposed ones included.
pub fn shown_ports(container: &Container) -> Option<&PortMap> {
    let mode = container.record.host_config.network_mode.as_str();
    let has_ports = !(matches!(mode, "host" | "none") || mode.starts_with("container:"));
    (container.state.is_running() && has_ports).then_some(&container.run.ports)
}

/// `NetworkSettings.Ports`: what is bound, and `null` for what is only exposed.
pub fn ports(container: &Container) -> PortMap {
    let Some(bound) = shown_ports(container) else { return PortMap::new() };
    let mut ports = bound.clone();
    for key in container.record.config.exposed_ports.iter().flatten().map(|(key, _)| key) {
        ports.entry(key.clone()).or_insert(None);
    }
    ports
}

/// The endpoints; of a container that does not run only what was asked for: what it had is free again.
pub fn networks(container: &Container) -> Cow<'_, BTreeMap<String, EndpointSettings>> {
    let networks = &container.record.networks;
    if container.state.is_running()
        || networks.values().all(|endpoint| endpoint.endpoint_id.is_empty())
    {
        return Cow::Borrowed(networks);
    }
    let asked_for = |endpoint: &EndpointSettings| EndpointSettings {
        ipam_config: endpoint.ipam_config.clone(),
        links: endpoint.links.clone(),
        aliases: endpoint.aliases.clone(),
        driver_opts: endpoint.driver_opts.clone(),
        gw_priority: endpoint.gw_priority,
        network_id: endpoint.network_id.clone(),
        dns_names: endpoint.dns_names.clone(),
        ..EndpointSettings::default()
    };
    Cow::Owned(
        networks.iter().map(|(name, endpoint)| (name.clone(), asked_for(endpoint))).collect(),
    )
}

fn network_settings<'a>(engine: &Engine, container: &'a Container) -> NetworkSettings<'a> {
    static NONE: std::sync::LazyLock<EndpointSettings> =
        std::sync::LazyLock::new(EndpointSettings::default);
    let record = &container.record;
    // The legacy fields are the default bridge's alone.
    let running = container.state.is_running();
    let first = record.networks.get("bridge").filter(|_| running).unwrap_or(&NONE);
    let sandbox_id = if running { container.run.sandbox_id.as_str() } else { "" };
    let sandbox_key = match sandbox_id.get(..12) {
        Some(short) => engine.config().state.join("netns").join(short).display().to_string(),
        None => String::new(),
    };
    NetworkSettings {
        bridge: "",
        sandbox_id,
        sandbox_key,
        ports: ports(container),
        hairpin_mode: false,
        link_local_ipv6_address: "",
        link_local_ipv6_prefix_len: 0,
        secondary_ip_addresses: None,
        secondary_ipv6_addresses: None,
        endpoint_id: &first.endpoint_id,
        gateway: &first.gateway,
        global_ipv6_address: &first.global_ipv6_address,
        global_ipv6_prefix_len: first.global_ipv6_prefix_len,
        ip_address: &first.ip_address,
        ip_prefix_len: first.ip_prefix_len,
        ipv6_gateway: &first.ipv6_gateway,
        mac_address: &first.mac_address,
        networks: networks(container),
    }
}
