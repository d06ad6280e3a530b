//! The Engine API over a socket: idle connections are used again, the version is agreed on before the first request.
//!
//! Stateless beyond the agreed version. Streams that are taken over (attach, exec) become plain sockets, see [`hijack`].

mod body;
mod error;
mod hijack;
mod query;
mod tls;

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpStream, UnixStream};

pub use body::{Body, Chunks};
pub use error::Error;
pub use hijack::Hijacked;
pub use query::{Query, escape};
pub use tls::{Connector, Tls};

use crate::value::Value;

/// The newest API version we speak: that of docker 28.2, whose behaviour we have.
pub const NEWEST: &str = "1.50";

/// What `/_ping` said.
#[derive(Clone, Debug, Default)]
pub struct Ping {
    /// `Api-Version`.
    pub api_version: String,
    /// `Ostype`.
    pub os: String,
}

/// A way to the daemon.
pub struct Client {
    host: String,
    headers: Vec<(String, String)>,
    version: RefCell<String>,
    negotiated: Cell<bool>,
    ping: RefCell<Option<Ping>>,
    idle: RefCell<Vec<Sender>>,
    tls: Option<Connector>,
}

/// A request's method and path, without the version.
type Route<'a> = (http::Method, &'a str);

impl Client {
    /// Prepares to speak to `host`, which is complete. A `pinned` version is not negotiated.
    pub fn new(host: String, headers: Vec<(String, String)>, pinned: Option<String>) -> Self {
        let negotiated = Cell::new(pinned.is_some());
        let version = RefCell::new(pinned.unwrap_or_else(|| NEWEST.into()));
        Self {
            host,
            headers,
            version,
            negotiated,
            ping: RefCell::new(None),
            idle: RefCell::default(),
            tls: None,
        }
    }

    /// Speaks TLS over TCP.
    pub fn with_tls(mut self, tls: Option<Connector>) -> Self {
        self.tls = tls;
        self
    }

    /// The daemon's address, complete.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The version in use, negotiated if it can be.
    pub async fn version(&self) -> String {
        self.negotiate().await;
        self.version.borrow().clone()
    }

    /// The daemon's system, empty if it does not answer.
    pub async fn os(&self) -> String {
        match self.ping().await {
            Ok(ping) => ping.os,
            Err(_) => String::new(),
        }
    }

