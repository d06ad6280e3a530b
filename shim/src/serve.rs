//! The socket: who may speak on it, and which of three protocols they speak.

use std::{
    convert::Infallible,
    io,
    os::{fd::OwnedFd, unix::net::UnixListener as StdListener},
    time::Duration,
};

use cleat_proto::{
    containerd::task::v3::task_server::TaskServer, shim_v1::supervisor_server::SupervisorServer,
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd;
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tower_service::Service as _;

use crate::{backlog::Unfinished, hello, service::Service, ttrpc};

/// A peer that says nothing is forgotten.
const SILENCE: Duration = Duration::from_secs(10);
/// How long peers may take to end what they had begun when the shim shuts down.
const GOODBYE: Duration = Duration::from_secs(1);
/// Messages are small: a process's spec is the largest.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Accepts until `closing` says so.
pub async fn run(
    listener: OwnedFd,
    service: Service,
    mut closing: watch::Receiver<bool>,
    unfinished: Unfinished,
) -> io::Result<()> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) if is_ours(&stream) => {
                let (service, closing, unfinished) =
                    (service.clone(), closing.clone(), unfinished.clone());
                tokio::spawn(async move {
                    // A peer's mistake is its own: the connection ends.
                    let _ = speak(stream, service, closing).await;
                    drop(unfinished);
                });
            }
            Ok(_) => {}
            // No descriptors left, or the peer has gone already: others may fare better, a little later.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The socket's mode keeps others out; this does so even if the mode was changed.
fn is_ours(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw() || peer.uid() == 0)
}

async fn speak(
    stream: UnixStream,
    service: Service,
    mut closing: watch::Receiver<bool>,
) -> io::Result<()> {
    let first = tokio::select! {
        first = tokio::time::timeout(SILENCE, first_byte(&stream)) => first??,
        _ = closing.wait_for(|closing| *closing) => return Ok(()),
    };
    match first {
        Some(b'P') => speak_grpc(stream, service, closing).await,
        Some(b'C') => hello::serve(stream, service).await,
        Some(0) => {
            tokio::select! {
                served = ttrpc::serve(stream, service) => served,
                () = overdue(closing) => Ok(()),
            }
        }
        Some(_) | None => Ok(()),
    }
}

async fn overdue(mut closing: watch::Receiver<bool>) {
    // An error means that main has gone on without us.
    let _ = closing.wait_for(|closing| *closing).await;
    tokio::time::sleep(GOODBYE / 10).await;
}

/// Returns the first byte without taking it; none if the peer hangs up.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || {
            Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?)
        }) {
            Ok(n) => return Ok((n > 0).then_some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn speak_grpc(
    stream: UnixStream,
    service: Service,
    mut closing: watch::Receiver<bool>,
) -> io::Result<()> {
    let (task, supervisor) = (TaskServer::new(service.clone()), SupervisorServer::new(service));
    let route = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut task, mut supervisor) = (task.clone(), supervisor.clone());
        async move {
            if request.uri().path().starts_with("/cleat.shim.v1.") {
                Ok::<_, Infallible>(
                    supervisor.call(request).await.unwrap_or_else(|never| match never {}),
                )
            } else {
                Ok(task.call(request).await.unwrap_or_else(|never| match never {}))
            }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .max_header_list_size(8 * 1024)
        .max_concurrent_streams(1024)
        .serve_connection(TokioIo::new(stream), route);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        _ = closing.wait_for(|closing| *closing) => connection.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(GOODBYE, connection).await?.map_err(io::Error::other)
}
