//! Where requests come from: the accept loop, a task per connection, and its limits.
//!
//! The loop is ours rather than a framework's because a handler must be able to take the socket itself (see
//! [`super::hijack`]), and because the listeners are of several kinds.
//!
//! What holds against hostile clients: at most [`MAX_CONNECTIONS`] at a time, a request head of at most [`MAX_HEAD_BYTES`] that
//! arrives within [`HEAD_TIMEOUT`] (this is also how long an idle connection is kept), bodies read only as far as a handler asks.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Method, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{error, hijack::Socket, settle, version};

/// How many clients are served at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// The longest request head. (Go's default is 1 MiB, which no client needs.)
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long a client may take over a request's head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a client may take over the handshake of TLS. Docker's client gives up as early.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client to whom nothing more is said may take to hang up.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests in flight may take once the daemon was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A bound socket.
pub enum Listener {
    /// `unix://`, or inherited.
    Unix(UnixListener),
    /// `tcp://`, with TLS or without, or inherited.
    Tcp(TcpListener, Option<TlsAcceptor>),
}

/// A client's connection.
pub enum Stream {
    /// Of a unix socket.
    Unix(UnixStream),
    /// Of a TCP socket.
    Tcp(TcpStream),
    /// Of a TCP socket with TLS on it. Boxed, since few clients are so large.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client that was accepted; TLS, if there is any, still has to begin.
struct Accepted {
    stream: Stream,
    tls: Option<TlsAcceptor>,
}

impl Accepted {
    /// Begins TLS where it is wanted; `None` if the client cannot.
    async fn begin(self) -> Option<Stream> {
        let (stream, tls) = match (self.stream, self.tls) {
            (Stream::Tcp(stream), Some(tls)) => (stream, tls),
            (stream, _) => return Some(stream),
        };
        match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream).into_fallible()).await {
            Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
            Ok(Err((error, stream))) => {
                tracing::info!(%error, "a client was refused: TLS handshake error");
                // Nobody minds if that takes too long.
                let _ = tokio::time::timeout(LINGER_TIMEOUT, read_to_end(stream)).await;
                None
            }
            Err(_) => None,
        }
    }
}

/// Says that no more comes, and reads what the client still sends: a connection closed with something unread in it is reset, and
/// the client would not hear why it was refused.
async fn read_to_end(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    use tokio::io::AsyncWriteExt as _;
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => {
                Ok(Accepted { stream: Stream::Unix(listener.accept().await?.0), tls: None })
            }
            Self::Tcp(listener, tls) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Stream::Tcp(stream), tls: tls.clone() })
            }
        }
    }
}

/// Serves until `stop`, then lets requests in flight finish for a while.
pub async fn serve(router: Router, listeners: Vec<Listener>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let kill = CancellationToken::new();
    for listener in listeners {
        let (router, slots) = (router.clone(), Arc::clone(&slots));
        let (stop, kill, tracker) = (stop.clone(), kill.clone(), connections.clone());
        connections.spawn(async move {
            while let Some(client) = next_client(&listener, &stop).await {
                let slot = tokio::select! {
                    slot = Arc::clone(&slots).acquire_owned() => slot,
                    () = stop.cancelled() => return,
                };
                let (router, stop, kill) = (router.clone(), stop.clone(), kill.clone());
                tracker.spawn(async move {
                    let served = async {
                        if let Some(stream) = client.begin().await {
                            connection(router, stream, stop).await;
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = kill.cancelled() => {}
                    }
                    drop(slot);
                });
            }
        });
    }
    stop.cancelled().await;
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!(connections = connections.len(), "requests in flight are given up");
        kill.cancel();
        connections.wait().await;
    }
}

