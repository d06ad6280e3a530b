//! One request and its answer: connections by host, redirects, deadlines, limits, errors in the registry's words.

use std::{
    collections::HashMap,
    error::Error as _,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{ANSWER_MAX, Config, Error, connector::Connector, hosts::Trust, tls};

/// What a request may carry.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long a registry may think, and how long a body may stand still.
pub const IDLE: Duration = Duration::from_secs(60);
/// Redirects that are followed for one request.
const REDIRECTS_MAX: usize = 5;
/// A connection's read buffer: a bound on memory, since hyper's own grows to 400 KiB.
const BUFFER: usize = 128 << 10;
/// Hosts that are remembered.
const CLIENTS_MAX: usize = 64;
/// Connections without work are closed after this time: a daemon at rest has none.
const KEEP: Duration = Duration::from_secs(10);

/// What a request carries; what can be sent again is.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    None,
    /// These bytes.
    Bytes(Bytes),
}

impl Payload {
    fn body(&self) -> Body {
        match self {
            Self::None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Bytes(bytes) => {
                Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync()
            }
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Where: absolute.
    pub url: String,
    /// With what.
    pub headers: HeaderMap,
    /// And what else.
    pub payload: Payload,
    /// How its host is trusted, and what that wants to hear; nobody that a redirect leads to.
    pub trust: Option<Arc<Trust>>,
}

impl Request {
    /// Makes one without headers and body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            payload: Payload::None,
            trust: None,
        }
    }

    /// Adds a header; what cannot be one is left out.
    #[must_use]
    pub fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

type HttpClient = Client<Connector, Body>;

/// Connections to all hosts.
pub struct Transport {
    clients: Mutex<HashMap<String, HttpClient>>,
    proxies: Arc<super::proxy::Proxies>,
    user_agent: String,
}

impl Transport {
    /// Makes one without connections.
    pub fn new(user_agent: String, proxies: super::proxy::Proxies) -> Self {
        Self { clients: Mutex::default(), proxies: Arc::new(proxies), user_agent }
    }

    /// Sends a request and follows redirects of GET and HEAD; credentials stay with the host that they were meant for.
    ///
    /// # Errors
    /// [`Error::Request`] with what went wrong; a status is none.
    pub async fn send(
        &self,
        config: &Config,
        request: &Request,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = timeout(IDLE, self.send_once(config, &request, request.payload.body()));
            let answer = match answer.await {
                Ok(answer) => answer?,
                Err(_) => {
                    let error = Error::Connection("timeout awaiting response headers".into());
                    return Err(error.within(&request.method, &request.url));
                }
            };
            let follow = matches!(request.method, Method::GET | Method::HEAD)
                && matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = answer.headers().get(header::LOCATION).filter(|_| follow) else {
                return Ok(answer);
            };
            let location = location.to_str().unwrap_or_default();
            let target = resolve(&request.url, location)?;
            if authority(&target) != authority(&request.url) {
                request.headers.remove(header::AUTHORIZATION);
                request.trust = None;
            }
            request.url = target;
        }
        Err(Error::Protocol(format!("stopped after {REDIRECTS_MAX} redirects"))
            .within(&request.method, &request.url))
    }

    /// Sends a request with any body, and follows nothing. No deadline: a body may be long.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn send_once(
        &self,
        config: &Config,
        request: &Request,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        let shown = without_query(&request.url);
        let within = |error: Error| error.within(&request.method, shown);
        // As Go's client says it, which writes such an address without its slashes.
        let scheme = request.url.strip_suffix("//").filter(|scheme| scheme.ends_with(':'));
        if let Some(scheme) = scheme {
            let error = Error::Protocol("http: no Host in request URL".into());
            return Err(error.within(&request.method, scheme));
        }
        let uri: Uri = request
            .url
            .parse()
            .map_err(|_| within(Error::Protocol(format!("{:?} is no address", request.url))))?;
        if let Some(scheme) = uri.scheme_str().filter(|scheme| !matches!(*scheme, "http" | "https"))
        {
            return Err(within(Error::Protocol(format!("unsupported protocol scheme {scheme:?}"))));
        }
        let trust = request.trust.as_deref();
        let client = self.client(config, &uri, trust).map_err(within)?;
        let mut built = http::Request::new(body);
        *built.method_mut() = request.method.clone();
        *built.headers_mut() = request.headers.clone();
        for (name, value) in trust.iter().flat_map(|trust| &trust.headers) {
            // A token that was fetched says more than what it was fetched with.
            if name != header::AUTHORIZATION || !request.headers.contains_key(name) {
                built.headers_mut().append(name, value.clone());
            }
        }
        if let Some(value) = self.proxy_authorization(&uri) {
            built.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        *built.uri_mut() = uri;
        if let Ok(agent) = HeaderValue::from_str(&self.user_agent) {
            built.headers_mut().insert(header::USER_AGENT, agent);
        }
        client.request(built).await.map_err(|error| within(connection_error(error)))
    }

