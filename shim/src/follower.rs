//! Clients that follow the log: `docker logs -f`. Each is sent the log's files at its own pace, in a task of its own, so that its
//! slowness costs nobody anything, and the daemon's death breaks no connection.

use std::{io, path::PathBuf, sync::Arc};

use cleat_proto::{
    log::{Piece, Reader},
    shim::Follow,
};
use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname};
use std::os::fd::AsRawFd as _;
use tokio::{select, sync::watch, time::timeout};

use crate::{
    attach::{GOODBYE, discard, hang_up},
    backlog::send,
    descriptor::Descriptor,
};

/// What a client wants, and where it is.
pub struct Wanted {
    pub path: PathBuf,
    pub wish: Follow,
    /// With a terminal there are no frames.
    pub tty: bool,
    pub socket: Arc<Descriptor>,
}

/// Sends the log until the client goes, or `grown` says that it is whole. After the head that the daemon has sent.
///
/// # Errors
/// If the log cannot be read; a client that has gone is none.
pub async fn run(wanted: Wanted, grown: watch::Receiver<bool>) -> io::Result<()> {
    let socket = Arc::clone(&wanted.socket);
    select! {
        sent = send_log(wanted, grown) => sent?,
        () = gone(&socket) => return Ok(()),
    }
    hang_up(&socket);
    // Closing with unread input would reset a TCP connection and with it the last of the log.
    let _ = timeout(GOODBYE, discard(&socket)).await;
    Ok(())
}

async fn send_log(wanted: Wanted, mut grown: watch::Receiver<bool>) -> io::Result<()> {
    let Wanted { path, wish: Follow { options, chunked }, tty, socket } = wanted;
    // To count records back from the end of a long log takes a while.
    let opened = tokio::task::spawn_blocking(move || Reader::open(&path, options, tty, true));
    let mut reader = opened.await.map_err(io::Error::other)??;
    let watched = grown.clone();
    let is_over = || *watched.borrow();
    loop {
        // Before the look: what is added in between is news.
        let over = *grown.borrow_and_update();
        let Piece { bytes, caught_up, done } = reader.piece()?;
        if !bytes.is_empty() {
            if chunked {
                send(&socket, format!("{:x}\r\n", bytes.len()).as_bytes(), is_over).await?;
            }
            send(&socket, &bytes, is_over).await?;
            if chunked {
                send(&socket, b"\r\n", is_over).await?;
            }
            tokio::task::yield_now().await;
        }
        if done || caught_up && over {
            break;
        }
        if caught_up {
            // The output always says that it is over, unless the shim itself is.
            grown.changed().await.map_err(io::Error::other)?;
        }
    }
    match chunked {
        true => send(&socket, b"0\r\n\r\n", is_over).await,
        false => Ok(()),
    }
}

/// Resolves when the client listens no more. A unix socket tells that from one which only sends no more; TCP does not.
async fn gone(socket: &Descriptor) {
    let name = getsockname::<SockaddrStorage>(socket.as_raw_fd());
    let _ = discard(socket).await;
    if name.is_ok_and(|name| name.family() == Some(AddressFamily::Unix)) {
        let _ = socket.hung_up().await;
    }
}
