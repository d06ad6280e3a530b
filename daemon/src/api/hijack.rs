//! Taking the client's socket away from HTTP.
//!
//! Attach and exec go on as a raw stream after their request: 101 where the client asked to upgrade, 200 with an unframed body
//! where it did not. hyper can do the first and would chunk the second, so there is one way for both: hyper works on a
//! [`Socket`] from which the stream can be taken; the handler asks for it and never answers; the connection's task ends hyper,
//! and gives the descriptor and whatever hyper had read beyond the request to the waiting continuation.
//! Source: Engine API v1.51, ContainerAttach, "Hijacking".

use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{extract::FromRequestParts, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf, unix::AsyncFd},
    net::{TcpStream, UnixStream},
    sync::{Notify, oneshot},
};
use tokio_rustls::server::TlsStream;

use super::{error::Error, server::Stream};

/// The socket of one connection, shared by hyper, the handler and the connection's task.
#[derive(Clone)]
pub struct Socket(Arc<Shared>);

struct Shared {
    stream: Mutex<Option<Stream>>,
    taker: Mutex<Option<oneshot::Sender<Taken>>>,
    wanted: Notify,
}

/// A connection that is no longer HTTP's.
pub struct Taken {
    /// The socket.
    pub fd: OwnedFd,
    /// What the client had sent already.
    pub early: Vec<u8>,
}

impl<S: Sync> FromRequestParts<S> for Socket {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("the connection cannot be taken over"))
    }
}

impl Socket {
    /// Wraps a fresh connection.
    pub fn new(stream: Stream) -> Self {
        Self(Arc::new(Shared {
            stream: Mutex::new(Some(stream)),
            taker: Mutex::new(None),
            wanted: Notify::new(),
        }))
    }

    /// Takes the connection; `then` goes on with it in a task of its own. Never returns: the connection's task drops the
    /// handler. The request's body must have been read.
    pub async fn take<F, Fut>(&self, then: F) -> Response
    where
        F: FnOnce(Taken) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let (sender, receiver) = oneshot::channel();
        *lock(&self.0.taker) = Some(sender);
        tokio::spawn(async move {
            // An error means that the client was gone first.
            if let Ok(taken) = receiver.await {
                then(taken).await;
            }
        });
        self.0.wanted.notify_one();
        std::future::pending().await
    }

    /// Resolves when a handler wants the socket.
    pub async fn hijack_wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// Takes the stream from a connection that HTTP is done with.
    pub fn close(&self) -> Option<Stream> {
        lock(&self.0.stream).take()
    }

    /// Gives the socket to the handler's continuation.
    pub fn hand_over(&self, early: &[u8]) {
        let (Some(stream), Some(taker)) = (lock(&self.0.stream).take(), lock(&self.0.taker).take())
        else {
            return;
        };
        match into_fd(stream) {
            // The continuation waits for it, or the daemon is ending.
            Ok(fd) => drop(taker.send(Taken { fd, early: early.to_vec() })),
            Err(error) => tracing::debug!(%error, "a connection was lost when it was taken over"),
        }
    }

    /// Resolves when the client has gone for good. (On a unix socket one that only closed its sending side still listens; TCP
    /// cannot tell the two apart.)
    pub async fn gone(&self) {
        let Some(Watch { fd, gone, interest }) = self.watch() else { return };
        // Deprecated since a type may change its descriptor; an `OwnedFd` does not, and we write no `unsafe` here.
        #[allow(deprecated)]
        let Ok(fd) = AsyncFd::with_interest(fd, interest) else {
            return std::future::pending().await;
        };
        loop {
            // First the look, then the wait: what happens in between wakes us.
            if has_event(fd.get_ref().as_fd(), gone) {
                return;
            }
            let waited = match interest {
                Interest::READABLE => fd.readable().await,
                _ => fd.writable().await,
            };
            let Ok(mut guard) = waited else { return };
            guard.clear_ready();
        }
    }

    fn watch(&self) -> Option<Watch> {
        match lock(&self.0.stream).as_ref()? {
            // Once a client has closed its sending side, a wait for readability would never wait again: tokio keeps that as
            // a final state. A hang-up is reported whatever one waits for.
            Stream::Unix(stream) => Some(Watch {
                fd: stream.as_fd().try_clone_to_owned().ok()?,
                gone: PollFlags::POLLHUP,
                interest: Interest::WRITABLE,
            }),
            Stream::Tcp(stream) => watch_tcp(stream),
            Stream::Tls(stream) => watch_tcp(stream.get_ref().0),
        }
    }
}

