//! `/containers/{name}/archive`, `/changes`, `/export`, and `/commit`.

use axum::{
    Router,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use base64::Engine as _;
use cleat_proto::docker::{
    container::Config,
    go_json::{Document, Value},
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{
    body,
    error::{Error, Result},
    images::{receive, repository_and_tag},
    query::Query,
    time,
};
use crate::{
    container::names::ContainerRef,
    engine::{CommitRequest, Engine, PathStat, PutOptions},
    snapshot::diff,
};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{name}/archive", head(stat).get(download).put(upload))
        .route("/containers/{name}/changes", get(changes))
        .route("/containers/{name}/export", get(export))
        .route("/commit", post(commit))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatHeader<'a> {
    name: &'a str,
    size: i64,
    mode: u32,
    mtime: String,
    link_target: &'a str,
}

/// Go's `FileMode`: permissions as usual, the rest in bits of its own. Source: Go, package io/fs, FileMode.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        _ => 0,
    };
    let special = [(libc::S_ISUID, 23), (libc::S_ISGID, 22), (libc::S_ISVTX, 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, to)| 1_u32 << to);
    special.fold(mode & 0o777 | kind, |mode, bit| mode | bit)
}

fn stat_header(stat: &PathStat) -> Result<HeaderValue, Error> {
    let header = StatHeader {
        name: &stat.name,
        size: stat.size,
        mode: go_mode(stat.mode),
        mtime: time::rfc3339_nano(stat.mtime_nanos),
        link_target: &stat.link_target,
    };
    let json = serde_json::to_vec(&header).map_err(|error| Error::internal(error.to_string()))?;
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    HeaderValue::try_from(text).map_err(|error| Error::internal(error.to_string()))
}

fn path_of(query: &Query) -> Result<String, Error> {
    match query.optional("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(Error::invalid("bad parameter: pathcannot be empty")),
    }
}

async fn stat(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let stat = engine.stat_path(&ContainerRef(name), path_of(&query)?).await?;
    Ok(([(STAT, stat_header(&stat)?)], ()).into_response())
}

async fn download(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let (stat, chunks) = engine.get_path(&ContainerRef(name), path_of(&query)?).await?;
    let mut response = body::stream("application/x-tar", body::from_receiver(chunks));
    response.headers_mut().insert(STAT, stat_header(&stat)?);
    Ok(response)
}

async fn upload(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    request: Request,
) -> Result {
    let options =
        PutOptions { keep_kind: query.bool("noOverwriteDirNonDir"), own: query.bool("copyUIDGID") };
    let path = path_of(&query)?;
    let tar = receive(request.into_body());
    engine.put_path(&ContainerRef(name), path, options, tar).await?;
    Ok(Response::new(axum::body::Body::empty()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    path: String,
    kind: u8,
}

/// No change at all is `null`.
async fn changes(State(engine): State<Engine>, Path(name): Path<String>) -> Result {
    let kind = |kind| match kind {
        diff::Kind::Modified => 0,
        diff::Kind::Added => 1,
        diff::Kind::Deleted => 2,
    };
    let changes = engine.changes(&ContainerRef(name)).await?;
    let changes: Vec<Change> = changes
        .into_iter()
        .map(|change| Change { path: change.path, kind: kind(change.kind) })
        .collect();
    body::ok(&Some(changes).filter(|changes| !changes.is_empty()))
}

async fn export(State(engine): State<Engine>, Path(name): Path<String>) -> Result {
    let chunks = engine.export(&ContainerRef(name)).await?;
    Ok(body::stream("application/octet-stream", body::from_receiver(chunks)))
}

/// For the name alone, which an error text has.
#[derive(serde::Deserialize)]
struct CreateRequest {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Id {
    id: String,
}

async fn commit(State(engine): State<Engine>, query: Query, request: Request) -> Result {
    let container = ContainerRef(query.get("container").to_owned());
    // Before all else, as Docker has it: the rest of the request may be wrong as well.
    engine.container(&container)?;
    let reference = repository_and_tag(query.get("repo"), query.get("tag"))?;
    let config = body::json_body(request, body::MAX_JSON_BYTES).await?;
    let config =
        config.filter(|body| !body.trim_ascii().is_empty() && body.trim_ascii() != b"null");
    let config: Option<Config> = config
        .map(|body| {
            let document = Document::parse(&body).map_err(body::json_error)?;
            let read = match document.value() {
                Value::Object(_) | Value::Null => document.read_named(Some("")),
                // Docker reads it as the body of a create, and looks at the `Config` in it.
                _ => document.read::<CreateRequest>().map(|_| Config::default()),
            };
            read.map_err(body::json_error)
        })
        .transpose()?;
    let request = CommitRequest {
        reference,
        // A client that has nothing to say sends an empty object.
        config: config.filter(|config| *config != Config::default()),
        changes: query.all("changes").map(str::to_owned).collect(),
        author: query.get("author").to_owned(),
        comment: query.get("comment").to_owned(),
        pause: query.bool_or("pause", true),
    };
    let id = engine.commit_container(&container, request).await?;
    Ok(body::json(StatusCode::CREATED, &Id { id: id.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_gos() {
        assert_eq!(go_mode(libc::S_IFDIR | 0o755), 2_147_484_141);
        assert_eq!(go_mode(libc::S_IFLNK | 0o777), 134_218_239);
        assert_eq!(go_mode(libc::S_IFREG | 0o640), 416);
        assert_eq!(go_mode(libc::S_IFREG | 0o4755), 1 << 23 | 0o755);
    }
}