    /// Asks `/_ping` once and remembers the answer.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub async fn ping(&self) -> Result<Ping, Error> {
        if let Some(ping) = self.ping.borrow().clone() {
            return Ok(ping);
        }
        let response = self
            .send((http::Method::HEAD, "/_ping"), &Query::default(), &[], Body::Empty, false)
            .await?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let ping = Ping { api_version: header("api-version"), os: header("ostype") };
        *self.ping.borrow_mut() = Some(ping.clone());
        Ok(ping)
    }

    async fn negotiate(&self) {
        if self.negotiated.get() {
            return;
        }
        if let Ok(ping) = self.ping().await {
            let offered = if ping.api_version.is_empty() { "1.24" } else { &ping.api_version };
            if older(offered, NEWEST) {
                offered.clone_into(&mut self.version.borrow_mut());
            }
            self.negotiated.set(true);
        }
    }

    /// Sends a request and answers the response once its head is there.
    ///
    /// # Errors
    /// The daemon cannot be reached, or answers with an error.
    pub async fn request(
        &self,
        route: Route<'_>,
        query: &Query,
        body: Body,
    ) -> Result<Response, Error> {
        self.request_with(route, query, &[], body).await
    }

    /// [`request`](Self::request) with headers of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn request_with(
        &self,
        route: Route<'_>,
        query: &Query,
        headers: &[(&str, String)],
        body: Body,
    ) -> Result<Response, Error> {
        self.negotiate().await;
        let response = self.send(route, query, headers, body, true).await?;
        Response::checked(response).await
    }

    /// GET, answered by JSON.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn get(&self, path: &str, query: &Query) -> Result<Value, Error> {
        self.request((http::Method::GET, path), query, Body::Empty).await?.value().await
    }

    /// POST without a body.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn post(&self, path: &str, query: &Query) -> Result<Response, Error> {
        self.request((http::Method::POST, path), query, Body::Empty).await
    }

    /// POST without a body, and its answer.
    ///
    /// # Errors
    /// As [`request`](Self::request), or the answer is no JSON.
    pub async fn post_for(&self, path: &str, query: &Query) -> Result<Value, Error> {
        self.post(path, query).await?.value().await
    }

    /// POST with a JSON body, and its answer.
    ///
    /// # Errors
    /// As [`post_for`](Self::post_for).
    pub async fn post_json_for(
        &self,
        path: &str,
        query: &Query,
        body: &impl Serialize,
    ) -> Result<Value, Error> {
        self.post_json(path, query, body).await?.value().await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn post_json(
        &self,
        path: &str,
        query: &Query,
        body: &impl Serialize,
    ) -> Result<Response, Error> {
        self.request((http::Method::POST, path), query, Body::json(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn delete(&self, path: &str, query: &Query) -> Result<Response, Error> {
        self.request((http::Method::DELETE, path), query, Body::Empty).await
    }

    /// POST that takes the connection over.
    ///
    /// # Errors
    /// As [`request`](Self::request), or the daemon does not upgrade.
    pub async fn hijack(&self, path: &str, query: &Query, body: Body) -> Result<Hijacked, Error> {
        self.negotiate().await;
        let upgrade = [("connection", "Upgrade".to_owned()), ("upgrade", "tcp".to_owned())];
        let response = self.send((http::Method::POST, path), query, &upgrade, body, true).await?;
        hijack::take_over(response).await
    }

    async fn send(
        &self,
        (method, path): Route<'_>,
        query: &Query,
        headers: &[(&str, String)],
        body: Body,
        versioned: bool,
    ) -> Result<hyper::Response<Incoming>, Error> {
        let hijacks = headers.iter().any(|(name, _)| *name == "upgrade");
        let mut uri =
            if versioned { format!("/v{}{path}", self.version.borrow()) } else { path.to_owned() };
        uri.push_str(&query.render());
        let authority = self.host.strip_prefix("tcp://").unwrap_or("api.moby.localhost");
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(uri)
            .header("host", authority)
            .header("user-agent", concat!("cleat-client/", env!("CARGO_PKG_VERSION"), " (linux)"));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(kind) = body.content_type() {
            request = request.header("content-type", kind);
        }
        let request =
            request.body(body.into_stream()).map_err(|error| Error::Request(error.to_string()))?;
        let name = RequestName::of(&request, &self.host, self.tls.is_some());
        let answer = self.exchange(request, hijacks).await;
        answer.map_err(|error| name.add_to(self.broken(error)))
    }

    /// Sends over a connection that is idle, or a new one.
    async fn exchange(
        &self,
        mut request: hyper::Request<body::Stream>,
        hijacks: bool,
    ) -> Result<hyper::Response<Incoming>, Error> {
        // The connection of the last answer becomes ready when its task has run.
        tokio::task::yield_now().await;
        while let Some(mut sender) = (!hijacks).then(|| self.take_idle()).flatten() {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.idle.borrow_mut().push(sender);
                    return Ok(response);
                }
                // The daemon had closed it; the request has not left.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Error::Transport(error.into_error().to_string())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| Error::Transport(error.to_string()))?;
        if !hijacks {
            self.idle.borrow_mut().push(sender);
        }
        Ok(response)
    }

    /// A connection that TLS broke says less than TLS does.
    fn broken(&self, error: Error) -> Error {
        match (error, self.tls.as_ref().and_then(Connector::reason)) {
            (Error::Transport(_), Some(reason)) => Error::Transport(reason),
            (error, _) => error,
        }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().position(Sender::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> Result<Sender, Error> {
        if let Some(path) = self.host.strip_prefix("unix://") {
            let stream =
                UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?;
            return handshake(TokioIo::new(stream)).await;
        }
        if let Some(address) = self.host.strip_prefix("tcp://") {
            let address = address.split('/').next().unwrap_or(address);
            if let Some(tls) = &self.tls {
                let stream =
                    tls.connect(address).await.map_err(|error| self.unreachable(&error))?;
                return handshake(TokioIo::new(stream)).await;
            }
            let stream =
                TcpStream::connect(address).await.map_err(|error| self.unreachable(&error))?;
            let _ = stream.set_nodelay(true);
            return handshake(TokioIo::new(stream)).await;
        }
        let scheme = self.host.split("://").next().unwrap_or_default();
        Err(Error::Request(format!(
            "{scheme}:// is not supported by this client yet: use unix:// or tcp://"
        )))
    }

    fn unreachable(&self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind as K;
        let socket = self.host.starts_with("unix://");
        match error.kind() {
            K::PermissionDenied => Error::PermissionDenied {
                host: self.host.clone(),
                reason: format!(
                    "dial unix {}: connect: permission denied",
                    self.host.trim_start_matches("unix://")
                ),
            },
            K::ConnectionRefused | K::TimedOut => Error::Unreachable(self.host.clone()),
            _ if socket => Error::Unreachable(self.host.clone()),
            _ if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => {
                Error::Transport(tls::remote(error))
            }
            _ => {
                let address = self.host.trim_start_matches("tcp://");
                let reason = match error.raw_os_error() {
                    Some(_) => format!("connect: {}", crate::go::os_error(error)),
                    None if address
                        .rsplit(':')
                        .next()
                        .is_some_and(|port| port.parse::<u16>().is_err()) =>
                    {
                        let port = address.rsplit(':').next().unwrap_or_default();
                        return Error::Transport(format!("dial tcp: address {port}: invalid port"));
                    }
                    None => {
                        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
                        return Error::Transport(format!("dial tcp: lookup {name}: no such host"));
                    }
                };
                Error::Transport(format!("dial tcp {address}: {reason}"))
            }
        }
    }
}

/// A connection to send requests on.
type Sender = http1::SendRequest<body::Stream>;

/// A request as Go's errors name it: `Get "http://HOST/PATH"`.
struct RequestName(String);

impl RequestName {
    fn of(request: &hyper::Request<body::Stream>, host: &str, tls: bool) -> Self {
        let (first, rest) = request.method().as_str().split_at(1);
        let authority = match host.strip_prefix("unix://") {
            Some(path) => escape(path, false),
            None => host.trim_start_matches("tcp://").to_owned(),
        };
        let method = format!("{first}{}", rest.to_lowercase());
        let scheme = if tls { "https" } else { "http" };
        Self(format!("{method} \"{scheme}://{authority}{}\"", request.uri()))
    }

    /// Says which request a failure of the connection belongs to.
    fn add_to(self, error: Error) -> Error {
        match error {
            Error::Transport(reason) => Error::Transport(format!("{}: {reason}", self.0)),
            Error::PermissionDenied { host, reason } => {
                Error::PermissionDenied { host, reason: format!("{}: {reason}", self.0) }
            }
            other => other,
        }
    }
}

async fn handshake<I>(io: TokioIo<I>) -> Result<Sender, Error>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(io).await.map_err(|error| Error::Transport(error.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Whether API version `left` comes before `right`.
pub fn older(left: &str, right: &str) -> bool {
    let parts = |text: &str| {
        text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()
    };
    parts(left) < parts(right)
}

/// A response without an error.
pub struct Response(hyper::Response<Incoming>);

impl Response {
    async fn checked(response: hyper::Response<Incoming>) -> Result<Self, Error> {
        let status = response.status();
        if (200..400).contains(&status.as_u16()) {
            return Ok(Self(response));
        }
        let json =
            response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
        let body = response
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        Err(Error::from_answer(status, json, &body))
    }

    /// A header's text, empty if there is none.
    pub fn header(&self, name: &str) -> String {
        self.0
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }

    /// The whole body.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        let body = self
            .0
            .into_body()
            .collect()
            .await
            .map_err(|error| Error::Transport(error.to_string()))?;
        Ok(body.to_bytes())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The connection broke, or it is no JSON.
    pub async fn value(self) -> Result<Value, Error> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Request(error.to_string()))
    }

    /// The body as it comes.
    pub fn chunks(self) -> Chunks {
        Chunks::new(self.0.into_body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(older("1.9", "1.24"));
        assert!(!older("1.51", "1.51"));
    }
}
