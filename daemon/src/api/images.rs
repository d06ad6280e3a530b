//! `/images/…`. Names contain slashes, so what is done with one stands at the end of the path.

mod check;
mod list;
mod manifests;
mod pull;
mod push;
mod show;
mod transfer;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cleat_proto::{
    docker::image::{Deleted, ImagesPruned},
    platform::Platform,
};
use http::{HeaderMap, StatusCode};

use super::{
    body,
    error::{Error, Result},
    hijack::Socket,
    query::Query,
    version::ApiVersion,
};
use crate::{
    engine::{self, Engine},
    image::{self, Image, Reference, RemoveOptions, Removed},
};

pub use list::disk_usage;
pub(super) use pull::{AuthConfig, credentials};

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/images/json", get(list::list))
        .route("/images/create", post(transfer::create))
        .route("/images/load", post(transfer::load))
        .route("/images/get", get(transfer::save_many))
        .route("/images/prune", post(prune))
        .route("/cleat/images/check", get(check::check).post(check::repair))
        .route("/images/{*rest}", get(read).post(change).delete(remove))
}

/// `GET /images/{name}/json|history|get`.
async fn read(
    state: State<Engine>,
    Path(rest): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result {
    match rest.rsplit_once('/') {
        Some((name, "json")) => show::inspect(&state, name, version, &query),
        Some((name, "history")) => show::history(&state, name, version, &query),
        Some((name, "get")) => transfer::save(&state, vec![name.to_owned()], version, &query),
        _ => Ok(super::error::page_not_found().await),
    }
}

/// `POST /images/{name}/tag|push`.
async fn change(
    State(engine): State<Engine>,
    client: Socket,
    Path(rest): Path<String>,
    version: ApiVersion,
    query: Query,
    headers: HeaderMap,
) -> Result {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => tag(&engine, name, &query).await,
        Some((name, "push")) => push::push(engine, client, name, version, &query, &headers).await,
        _ => Ok(super::error::page_not_found().await),
    }
}

async fn tag(engine: &Engine, name: &str, query: &Query) -> Result {
    // dockerd finds nothing to do in that, and nothing wrong.
    let Some(reference) = repository_and_tag(query.get("repo"), query.get("tag"))? else {
        return Ok(StatusCode::OK.into_response());
    };
    if reference.digest.is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    if reference.name.familiar() == "sha256" {
        return Err(Error::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    engine.tag_image(name, reference).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// Reads the two parameters that name an image; `None` if there is no repository.
///
/// # Errors
/// 400 for what is no name or no tag.
pub(super) fn repository_and_tag(repo: &str, tag: &str) -> Result<Option<Reference>, Error> {
    if repo.is_empty() {
        return Ok(None);
    }
    let mut reference = Reference::parse(repo).map_err(image_error)?;
    if !tag.is_empty() {
        if let Ok(digest) = tag.parse() {
            reference.digest = Some(digest);
        } else if image::reference::is_tag(tag) {
            reference.tag = Some(tag.to_owned());
        } else {
            return Err(Error::invalid("invalid tag format"));
        }
    }
    Ok(Some(reference.or_latest()))
}

/// Reads a platform as most calls have it, `os[/architecture[/variant]]`; see [`show::platform`] for the other way.
///
/// # Errors
/// 400 for what is none.
pub fn named_platform(query: &Query) -> Result<Option<Platform>, Error> {
    let text = query.optional("platform").filter(|text| !text.is_empty());
    let platform = text.map(Platform::parse).transpose();
    platform.map_err(|error| Error::invalid(error.to_string()))
}

/// An image's error as the API's.
pub(super) fn image_error(error: impl Into<image::Error>) -> Error {
    Error::from(engine::Error::from(error.into()))
}

async fn remove(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result {
    if name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let options = RemoveOptions { force: query.bool("force"), keep_parents: query.bool("noprune") };
    let platforms = match version.since(1, 50) {
        true => query.all("platforms").map(show::platform_of).collect::<Result<Vec<_>, _>>()?,
        false => Vec::new(),
    };
    let removed = match platforms.is_empty() {
        true => engine.remove_image(&name, options).await?,
        false => engine.remove_platforms(&name, platforms, options).await?,
    };
    body::ok(&removed_lines(&removed))
}

fn removed_lines(removed: &[Removed]) -> Vec<Deleted> {
    let line = |one: &Removed| match one {
        Removed::Name(_, reference) => Deleted::Untagged(reference.familiar()),
        Removed::Image(id) => Deleted::Deleted(id.to_string()),
        Removed::Layer(id) => Deleted::Deleted(id.to_string()),
        Removed::Manifest(id) => Deleted::Deleted(id.to_string()),
    };
    removed.iter().map(line).collect()
}

async fn prune(State(engine): State<Engine>, query: Query) -> Result {
    let filters = query.filters()?;
    filters.only(&["dangling", "label", "label!", "until"])?;
    let dangling = filters.bool("dangling")?.unwrap_or(true);
    let until = filters.until_or_internal()?;
    let wanted = move |image: &Image| {
        let labels = image.config.labels.as_ref();
        (!dangling || image.is_dangling())
            && until.is_none_or(|until| created_nanos(image) < until)
            && filters.labels("label", labels)
            && filters.no_labels("label!", labels)
    };
    let (removed, space_reclaimed) = engine.prune_images(wanted).await?;
    let lines = removed_lines(&removed);
    let images_deleted = (!lines.is_empty()).then_some(lines);
    body::ok(&ImagesPruned { images_deleted, space_reclaimed })
}

/// When an image was made, in nanoseconds since the epoch; one that does not say was made at the beginning.
fn created_nanos(image: &Image) -> i64 {
    let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(i64::MIN)
}

/// When something was made, in seconds, as Go's zero time where it is not said.
fn unix_seconds(created: Option<&str>) -> i64 {
    const GO_ZERO: i64 = -62_135_596_800;
    let time = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(GO_ZERO, |time| time.as_nanosecond().div_euclid(1_000_000_000) as i64)
}

/// Streams a request's body to a thread that reads it.
pub(super) fn receive(body: Body) -> crate::archive::chunks::Received {
    use http_body_util::BodyExt;
    let (sender, received) = crate::archive::chunks::Received::channel();
    tokio::spawn(async move {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let chunk = match frame {
                Ok(frame) => frame.into_data().map_err(drop),
                Err(error) => {
                    let _ = sender.send(Err(std::io::Error::other(error))).await;
                    return;
                }
            };
            if let Ok(chunk) = chunk
                && sender.send(Ok(chunk)).await.is_err()
            {
                return;
            }
        }
    });
    received
}

/// Resolves an image of the platform that is asked for, if one is.
fn resolve_for(
    engine: &Engine,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Arc<Image>, Error> {
    engine.images().resolve_for(name, platform).map_err(image_error)
}

/// Resolves an image.
fn resolve(engine: &Engine, name: &str) -> Result<Arc<Image>, Error> {
    engine.images().resolve(name).map_err(image_error)
}

/// 200 with one progress line.
fn progress(value: &impl serde::Serialize) -> Response {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.extend_from_slice(b"\r\n");
    body::json_text(StatusCode::OK, text)
}