/// Waits for a client; `None` when the daemon stops.
async fn next_client(listener: &Listener, stop: &CancellationToken) -> Option<Accepted> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return None,
        };
        match accepted {
            Ok(client) => return Some(client),
            // A client that was gone before we came to it, or no descriptor left: the latter passes by itself.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one client until it goes, or a handler takes the socket.
async fn connection(router: Router, stream: Stream, stop: CancellationToken) {
    let socket = Socket::new(stream);
    let service = service_fn(|request| {
        let answer = answer(router.clone(), socket.clone(), request);
        // Boxed: `into_parts` below wants a future that can be moved.
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
            as Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket.clone()), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                match ended {
                    Ok(()) if !stopping => linger(&socket).await,
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "a connection ended early"),
                }
                return;
            }
            () = socket.hijack_wanted() => {
                // What the client sent behind its request is in hyper's buffer.
                let early = connection.into_parts().read_buf;
                socket.hand_over(&early);
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

/// Lets a client that still sends a long body come to the answer that was given without it.
async fn linger(socket: &Socket) {
    if let Some(stream) = socket.close() {
        let _ = tokio::time::timeout(LINGER_TIMEOUT, read_to_end(stream)).await;
    }
}

/// Answers one request: what concerns every path, then the router.
async fn answer(router: Router, socket: Socket, request: Request<Incoming>) -> Response {
    let mut request = request.map(Body::new);
    if let Some(expect) = request.headers().get(header::EXPECT) {
        // hyper answers `100 Continue` by itself, and ignores what it does not know.
        if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return StatusCode::EXPECTATION_FAILED.into_response();
        }
    }
    version::strip_prefix(&mut request);
    let mut request = match settle::settle(request).await {
        Ok(request) => request,
        Err(error) => return error.into_response(),
    };
    match *request.method() {
        Method::OPTIONS => return options(),
        Method::HEAD if !may_be_head(request.uri().path()) => return error::page_not_found().await,
        _ => {}
    }
    request.extensions_mut().insert(socket);
    match router.oneshot(request).await {
        Ok(mut response) => {
            // The router says it with its 405, which Docker does not have.
            response.headers_mut().remove(header::ALLOW);
            response
        }
        Err(never) => match never {},
    }
}

/// The router would answer HEAD wherever there is a GET; Docker does only here.
fn may_be_head(path: &str) -> bool {
    path == "/_ping" || (path.starts_with("/containers/") && path.ends_with("/archive"))
}

fn options() -> Response {
    let mut response = StatusCode::OK.into_response();
    response.headers_mut().extend(version::all_headers());
    response
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{extract::State, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };

    use super::*;
    use crate::api::hijack::Taken;

    /// A server with a route of each kind, and what its handlers noticed.
    struct Server {
        directory: tempfile::TempDir,
        stop: CancellationToken,
        noticed: mpsc::UnboundedReceiver<String>,
    }

    impl Server {
        fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(directory.path().join("sock")).unwrap();
            let (sender, noticed) = mpsc::unbounded_channel();
            let router = Router::new()
                .route("/_ping", get(|| async { "OK" }))
                .route("/raw", get(raw).post(raw))
                .route("/wait", get(wait))
                .fallback(error::page_not_found)
                .with_state(sender);
            let stop = CancellationToken::new();
            tokio::spawn(serve(router, vec![Listener::Unix(listener)], stop.clone()));
            Self { directory, stop, noticed }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(self.directory.path().join("sock")).await.unwrap()
        }

        /// Sends `request`, closes the sending side and reads to the end.
        async fn exchange(&self, request: &str) -> String {
            let mut client = self.connect().await;
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    type Noticed = State<mpsc::UnboundedSender<String>>;

    async fn raw(State(_): Noticed, socket: Socket) -> Response {
        Socket::take(&socket, async |taken: Taken| {
            let early = String::from_utf8(taken.early.clone()).unwrap();
            let mut client = taken.into_stream().unwrap();
            let mut rest = String::new();
            client.read_to_string(&mut rest).await.unwrap();
            client.write_all(format!("HEAD[{early}{rest}]").as_bytes()).await.unwrap();
        })
        .await
    }

    async fn wait(State(noticed): Noticed, socket: Socket) -> Response {
        noticed.send("armed".into()).unwrap();
        tokio::spawn(async move {
            socket.gone().await;
            noticed.send("gone".into()).unwrap();
        });
        std::future::pending().await
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_turn() {
        let server = Server::start();
        let answer = server.exchange(&"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 20);
    }

    #[tokio::test]
    async fn a_handler_takes_the_socket_with_what_was_sent_behind_the_request() {
        let server = Server::start();
        let answer = server
            .exchange("POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nearly bytes")
            .await;
        assert_eq!(answer, "HEAD[early bytes]");
    }

    #[tokio::test]
    async fn a_client_that_closed_its_sending_side_is_still_there() {
        let mut server = Server::start();
        let mut client = server.connect().await;
        client.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(server.noticed.recv().await.unwrap(), "armed");
        client.shutdown().await.unwrap();
        // Another request is served meanwhile: whoever would take the half for the whole has had its chance.
        assert!(server.exchange("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("OK"));
        assert!(server.noticed.try_recv().is_err());
        drop(client);
        assert_eq!(server.noticed.recv().await.unwrap(), "gone");
    }

    #[tokio::test]
    async fn what_is_not_http_or_too_long_is_refused() {
        let server = Server::start();
        let long = format!(
            "GET /_ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "a".repeat(2 * MAX_HEAD_BYTES)
        );
        for (request, status) in [
            ("GET /_ping HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", "417"),
            ("GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("HEAD /wait HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("OPTIONS /any HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("garbage\r\n\r\n", "400"),
        ] {
            let answer = server.exchange(request).await;
            assert_eq!(answer.get(9..12), Some(status), "{request:?}: {answer:?}");
        }
        let mut client = server.connect().await;
        // It may hang up before it has read everything.
        let _ = client.write_all(long.as_bytes()).await;
        let mut answer = [0; 12];
        if client.read_exact(&mut answer).await.is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 431");
        }
    }

    #[tokio::test]
    async fn a_server_that_stops_lets_go_of_idle_clients() {
        let server = Server::start();
        let mut idle = server.connect().await;
        idle.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        server.stop.cancel();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"OK"));
    }
}
