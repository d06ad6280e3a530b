//! `/containers/{name}/exec` and `/exec/…`.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use base64::Engine as _;
use cleat_proto::docker::inspect;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    body::{self, Json},
    error::{Error, Result},
    hijack::{self, RAW, Socket, Upgrade, media_type},
    query::Query,
    version::{self, ApiVersion},
};
use crate::{
    container::names::ContainerRef,
    engine::{Engine, ExecConfig, ExecState},
};

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{name}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ExecOptions {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<[u32; 2]>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    detach_keys: String,
    env: Option<Vec<String>>,
    working_dir: String,
    cmd: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(rename = "Id")]
    id: &'a str,
}

async fn create(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    Json(options): Json<ExecOptions>,
) -> Result {
    let cmd = options.cmd.unwrap_or_default();
    if cmd.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    let config = ExecConfig {
        attach_stdin: options.attach_stdin,
        attach_stdout: options.attach_stdout,
        attach_stderr: options.attach_stderr,
        tty: options.tty,
        cmd,
        env: options.env.unwrap_or_default(),
        user: options.user,
        privileged: options.privileged,
        working_dir: options.working_dir,
        detach_keys: Some(options.detach_keys).filter(|keys| !keys.is_empty()),
        console_size: options.console_size.filter(|_| version.since(1, 42)),
    };
    let id = engine.exec_create(&ContainerRef(name), config).await?;
    Ok(body::json(StatusCode::CREATED, &Created { id: id.as_str() }))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ExecStartOptions {
    detach: bool,
    tty: bool,
    console_size: Option<[u32; 2]>,
}

/// Detached it is an ordinary request; else the connection becomes the process's streams.
async fn start(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    version: ApiVersion,
    upgrade: Upgrade,
    socket: Socket,
    Json(options): Json<ExecStartOptions>,
) -> Result {
    let console_size = options.console_size.filter(|_| version.since(1, 42) && options.tty);
    let launch = match engine.exec_prepare(&id, console_size) {
        Err(error) if !options.detach && error.whole().starts_with("exec command ") => {
            return Ok(started_before(&socket, upgrade, version, options.tty, &error).await);
        }
        launch => launch?,
    };
    if options.detach {
        launch.run(None).await?;
        return Ok(Response::default());
    }
    let media_type = if upgrade.0 { media_type(options.tty, version) } else { RAW };
    let head = hijack::head(upgrade, media_type, &version::all_headers());
    let answer = socket.take(async move |taken| {
        if taken.write(head.as_bytes()).is_err() {
            return;
        }
        if let Err(error) = launch.run(Some((taken.fd, taken.early))).await {
            // The client has been told on its stream.
            tracing::debug!(error = error.whole(), "an exec could not be started");
        }
    });
    Ok(answer.await)
}

/// Docker has the connection in its hands already when it finds out that an exec was started before, and says so on stdout.
async fn started_before(
    socket: &Socket,
    upgrade: Upgrade,
    version: ApiVersion,
    tty: bool,
    error: &crate::engine::Error,
) -> Response {
    let media_type = if upgrade.0 { media_type(tty, version) } else { RAW };
    let mut answer = hijack::head(upgrade, media_type, &version::all_headers()).into_bytes();
    let text = format!("{}\r\n", error.whole());
    if !tty {
        // The frame's header: stdout, and the length. Source: Engine API v1.51, ContainerAttach.
        answer.extend([1, 0, 0, 0]);
        answer.extend((text.len() as u32).to_be_bytes());
    }
    answer.extend(text.as_bytes());
    socket
        .take(async move |taken| {
            // A client that is gone needs no answer.
            let _ = taken.write(&answer);
        })
        .await
}

async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Query) -> Result {
    let (height, width) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
    engine.exec_resize(&id, height, width).await?;
    Ok(Response::default())
}

async fn inspect(State(engine): State<Engine>, Path(id): Path<String>) -> Result {
    let exec = engine.exec_settled(&id).await?;
    let config = &exec.config;
    let (exit_code, pid) = match exec.state {
        ExecState::Created | ExecState::Starting => (None, 0),
        ExecState::Running { pid } => (None, pid),
        ExecState::Exited { status, pid } => (Some(status), pid),
    };
    body::ok(&inspect::Exec {
        id: exec.id.as_str(),
        running: matches!(exec.state, ExecState::Running { .. }),
        exit_code,
        process_config: inspect::ProcessConfig {
            tty: config.tty,
            entrypoint: config.cmd.first().map_or("", String::as_str),
            arguments: config.cmd.get(1..).unwrap_or_default(),
            privileged: config.privileged,
            user: &config.user,
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        // Docker removes them by itself, and says so of none.
        can_remove: false,
        container_id: exec.container.as_str(),
        detach_keys: base64::engine::general_purpose::STANDARD
            .encode(config.detach_keys.as_deref().unwrap_or_default()),
        pid,
    })
}
