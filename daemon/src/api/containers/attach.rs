//! `POST /containers/{name}/attach`.

use std::{io, os::fd::OwnedFd};

use axum::{
    extract::{Path, State},
    response::Response,
};
use cleat_proto::log::LogOptions;
use http::HeaderMap;
use tokio::net::UnixStream;

use crate::{
    api::{
        error::Error,
        hijack::{self, RAW, Socket, Taken, Upgrade, media_type},
        logs::write_log,
        query::Query,
        version::ApiVersion,
        websocket::{self, Handshake, Kind},
    },
    container::names::ContainerRef,
    engine::{AttachOptions, Engine},
};

/// The handler. From the answer's head on the shim alone speaks to the client.
pub async fn attach(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
    upgrade: Upgrade,
    socket: Socket,
) -> Response {
    let (streams, container) = (query.bool("stream"), ContainerRef(name));
    let logs = query.bool("logs").then(|| LogOptions {
        stdout: query.bool("stdout"),
        stderr: query.bool("stderr"),
        ..LogOptions::default()
    });
    let options = AttachOptions {
        stdin: query.bool("stdin"),
        stdout: query.bool("stdout"),
        stderr: query.bool("stderr"),
        logs: query.bool("logs"),
        stream: streams,
        detach_keys: query.optional("detachKeys").map(str::to_owned),
    };
    let attachment = match engine.attach(&container, options) {
        Ok(attachment) => attachment,
        Err(error) => return refuse(&socket, error.into()).await,
    };
    // Docker names the framed stream only where the client upgrades.
    let media_type = if upgrade.0 { media_type(attachment.tty, version) } else { RAW };
    let head = hijack::head(upgrade, media_type, &[]);
    if !streams {
        let log = match logs.map(|options| engine.logs(&container, options)).transpose() {
            Ok(log) => log,
            Err(error) => return refuse(&socket, error.into()).await,
        };
        return socket
            .take(async move |taken| {
                let written = write_log(taken, &head, log, false).await;
                written.unwrap_or_else(
                    |error| tracing::debug!(%error, "a log was not read to its end"),
                );
            })
            .await;
    }
    socket
        .take(async move |taken| {
            if taken.write(head.as_bytes()).is_err() {
                return;
            }
            if let Err(error) = attachment.join(taken.fd, taken.early).await {
                tracing::warn!(error = error.whole(), "a client could not be attached");
            }
        })
        .await
}

/// The same over a WebSocket: the relay stands between the client and what the shim is given.
pub async fn attach_websocket(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
    headers: HeaderMap,
    socket: Socket,
) -> Result<Response, Error> {
    // Before 1.42 a client got all streams, whatever it asked for.
    let wants = |stream: &str| !version.since(1, 42) || query.bool(stream);
    let (stream, logs, container) = (query.bool("stream"), query.bool("logs"), ContainerRef(name));
    let options = AttachOptions {
        stdin: wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        logs,
        stream,
        detach_keys: query.optional("detachKeys").map(str::to_owned),
    };
    let log_options =
        LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
    let attachment = engine.attach(&container, options)?;
    let log = match logs && !stream {
        true => Some(engine.logs(&container, log_options)?),
        false => None,
    };
    let handshake = match Handshake::read(&headers) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(refusal.answer(&socket).await),
    };
    let kind = if version.since(1, 28) { Kind::Binary } else { Kind::Text };
    let tty = attachment.tty;
    let answer = socket.take(async move |client| {
        let joined = async {
            let (ours, theirs) = UnixStream::pair()?;
            let theirs = OwnedFd::from(theirs.into_std()?);
            let relayed = websocket::relay(client, &handshake, ours, tty, kind);
            let fed = async {
                if stream {
                    let joined = attachment.join(theirs, Vec::new()).await;
                    return joined.map_err(|error| io::Error::other(error.whole()));
                }
                write_log(Taken { fd: theirs, early: Vec::new() }, "", log, false).await
            };
            // Who fails to attach leaves the stream closed, and the relay ends.
            let (relayed, fed) = tokio::join!(relayed, fed);
            fed.and(relayed)
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a WebSocket ended early");
        }
    });
    Ok(answer.await)
}

/// Docker has the connection in its hands already when it finds out, and answers in plain text.
async fn refuse(socket: &Socket, error: Error) -> Response {
    let status = error.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {RAW}\r\n\r\n{}\r\n",
        status.as_u16(),
        error.message()
    );
    socket
        .take(async move |taken| {
            // A client that is gone needs no answer.
            let _ = taken.write(answer.as_bytes());
        })
        .await
}
