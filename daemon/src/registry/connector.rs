//! Connections: TCP, TLS on it where it is wanted, through a proxy where there is one.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::proxy::{Proxies, Proxy};

/// To a connection and its handshake; what comes after has deadlines of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that a proxy may say before it opens the tunnel.
const PROXY_ANSWER_MAX: usize = 16 << 10;

/// Makes connections to one host.
#[derive(Clone)]
pub struct Connector {
    /// How to trust it.
    pub tls: Arc<ClientConfig>,
    /// Ways around.
    pub proxies: Arc<Proxies>,
    /// How long a connection and its handshake may take, if not as long as others.
    pub timeout: Option<Duration>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub struct Stream {
    io: TokioIo<Box<dyn Io>>,
    /// A proxy wants the whole address in the request line.
    by_proxy: bool,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connecting =
                timeout(connector.timeout.unwrap_or(CONNECT_TIMEOUT), connector.connect(&uri));
            connecting.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"))?
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> io::Result<Stream> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| io::Error::other("the address has no host"))?;
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let proxy = self.proxies.towards(https, host, port);
        let address = format!("{host}:{port}");
        let tcp = dial(proxy.map_or(&address, |proxy| &proxy.address)).await?;
        if !https {
            let by_proxy = proxy.is_some();
            return Ok(Stream { io: TokioIo::new(Box::new(tcp)), by_proxy });
        }
        let mut tcp = tcp;
        if let Some(proxy) = proxy {
            tunnel(&mut tcp, &address, proxy).await?;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
        let stream =
            stream.map_err(|error| io::Error::new(error.kind(), format!("tls: {error}")))?;
        Ok(Stream { io: TokioIo::new(Box::new(stream)), by_proxy: false })
    }
}

/// Go's words for a connection that cannot be made: clients print them.
async fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => "connect: connection refused".to_owned(),
            Some(libc::ENETUNREACH) => "connect: network is unreachable".to_owned(),
            Some(libc::EHOSTUNREACH) => "connect: no route to host".to_owned(),
            Some(_) => format!("connect: {error}"),
            None => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let text = format!("dial tcp: lookup {host}: no such host");
                return io::Error::new(error.kind(), text);
            }
        };
        io::Error::new(error.kind(), format!("dial tcp {address}: {why}"))
    })?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// RFC 9110, 9.3.6.
async fn tunnel(tcp: &mut TcpStream, address: &str, proxy: &Proxy) -> io::Result<()> {
    let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A byte at a time: what follows the head is TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER_MAX {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        answer.push(tcp.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(io::Error::other(format!("the proxy refuses: {line}")))
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.by_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