fn watch_tcp(stream: &tokio::net::TcpStream) -> Option<Watch> {
    Some(Watch {
        fd: stream.as_fd().try_clone_to_owned().ok()?,
        gone: PollFlags::POLLHUP | PollFlags::from_bits_retain(libc::POLLRDHUP),
        interest: Interest::READABLE,
    })
}

/// How to learn that a client has gone.
struct Watch {
    /// The socket once more.
    fd: OwnedFd,
    /// What `poll(2)` says then.
    gone: PollFlags,
    /// What wakes us.
    interest: Interest,
}

fn has_event(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    let ready = poll(&mut fds, PollTimeout::ZERO);
    let wanted = flags | PollFlags::POLLERR | PollFlags::POLLNVAL;
    // None are flags that the library has no name for, of which POLLRDHUP alone was asked for.
    ready.is_ok() && fds[0].revents().is_none_or(|seen| seen.intersects(wanted))
}

fn into_fd(stream: Stream) -> io::Result<OwnedFd> {
    Ok(match stream {
        Stream::Unix(stream) => stream.into_std()?.into(),
        Stream::Tcp(stream) => stream.into_std()?.into(),
        // The keys stay here: whoever takes the connection gets one end of a socket pair, and we translate at the other.
        Stream::Tls(stream) => {
            let (ours, theirs) = UnixStream::pair()?;
            tokio::spawn(translate(*stream, ours));
            theirs.into_std()?.into()
        }
    })
}

/// Passes bytes on between a client and whoever has its connection. A client that only closes its sending side still listens;
/// when the other side is done, the client is too.
async fn translate(client: TlsStream<TcpStream>, taken: UnixStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_taken, mut to_taken) = taken.into_split();
    let input = async {
        // A client may hang up without a word: that is the end of its input as well.
        let _ = tokio::io::copy(&mut from_client, &mut to_taken).await;
        let _ = to_taken.shutdown().await;
        std::future::pending::<()>().await;
    };
    let output = async {
        let _ = tokio::io::copy(&mut from_taken, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the client asked for 101.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade(pub bool);

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(wants_upgrade(&parts.headers)))
    }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The media type of a framed stream.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// The media type of a terminal's stream; before API 1.42 of both.
pub const RAW: &str = "application/vnd.docker.raw-stream";

/// Which of the two an answer says.
pub fn media_type(tty: bool, version: super::version::ApiVersion) -> &'static str {
    if tty || !version.since(1, 42) { RAW } else { MULTIPLEXED }
}

/// The response head, which is written by hand since HTTP's part is over.
pub fn head(upgrade: Upgrade, media_type: &str, more: &[(HeaderName, HeaderValue)]) -> String {
    let mut head = if upgrade.0 {
        format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {media_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n")
    };
    for (name, value) in more {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    head.push_str("\r\n");
    head
}

impl Taken {
    /// Writes a few bytes, which a fresh connection's buffer always has room for.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut file = std::fs::File::from(self.fd.try_clone()?);
        file.write_all(text)
    }

    /// Goes on writing to it ourselves.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub fn into_stream(self) -> io::Result<tokio::net::UnixStream> {
        // A TCP socket is read and written with the same calls.
        let stream = std::os::unix::net::UnixStream::from(self.fd);
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match lock(&self.0.stream).as_mut() {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match lock(&self.0.stream).as_mut() {
            Some(stream) => Pin::new(stream).poll_write(cx, buf),
            None => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match lock(&self.0.stream).as_mut() {
            Some(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            None => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match lock(&self.0.stream).as_mut() {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match lock(&self.0.stream).as_mut() {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// In a thread of its own: a loop that never waits could not be stopped by a timer.
    #[test]
    fn a_client_of_tcp_that_hangs_up_with_something_unread_is_gone() {
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let socket = Socket::new(Stream::Tcp(listener.accept().await.unwrap().0));
                let mut gone = Box::pin(socket.gone());
                client.write_all(b"more").await.unwrap();
                tokio::select! {
                    biased;
                    () = &mut gone => panic!("it is there"),
                    () = tokio::task::yield_now() => {}
                }
                drop(client);
                gone.await;
                say.send(()).unwrap();
            });
        });
        said.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
