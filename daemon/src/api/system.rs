//! `/_ping`, `/version`, `/info`.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;

use super::{body, error::Result, version::ApiVersion};
use crate::engine::Engine;

/// The daemon's own routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
}

/// Also answers HEAD, where the body is left out. Clients negotiate the version by its headers.
async fn ping(method: http::Method) -> Response {
    let headers = [
        ("builder-version", "2"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
    ];
    if method == http::Method::HEAD {
        return (headers, [(header::CONTENT_LENGTH, "0")]).into_response();
    }
    (headers, "OK").into_response()
}

async fn version() -> Result {
    body::ok(&Engine::version())
}

async fn info(version: ApiVersion, State(engine): State<Engine>) -> Result {
    let mut info = engine.info();
    if !version.since(1, 49) {
        info.firewall_backend = None;
    }
    body::ok(&info)
}
