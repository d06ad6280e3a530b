//! What is not there: a clear 501, and for swarm what a Docker outside of one says.

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use cleat_proto::kind::Kind;

use super::{
    body,
    error::{Error, Result},
};
use crate::engine::Engine;

/// `/swarm` and its kin, `/plugins`, BuildKit's upgrades, checkpoints.
pub fn routes() -> Router<Engine> {
    let mut router = Router::new();
    for path in [
        "/swarm",
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
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(plugins))
        .route("/build", post(not_yet))
        .route("/build/prune", post(not_yet))
        .route("/build/cancel", post(not_yet))
        .route("/session", post(not_yet))
        .route("/grpc", post(not_yet))
        .route("/containers/{id}/checkpoints", any(no_checkpoints))
        .route("/containers/{id}/checkpoints/{name}", any(no_checkpoints))
        .route("/containers/{id}/attach/ws", get(no_websocket))
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

async fn plugins(Path(rest): Path<String>) -> Error {
    match rest.strip_suffix("/json") {
        // `docker inspect` looks here last.
        Some(name) => Error::new(Kind::NotFound, format!("plugin {name:?} not found")),
        None => Error::not_implemented("managing plugins"),
    }
}

async fn not_yet(uri: http::Uri) -> Error {
    Error::not_implemented(format_args!("{:?}", uri.path()))
}

async fn no_checkpoints() -> Error {
    Error::not_implemented("checkpoint and restore")
}

async fn no_websocket() -> Error {
    Error::not_implemented("attach over a WebSocket (attach by connection upgrade works)")
}
