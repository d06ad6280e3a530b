//! What is not there: a clear 501, and for swarm what a Docker outside of one says.

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use cleat_proto::kind::Kind;
use http::Method;

use super::{
    body,
    error::{Error, Result},
    query::{Filters, Query, parse_go_int},
};
use crate::engine::Engine;

/// `/swarm` and its kin, `/plugins`, BuildKit's upgrades, checkpoints.
pub fn routes() -> Router<Engine> {
    let mut router = Router::new();
    for path in [
        "/swarm/{verb}",
        "/nodes",
        "/nodes/{id}",
        "/nodes/{id}/update",
        "/services",
        "/services/{id}",
        "/services/{id}/{verb}",
        "/tasks",
        "/tasks/{id}",
        "/tasks/{id}/logs",
        "/secrets",
        "/secrets/{id}",
        "/secrets/{id}/update",
        "/configs",
        "/configs/{id}",
        "/configs/{id}/update",
    ] {
        router = router.route(path, any(no_swarm));
    }
    router
        .route("/swarm", get(no_swarm))
        .route("/swarm/leave", post(no_part_of_a_swarm))
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(plugins))
        .route("/build", post(not_yet))
        .route("/build/prune", post(prune_build_cache))
        .route("/build/cancel", post(cancel_build))
        .route("/session", post(not_yet))
        .route("/grpc", post(not_yet))
        .route("/containers/{id}/checkpoints", any(no_checkpoints))
        .route("/containers/{id}/checkpoints/{name}", any(no_checkpoints))
}

async fn no_swarm() -> Response {
    Error::new(
        Kind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
    .into_response()
}

/// Managed plugins: there are none.
async fn no_plugins() -> Result {
    body::ok(&[(); 0])
}

async fn plugins(method: Method, Path(rest): Path<String>) -> Error {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    match (method, verb) {
        // `docker inspect` looks here last; and what is not there can neither be changed nor go.
        (Method::GET, "json")
        | (Method::POST, "disable" | "set" | "push")
        | (Method::DELETE, "") => Error::new(Kind::NotFound, format!("plugin {name:?} not found")),
        _ => Error::not_implemented("managing plugins"),
    }
}

/// Source: dockerd 28.5, the filters of its BuildKit cache.
const CACHE_FILTERS: [&str; 11] = [
    "unused-for",
    "until",
    "label",
    "label!",
    "id",
    "parent",
    "type",
    "description",
    "inuse",
    "shared",
    "private",
];

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct CachePruned {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// Nothing is built here, so there is no cache: the request is checked, and nothing goes.
async fn prune_build_cache(query: Query) -> Result {
    for key in ["reserved-space", "keep-storage", "max-used-space", "min-free-space"] {
        if let Some(text) = query.optional(key) {
            parse_go_int(text).map_err(|why| {
                let why = format!("strconv.Atoi: parsing {text:?}: {why}");
                Error::invalid(format!(
                    "{key} is in bytes and expects an integer, got {text}: {why}"
                ))
            })?;
        }
    }
    let filters = query.filters()?;
    check_cache_filters(&filters).map_err(|error| error.within("failed to prune build cache"))?;
    body::ok(&CachePruned { caches_deleted: None, space_reclaimed: 0 })
}

fn check_cache_filters(filters: &Filters) -> Result<(), Error> {
    filters.only(&CACHE_FILTERS)?;
    let times = [("until", filters.get("until")), ("unused-for", filters.get("unused-for"))];
    if times.iter().all(|(_, values)| !values.is_empty()) {
        return Err(Error::invalid("conflicting filters: until and unused-for"));
    }
    if CACHE_FILTERS[4..]
        .iter()
        .map(|key| filters.get(key))
        .chain(times.map(|(_, v)| v))
        .any(|v| v.len() > 1)
    {
        return Err(Error::invalid("filters expect only one value"));
    }
    for (key, values) in times {
        if let [text] = values
            && super::time::parse(text).is_err()
        {
            return Err(Error::invalid(format!(
                "{key:?} filter expects a duration (e.g., '24h') or a timestamp: failed to parse value as time or duration: {text:?}"
            )));
        }
    }
    Ok(())
}

/// No build runs that could be cancelled; Docker is content with any id as well.
async fn cancel_build(query: Query) -> Result {
    if query.get("id").is_empty() {
        return Err(Error::invalid("build ID not provided"));
    }
    Ok(body::json_text(http::StatusCode::OK, Vec::new()))
}

async fn no_part_of_a_swarm() -> Error {
    Error::new(Kind::Unavailable, "This node is not part of a swarm")
}

async fn not_yet(uri: http::Uri) -> Error {
    Error::not_implemented(format_args!("{:?}", uri.path()))
}

async fn no_checkpoints() -> Error {
    Error::new(
        Kind::NotImplemented,
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_of_a_cache_that_is_not_there_are_checked() {
        let check = |text: &str| {
            let filters = Filters::parse(text).unwrap();
            check_cache_filters(&filters).map_err(|error| error.message().to_owned())
        };
        assert_eq!(check(r#"{"until":["1h"],"label":["a","b"],"inuse":["true"]}"#), Ok(()));
        assert_eq!(check(r#"{"bad":["x"]}"#).unwrap_err(), "invalid filter 'bad'");
        assert_eq!(check(r#"{"until":["1h","2h"]}"#).unwrap_err(), "filters expect only one value");
        assert_eq!(
            check(r#"{"until":["x"]}"#).unwrap_err(),
            "\"until\" filter expects a duration (e.g., '24h') or a timestamp: failed to parse value as time or duration: \"x\""
        );
    }
}
