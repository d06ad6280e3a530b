//! Images in and out: `POST /images/create` (import; pull comes with registries), `POST /images/load`, `GET /images/get`.

use axum::{
    body::Body,
    extract::{Request, State},
};
use serde::Serialize;

use super::{progress, receive, repository_and_tag};
use crate::{
    api::{
        error::{Error, Result},
        query::Query,
    },
    engine::Engine,
    image::Import,
};

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
}

pub(super) async fn create(State(engine): State<Engine>, query: Query, request: Request) -> Result {
    if query.optional("fromImage").is_some() {
        return Err(Error::not_implemented("pulling images"));
    }
    let source = query.get("fromSrc");
    if source != "-" {
        return Err(Error::not_implemented("importing from a URL"));
    }
    let reference = repository_and_tag(query.get("repo"), query.get("tag"))?;
    if reference.as_ref().is_some_and(|reference| reference.digest.is_some()) {
        return Err(Error::invalid("cannot import digest reference"));
    }
    let changes: Vec<String> = query.all("changes").map(str::to_owned).collect();
    crate::image::Images::check_changes(&changes).map_err(super::image_error)?;
    let (os, architecture, variant) = platform(query.get("platform"))?;
    let message = match query.optional("message") {
        Some(message) => message.to_owned(),
        None => format!("Imported from {source}"),
    };
    let import = Import { reference, changes, message, os, architecture, variant };
    let image = engine.import_image(receive(request.into_body()), import).await?;
    Ok(progress(&Status { status: image.id.as_str() }))
}

/// Reads `os[/architecture[/variant]]`; the host's where nothing is said.
fn platform(text: &str) -> Result<(String, String, String), Error> {
    let mut parts = text.split('/').map(str::to_ascii_lowercase);
    let os = parts.next().filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".into());
    let architecture = parts.next().unwrap_or_else(|| crate::image::host_architecture().into());
    let variant = parts.next().unwrap_or_default();
    let is_word = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    if parts.next().is_some()
        || ![&os, &architecture, &variant].into_iter().all(|text| is_word(text))
    {
        return Err(Error::invalid(format!("{text:?} is an invalid platform")));
    }
    if os != "linux" {
        return Err(Error::invalid(format!("operating system {os:?} is not supported")));
    }
    Ok((os, architecture, variant))
}

pub(super) async fn load(State(engine): State<Engine>, query: Query, request: Request) -> Result {
    let _ = (engine, query, request.into_body() as Body);
    Err(Error::not_implemented("load"))
}

pub(super) async fn save_many(State(engine): State<Engine>, query: Query) -> Result {
    save(&engine, query.all("names").map(str::to_owned).collect(), &query)
}

pub(super) fn save(engine: &Engine, names: Vec<String>, query: &Query) -> Result {
    let _ = (engine, names, query);
    Err(Error::not_implemented("save"))
}
