//! `POST /auth`, `GET /distribution/{name}/json`, `GET /images/search`: questions that a registry answers.

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use cleat_proto::docker::go_json;
use http::HeaderMap;
use serde::Serialize;

use super::{
    body,
    error::{Error, Result},
    images::{AuthConfig, credentials, image_error},
    query::Query,
};
use crate::{engine::Engine, image::Reference, registry::manifest::Platform};

/// What a search answers with at most, and what it does unless told.
const SEARCH_MAX: i64 = 100;
const SEARCH_DEFAULT: i64 = 25;

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/auth", post(auth))
        .route("/distribution/{*rest}", get(distribution))
        .route("/images/search", get(search))
}

/// Engine API, `AuthenticateOKBody`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LoggedIn {
    identity_token: String,
    status: &'static str,
}

async fn auth(State(engine): State<Engine>, request: axum::extract::Request) -> Result {
    let bytes = body::json_body(request, body::MAX_JSON_BYTES).await?.unwrap_or_default();
    let config: AuthConfig = go_json::from_slice(&bytes).map_err(body::json_error)?;
    let domain = domain(&config.server_address).to_owned();
    let identity_token = engine.log_in(&domain, config.into()).await?;
    body::ok(&LoggedIn { identity_token, status: "Login Succeeded" })
}

/// The registry that a client means: `host:port`, an address of old, or nothing for Docker Hub.
fn domain(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Engine API, `DistributionInspect`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Distribution {
    descriptor: Descriptor,
    platforms: Vec<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

async fn distribution(
    State(engine): State<Engine>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result {
    let Some(name) = rest.strip_suffix("/json") else {
        return Ok(super::error::page_not_found().await);
    };
    let reference = Reference::parse(name).map_err(image_error)?.or_latest();
    let found = engine.remote_image(&reference, credentials(&headers)).await?;
    body::ok(&Distribution {
        descriptor: Descriptor {
            media_type: found.media_type,
            digest: found.digest.to_string(),
            size: found.size,
        },
        platforms: found.platforms,
    })
}

/// Engine API, `ImageSearchResponseItem`.
#[derive(Serialize)]
struct Item {
    star_count: i64,
    is_official: bool,
    name: String,
    is_automated: bool,
    description: String,
}

async fn search(State(engine): State<Engine>, query: Query) -> Result {
    let filters = query.filters()?;
    filters.only(&["is-automated", "is-official", "stars"])?;
    let official = filters.bool("is-official")?;
    // There are none any more.
    let automated = filters.bool("is-automated")?.unwrap_or(false);
    let mut stars = 0;
    for text in filters.get("stars") {
        let wanted: i64 = text.parse().map_err(|_| {
            let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            Error::invalid(format!("invalid filter 'stars={text}': {why}"))
        })?;
        stars = stars.max(wanted);
    }
    let limit = match query.get("limit") {
        "" => SEARCH_DEFAULT,
        text => text.parse().unwrap_or(-1),
    };
    let limit = if limit == 0 { SEARCH_DEFAULT } else { limit };
    if !(1..=SEARCH_MAX).contains(&limit) {
        return Err(Error::invalid(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let term = query.get("term");
    let (host, rest) = match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", term),
    };
    let found = engine.search_images(host, rest, limit.unsigned_abs() as u32).await?;
    let wanted = found.into_iter().filter(|result| {
        !automated
            && official.is_none_or(|official| result.is_official == official)
            && result.star_count >= stars
    });
    let items = wanted.map(|result| Item {
        star_count: result.star_count,
        is_official: result.is_official,
        name: result.name,
        is_automated: false,
        description: result.description,
    });
    body::ok(&items.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_its_registry_in_many_ways() {
        for (address, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://r.example/v2/", "r.example"),
        ] {
            assert_eq!(domain(address), expected, "{address}");
        }
    }
}
