//! The API's versions: the prefix `/vX.Y`, the gate before every route, and the headers on every answer.

use std::fmt;

use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use cleat_proto::docker::system::{API_VERSION, MIN_API_VERSION, PRODUCT_VERSION};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};

use super::error::{Error, Result};

/// The version a request is made in. Compares by number: `V(1, 9) < V(1, 24)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(u32, u32);

impl ApiVersion {
    /// The newest one we speak; what a request without a prefix gets.
    pub const MAX: Self = Self(API_VERSION.0, API_VERSION.1);
    /// The oldest one.
    pub const MIN: Self = Self(MIN_API_VERSION.0, MIN_API_VERSION.1);

    /// `since(1, 42)`: the request's version is 1.42 or newer.
    pub fn since(self, major: u32, minor: u32) -> bool {
        self >= Self(major, minor)
    }

    /// The version that a test speaks.
    #[cfg(test)]
    pub fn of(text: &str) -> Self {
        Self::parse(text).unwrap()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        Some(Self(parts.next()?, parts.next().unwrap_or(0)))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let asked = parts.extensions.get::<Asked>();
        Ok(asked.and_then(|asked| Self::parse(&asked.0)).unwrap_or(Self::MAX))
    }
}

/// The version as it stood in the path.
#[derive(Clone)]
struct Asked(String);

/// Takes `/vX.Y` off the path, and remembers it for the gate and for [`ApiVersion`].
pub fn strip_prefix<B>(request: &mut http::Request<B>) {
    let Some((asked, rest)) = split_prefix(request.uri().path()) else { return };
    let asked = Asked(asked.to_owned());
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    // It was part of a valid URI, so it is one.
    if let Ok(uri) = format!("{rest}{query}").parse() {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(asked);
    }
}

/// `/v1.24/info` → (`1.24`, `/info`).
fn split_prefix(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let (version, rest) = rest.split_at(end);
    let is_version =
        !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_version.then_some((version, rest))
}

/// Refuses versions we do not speak, and puts the daemon's headers on the answer. Runs for known paths only.
pub async fn gate(request: Request, next: Next) -> Response {
    let refusal = request.extensions().get::<Asked>().and_then(|asked| check(&asked.0));
    let refused = refusal.is_some();
    let mut response = match refusal {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in daemon_headers() {
        headers.insert(name, value);
    }
    if !refused {
        headers.insert("docker-experimental", HeaderValue::from_static("false"));
    }
    response
}

/// `Server`, `Api-Version` and `Ostype`.
pub fn daemon_headers() -> [(HeaderName, HeaderValue); 3] {
    let server = format!("Docker/{PRODUCT_VERSION} (linux)");
    let api = format!("{}.{}", API_VERSION.0, API_VERSION.1);
    let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    [
        (header::SERVER, value(&server)),
        (HeaderName::from_static("api-version"), value(&api)),
        (HeaderName::from_static("ostype"), HeaderValue::from_static("linux")),
    ]
}

/// [`daemon_headers`] and `Docker-Experimental`.
pub fn all_headers() -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::from(daemon_headers());
    headers
        .push((HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false")));
    headers
}

/// The answer to a version that is too old or too new. Clients older than 1.24 read plain text.
fn check(asked: &str) -> Option<Response> {
    let version = ApiVersion::parse(asked)?;
    if version < ApiVersion::MIN {
        let text = format!(
            "client version {asked} is too old. Minimum supported API version is {}, please upgrade your client to a newer version\n",
            ApiVersion::MIN
        );
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Some((StatusCode::BAD_REQUEST, plain, text).into_response());
    }
    (version > ApiVersion::MAX).then(|| {
        Error::invalid(format!(
            "client version {asked} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        ))
        .into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(asked: &str, text: &str) {
        let answer = check(asked).expect(asked);
        assert_eq!(answer.status(), 400);
        let json = answer.headers()[header::CONTENT_TYPE] == "application/json";
        assert_eq!(json, text == "too new", "{asked}");
    }

    #[test]
    fn versions_from_1_24_to_1_51_are_spoken() {
        for good in ["1.24", "1.30", "1.51", "1.24.5"] {
            assert!(check(good).is_none(), "{good}");
        }
        for old in ["1.23", "1.23.1", "0.1", "1", "1.9"] {
            refused(old, "too old");
        }
        for new in ["1.52", "2.0", "1.100"] {
            refused(new, "too new");
        }
    }

    #[test]
    fn a_prefix_is_digits_and_dots() {
        assert_eq!(split_prefix("/v1.24/info"), Some(("1.24", "/info")));
        assert_eq!(split_prefix("/volumes/x"), None);
        assert_eq!(split_prefix("/vx.y/version"), None);
        assert_eq!(split_prefix("/v1.24"), None);
    }

    #[test]
    fn gates_compare_by_number() {
        assert!(ApiVersion::parse("1.9").unwrap() < ApiVersion::parse("1.24").unwrap());
        assert!(ApiVersion::parse("1.42").unwrap().since(1, 42));
        assert!(!ApiVersion::parse("1.41").unwrap().since(1, 42));
    }
}
