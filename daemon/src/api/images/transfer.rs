//! Images in and out: `POST /images/create` (import; for pull see its file), `POST /images/load`, `GET /images/get`.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::extract::{Request, State};
use cleat_proto::{kind::Kind, platform::Platform};
use http::StatusCode;
use serde::Serialize;

use super::{named_platform, progress, pull, receive, repository_and_tag};
use crate::{
    api::{
        body::{self, ProgressError},
        error::{Error, Result},
        hijack::Socket,
        query::Query,
        version::ApiVersion,
    },
    engine::Engine,
    image::{Import, Loaded},
};

/// Clients draw no faster than this.
const TELL_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
}

pub(super) async fn create(State(engine): State<Engine>, query: Query, request: Request) -> Result {
    if query.optional("fromImage").is_some() {
        let client = request.extensions().get::<Socket>().cloned();
        return pull::pull(engine, client, &query, request.headers()).await;
    }
    let source = query.get("fromSrc");
    let reference = repository_and_tag(query.get("repo"), query.get("tag"))?;
    if reference.as_ref().is_some_and(|reference| reference.digest.is_some()) {
        return Err(Error::invalid("cannot import digest reference"));
    }
    let changes: Vec<String> = query.all("changes").map(str::to_owned).collect();
    crate::image::Images::check_changes(&changes).map_err(super::image_error)?;
    let platform = named_platform(&query)?.unwrap_or_else(Platform::host);
    if platform.os != "linux" {
        return Err(Error::invalid("operating system is not supported"));
    }
    let message = match query.optional("message") {
        Some(message) => message.to_owned(),
        None => format!("Imported from {source}"),
    };
    let import = Import { reference, changes, message, platform };
    let Some(url) = url(source) else {
        let image = engine.import_image(receive(request.into_body()), import).await?;
        return Ok(progress(&Status { status: image.id.as_str() }));
    };
    let client = request.extensions().get::<Socket>().cloned();
    pull::stream(client, move |lines| async move {
        let told = Mutex::new(None::<Instant>);
        let tell = |current: u64, total: Option<u64>| {
            if current == 0 {
                return lines.status(&format!("Downloading from {url}"));
            }
            let mut told_at = told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
            if is_due || total == Some(current) {
                *told_at = Some(Instant::now());
                lines.progress("", "Importing", current, total.unwrap_or(0));
            }
        };
        let image = engine.import_url(&url, import, tell).await?;
        lines.status(image.id.as_str());
        Ok(lines)
    })
    .await
}

/// Where an import comes from; `None` is the request itself. A name alone is a host's.
fn url(source: &str) -> Option<String> {
    match source {
        "-" => None,
        _ if source.contains("://") => Some(source.to_owned()),
        _ => Some(format!("http://{source}")),
    }
}

#[derive(Serialize)]
struct Stream {
    stream: String,
}

/// One layer's progress: begun and done at once, since layers are unpacked as they come by.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    status: &'static str,
    progress_detail: Detail,
    id: String,
}

#[derive(Serialize)]
struct Detail {
    current: u64,
    total: u64,
}

/// The answer's head goes out with the first line; whatever fails is told in band.
pub(super) async fn load(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
    request: Request,
) -> Result {
    let platform = if version.since(1, 48) { super::show::platform(&query)? } else { None };
    let quiet = query.bool_or("quiet", true);
    let (sender, answer) = body::channel(64);
    let archive = receive(request.into_body());
    tokio::spawn(async move {
        let lines = sender.clone();
        let loaded = engine.load_images(archive, platform, move |step| {
            for line in lines_of(step, quiet) {
                // Nobody reads any more: the load goes on to its end all the same.
                let _ = lines.blocking_send(line);
            }
        });
        if let Err(error) = loaded.await {
            let _ = sender.progress(&ProgressError::new(error.whole())).await;
        }
    });
    Ok(body::stream("application/json", answer))
}

fn lines_of(step: Loaded, quiet: bool) -> Vec<Vec<u8>> {
    let stream = |text: String| line(&Stream { stream: text });
    match step {
        Loaded::Layer(diff_id, size) if !quiet => vec![line(&Layer {
            status: "Loading layer",
            progress_detail: Detail { current: size, total: size },
            id: diff_id.short().to_owned(),
        })],
        Loaded::Layer(..) => Vec::new(),
        Loaded::Name(_, reference, before) => {
            let name = reference.familiar();
            let moved = before.map(|id| {
                stream(format!(
                    "The image {name} already exists, renaming the old one with ID {id} to empty string\n"
                ))
            });
            moved.into_iter().chain([stream(format!("Loaded image: {name}\n"))]).collect()
        }
        Loaded::Image(id) => vec![stream(format!("Loaded image ID: {id}\n"))],
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.extend_from_slice(b"\r\n");
    text
}

pub(super) async fn save_many(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result {
    let names = query.all("names").map(str::to_owned).collect();
    save(&engine, names, version, &query)
}

pub(super) fn save(
    engine: &Engine,
    names: Vec<String>,
    version: ApiVersion,
    query: &Query,
) -> Result {
    let platform = if version.since(1, 48) { super::show::platform(query)? } else { None };
    let chunks = engine.save_images(&names, platform.as_ref()).map_err(|error| {
        // A wrong name is, to Docker, a failure of its own here, and a missing image has the name that was typed.
        let error = Error::from(error);
        let missing =
            names.iter().find(|name| *error.message() == format!("No such image: {name}:latest"));
        match (error.status(), missing) {
            (StatusCode::BAD_REQUEST, _) => Error::internal(error.message()),
            (_, Some(name)) => Error::new(Kind::NotFound, format!("No such image: {name}")),
            _ => error,
        }
    })?;
    Ok(body::stream("application/x-tar", body::from_receiver(chunks)))
}
