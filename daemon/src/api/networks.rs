//! `/networks/…`: the predefined ones can be looked at; user-defined ones are not there yet, and every request for one says so.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use cleat_proto::{
    docker::network::{
        ConfigFrom, ConnectOptions, CreateRequest, DisconnectOptions, Endpoint, Ipam, IpamConfig,
        Network, Pruned,
    },
    kind::Kind,
};

use super::{
    body::{self, Json},
    error::{Error, Result},
    query::{Filters, Query},
    time,
};
use crate::{
    container::names::ContainerRef,
    engine::Engine,
    network::{NetworkInfo, check_ipam},
};

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
}

fn shown(network: NetworkInfo) -> Network {
    let config = network.ipam.map(|(subnet, gateway)| vec![IpamConfig { subnet, gateway }]);
    let containers = network.containers.into_iter().map(|(id, (name, endpoint))| {
        let address = match endpoint.ip_address.as_str() {
            "" => String::new(),
            address => format!("{address}/{}", endpoint.ip_prefix_len),
        };
        let shown = Endpoint {
            name,
            endpoint_id: endpoint.endpoint_id,
            mac_address: endpoint.mac_address,
            ipv4_address: address,
            ipv6_address: String::new(),
        };
        (id.to_string(), shown)
    });
    Network {
        name: network.name,
        id: network.id,
        created: time::rfc3339_nano(network.created_at_nanos),
        scope: "local".to_owned(),
        driver: network.driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam { driver: "default".to_owned(), options: None, config },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: containers.collect(),
        options: network.options,
        labels: BTreeMap::new(),
    }
}

async fn list(State(engine): State<Engine>, query: Query) -> Result {
    let filters = query.filters()?;
    filters.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let found = engine.networks().list().into_iter();
    let mut networks = Vec::new();
    for network in found {
        if matches(&filters, &network)? {
            // A list shows no containers.
            networks.push(Network { containers: BTreeMap::new(), ..shown(network) });
        }
    }
    body::ok(&networks)
}

fn matches(filters: &Filters, network: &NetworkInfo) -> Result<bool, Error> {
    for kind in filters.get("type") {
        if kind != "custom" && kind != "builtin" {
            // Docker's own oversight.
            return Err(Error::internal(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    if filters.get("dangling").len() > 1 {
        return Err(Error::invalid("got more than one value for filter key \"dangling\""));
    }
    let dangling = filters.bool("dangling").map_err(|_| {
        Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )
    })?;
    // The predefined ones never dangle, and have no labels.
    Ok(dangling != Some(true)
        && filters.exact("driver", network.driver)
        && filters.any("id", |part| network.id.contains(part))
        && filters.labels("label", None)
        && filters.any("name", |part| network.name.contains(part))
        && filters.exact("scope", "local")
        && filters.exact("type", "builtin"))
}

async fn inspect(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    if !matches!(query.get("scope"), "" | "local") {
        return Err(Error::new(Kind::NotFound, format!("network {name} not found")));
    }
    let verbose = query.get("verbose");
    if !matches!(
        verbose,
        "" | "0"
            | "1"
            | "t"
            | "f"
            | "T"
            | "F"
            | "true"
            | "false"
            | "True"
            | "False"
            | "TRUE"
            | "FALSE"
    ) {
        let why = format!("strconv.ParseBool: parsing {verbose:?}: invalid syntax");
        return Err(Error::invalid(format!("invalid value for verbose: {verbose}: {why}")));
    }
    body::ok(&shown(find(&engine, &name)?))
}

fn find(engine: &Engine, name: &str) -> Result<NetworkInfo, Error> {
    let found = engine.networks().inspect(name);
    found.map_err(|error| crate::engine::Error::from(error).into())
}

fn not_yet() -> Error {
    Error::not_implemented("a user-defined network")
}

async fn create(Json(request): Json<CreateRequest>) -> Error {
    match request.name.as_str() {
        "" => Error::invalid("invalid name: name is empty"),
        name @ ("bridge" | "host" | "none") => Error::new(
            Kind::Forbidden,
            format!("operation is not permitted on predefined {name} network "),
        ),
        _ => match check_ipam(request.ipam.as_ref(), request.enable_ipv6.unwrap_or(false)) {
            Ok(()) => not_yet(),
            Err(error) => crate::engine::Error::from(error).into(),
        },
    }
}

async fn remove(State(engine): State<Engine>, Path(name): Path<String>) -> Error {
    match find(&engine, &name) {
        Ok(network) => Error::new(
            Kind::Forbidden,
            format!("{} is a pre-defined network and cannot be removed", network.name),
        ),
        Err(error) => error,
    }
}

fn container_ref(text: String) -> Result<ContainerRef, Error> {
    if text.is_empty() {
        return Err(Error::invalid("invalid name or ID supplied: \"\""));
    }
    Ok(ContainerRef(text))
}

async fn connect(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Json(request): Json<ConnectOptions>,
) -> Result {
    let container = engine.container(&container_ref(request.container)?)?;
    let network = find(&engine, &name)?;
    if container.record.networks.contains_key(&network.name) {
        let id = &container.record.id;
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "endpoint with name {} already exists in network {}",
                container.record.name, network.name
            ),
        )
        .within(format_args!("container {id}")));
    }
    Err(Error::not_implemented("connecting a container to a further network"))
}

async fn disconnect(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Json(request): Json<DisconnectOptions>,
) -> Result {
    engine.container(&container_ref(request.container)?)?;
    find(&engine, &name)?;
    Err(Error::not_implemented("disconnecting a container from a network"))
}

async fn prune(query: Query) -> Result {
    query.filters()?.only(&["label", "label!", "until"])?.until()?;
    body::ok(&Pruned { networks_deleted: None })
}
