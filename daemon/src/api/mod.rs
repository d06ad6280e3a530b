//! HTTP: routes, a file per resource.
//!
//! A resource file offers `pub fn routes() -> Router<Engine>`; [`router`] puts them together. Its handlers turn path, query and
//! body into types, call the engine, and render what it answers; they decide nothing. What they have at hand:
//!
//! * `State(engine): State<Engine>`, `Path(name): Path<String>` (axum's; percent-escapes are undone);
//! * [`version::ApiVersion`]: the version of the request, for gates: `version.since(1, 42)`;
//! * [`query::Query`]: the query string by Go's rules: `get`, `optional`, `all` (repeated), `bool`, `bool_or`, `int` (Docker's 500
//!   for a wrong one), `filters()?` → [`query::Filters`] with `only(&[known keys])?`, `exact`, `any`, `labels`, `bool`, `until`;
//! * [`body::Json`]`<T>`: a JSON body read as Go reads it (`T: Deserialize + Default`, its name as in Go, since error texts
//!   have it); [`body::read`] and the bare `axum::body::Body` for anything else;
//! * answers: [`body::ok`]`(&value)`, [`body::json`]`(status, &value)`, [`body::no_content`]`()`, all as [`error::Result`];
//! * errors: [`error::Error`]; the engine's become one by `?`; [`error::Error::not_implemented`]`("what")` is 501;
//! * streams: [`body::channel`]`(queue)` gives a [`body::Sender`] and the `Body` for [`body::stream`]`(content_type, body)`; the sender
//!   has `send`, `line` (JSON and `\n`), `progress` (JSON and `\r\n`), `blocking_send` for threads, `closed` (the client went);
//! * [`hijack::Socket`]: the connection itself: `take` it, or learn that the client is `gone`.
//!
//! The version prefix, HEAD, OPTIONS, the daemon's headers and "page not found" are taken care of.
//! A segment in a path is `{name}`; image names contain slashes, so their file takes `/images/{*rest}` and looks at its end.

pub mod archive;
pub mod body;
pub mod containers;
pub mod df;
pub mod error;
pub mod events;
pub mod exec;
pub mod hijack;
pub mod images;
pub mod listen;
pub mod logs;
pub mod networks;
pub mod query;
pub mod registry;
pub mod server;
pub mod settle;
pub mod stats;
pub mod system;
pub mod time;
pub mod tls;
pub mod unimplemented;
pub mod version;
pub mod volumes;
pub mod websocket;

use axum::{Router, middleware};

use crate::engine::Engine;

/// All routes, with what goes before and after each.
pub fn router(engine: Engine) -> Router {
    routes()
        .route_layer(middleware::from_fn(version::gate))
        .fallback(error::page_not_found)
        .method_not_allowed_fallback(error::page_not_found)
        .with_state(engine)
}

fn routes() -> Router<Engine> {
    Router::new()
        .merge(archive::routes())
        .merge(containers::routes())
        .merge(df::routes())
        .merge(events::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(logs::routes())
        .merge(networks::routes())
        .merge(registry::routes())
        .merge(stats::routes())
        .merge(system::routes())
        .merge(unimplemented::routes())
        .merge(volumes::routes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_routes_are_in_each_others_way() {
        // The router panics at a conflict: better here than at the daemon's start.
        assert!(super::routes().has_routes());
    }
}