    /// What a proxy wants with a request that it sees; a tunnel was paid for when it was opened.
    fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let proxy = self.proxies.towards(false, uri.host()?, uri.port_u16().unwrap_or(80))?;
        let mut value = HeaderValue::from_str(proxy.authorization.as_deref()?).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn client(
        &self,
        config: &Config,
        uri: &Uri,
        trust: Option<&Trust>,
    ) -> Result<HttpClient, Error> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let https = uri.scheme_str() == Some("https");
        // Not even looked at where nothing is encrypted.
        let directory = config.certificates_of(&authority).filter(|_| https);
        let mut key = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        if let Some(directory) = &directory {
            // Certificates that have changed since are read again.
            key.push_str(&tls::fingerprint(directory));
        }
        if let Some(trust) = trust {
            key.push_str(&tls::trust_fingerprint(trust));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let verify =
            !config.is_insecure(&authority) && !trust.is_some_and(|trust| trust.skip_verify);
        let tls = tls::client_config(directory.as_deref(), trust, verify)?;
        let timeout = trust.and_then(|trust| trust.dial_timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP)
            .http1_max_buf_size(BUFFER)
            .build(Connector { tls, proxies: Arc::clone(&self.proxies), timeout });
        if clients.len() == CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn connection_error(error: hyper_util::client::legacy::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if io.get_ref().is_some_and(|inner| inner.is::<SourceFailed>()) {
                return Error::Source(io::Error::other(io.to_string()));
            }
            return Error::Connection(io.to_string());
        }
        cause = inner.source();
    }
    Error::Connection("EOF".into())
}

/// Marks an error of an upload's source among those of its connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceFailed(pub String);

/// Where a redirect leads: never from https to http, never to another kind of address.
fn resolve(from: &str, location: &str) -> Result<String, Error> {
    let refused = || Error::Redirect(without_query(location).to_owned());
    let (scheme, rest) = from.split_once("://").ok_or_else(refused)?;
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let target = if let Some((to, _)) = location.split_once("://") {
        if !matches!(to, "http" | "https") || (scheme == "https" && to == "http") {
            return Err(refused());
        }
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = without_query(from);
        let directory = path.rsplit_once('/').map_or(path, |(directory, _)| directory);
        format!("{directory}/{location}")
    };
    let is_bare = authority(&target).is_some_and(|authority| !authority.contains('@'));
    if is_bare { Ok(target) } else { Err(refused()) }
}

/// As [`resolve`], for the `Location` of an upload: the credentials go along, so the host must stay the same.
pub fn resolve_same_host(from: &str, location: &str) -> Result<String, Error> {
    let target = resolve(from, location)?;
    if authority(&target) == authority(from) {
        return Ok(target);
    }
    Err(Error::Redirect(without_query(&target).to_owned()))
}

/// Scheme, host and port.
fn authority(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let authority = uri.authority()?;
    let user = if authority.as_str().contains('@') { "@" } else { "" };
    Some(format!("{}://{user}{}:{port}", uri.scheme_str()?, authority.host().to_ascii_lowercase()))
}

/// Queries carry signatures and sessions: nothing for an error's text.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// Reads a whole answer of at most `limit` bytes.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Lost`].
pub async fn read(mut body: Incoming, limit: u64, what: &str) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { what: what.to_owned(), limit };
    if http_body::Body::size_hint(&body).lower() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body).await? {
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Waits for the next piece of an answer.
///
/// # Errors
/// [`Error::Lost`], also for a body that stands still.
pub async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Error> {
    loop {
        let frame = timeout(IDLE, body.frame());
        let frame = frame.await.map_err(|_| Error::Lost(io::ErrorKind::TimedOut.into()))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Error::Lost(io::Error::other(error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Vec<Said>,
    /// What token servers send.
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Turns an answer that is no success into an error, in the registry's words where it has some.
pub async fn refusal(answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let body = read(answer.into_body(), ANSWER_MAX, "the registry's error").await;
    let body: Option<Answer> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let said = body.and_then(|body| {
        let details =
            (!body.details.is_empty()).then(|| Said { code: String::new(), message: body.details });
        body.errors.into_iter().next().or(details)
    });
    let (code, text) = match status.as_u16() {
        401 => ("UNAUTHORIZED", "authentication required"),
        403 => ("DENIED", "requested access to the resource is denied"),
        404 => ("NOT_FOUND", "not found"),
        429 => ("TOOMANYREQUESTS", "too many requests"),
        _ if said.is_none() => return Error::Status(status),
        _ => ("UNKNOWN", "unknown error"),
    };
    let said = said.unwrap_or(Said { code: String::new(), message: String::new() });
    let or = |given: String, otherwise: &str| {
        let bounded: String = given.chars().filter(|c| !c.is_control()).take(4096).collect();
        if bounded.is_empty() { otherwise.to_owned() } else { bounded }
    };
    Error::Refused {
        status: status.as_u16(),
        code: or(said.code, code),
        message: or(said.message, text),
    }
}

/// Returns how long a registry wants us to wait, if it says.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Whether the same request may do better a moment later.
pub fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn leads(from: &str, location: &str, expected: Option<&str>) {
        assert_eq!(resolve(from, location).ok().as_deref(), expected, "{from} -> {location}");
    }

    #[test]
    fn a_redirect_never_leaves_tls() {
        leads("https://a/v2/x", "http://a/y", None);
        leads("https://a/v2/x", "ftp://a/y", None);
        leads("https://a/v2/x", "https://u:p@b/y", None);
        leads("https://a/v2/x", "https://b/y?s=1", Some("https://b/y?s=1"));
        leads("http://a/v2/x", "https://a/y", Some("https://a/y"));
        leads("https://a:1/v2/x?q=/", "/y", Some("https://a:1/y"));
        leads("https://a/v2/x?q=/", "y", Some("https://a/v2/y"));
        leads("https://a/v2/x", "//b/y", Some("https://b/y"));
    }

    #[test]
    fn an_upload_stays_with_its_host() {
        assert!(resolve_same_host("https://a/v2/x", "https://a:443/y").is_ok());
        assert!(resolve_same_host("https://a/v2/x", "https://b/y").is_err());
        assert!(resolve_same_host("http://a/v2/x", "https://a/y").is_err());
    }
}
