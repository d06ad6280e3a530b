//! Who we are: Basic, and tokens by scope. CNCF distribution, "Token Authentication Specification" and "OAuth2 Token Authentication".

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;

use super::{
    ANSWER_MAX, Config, Error,
    challenge::{self, Challenge},
    hosts::Trust,
    transport::{Payload, Request, Transport, read, refusal},
};

/// What a token that says nothing lives for.
const TOKEN_LIFE: u64 = 60;
/// Our name towards OAuth2 servers.
const CLIENT_ID: &str = "docker";

/// What a client sent as `X-Registry-Auth`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// With the password.
    pub username: String,
    /// With the name.
    pub password: String,
    /// A refresh token, instead of both.
    pub identity_token: String,
    /// A bearer token, instead of all that.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.username)
    }
}

impl Credentials {
    fn basic(&self) -> Option<String> {
        let has_some = !self.username.is_empty() || !self.password.is_empty();
        has_some.then(|| {
            format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
        })
    }
}

/// How one session proves itself.
pub struct Auth {
    credentials: Credentials,
    /// Of the registry, in case that it has its token server with it.
    trust: Option<Arc<Trust>>,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<String, Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    until: Instant,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenAnswer {
    token: String,
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

impl Auth {
    /// Begins without a challenge.
    pub fn new(credentials: Credentials, trust: Option<Arc<Trust>>) -> Self {
        Self { credentials, trust, challenge: Mutex::default(), tokens: Mutex::default() }
    }

    /// Takes over what a registry wants, of an answer's headers. Returns whether it wants anything.
    pub fn challenged(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let all = values.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse);
        // A token where there is a choice: its scope is smaller.
        let best = all.max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let found = best.is_some();
        *lock(&self.challenge) = best;
        lock(&self.tokens).clear();
        found
    }

    /// Returns the header for requests of a scope, after a visit to the token server if need be.
    ///
    /// # Errors
    /// [`Error::NoCredentials`], and what the token server says.
    pub async fn header(
        &self,
        transport: &Transport,
        config: &Config,
        scopes: &[String],
    ) -> Result<Option<HeaderValue>, Error> {
        let challenge = lock(&self.challenge).clone();
        let text = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => self.credentials.basic().ok_or(Error::NoCredentials)?,
            Some(Challenge::Bearer { .. }) if !self.credentials.registry_token.is_empty() => {
                format!("Bearer {}", self.credentials.registry_token)
            }
            Some(Challenge::Bearer { realm, service }) => {
                let key = scopes.join(" ");
                let known = lock(&self.tokens).get(&key).cloned();
                let token = match known.filter(|token| token.until > Instant::now()) {
                    Some(token) => token,
                    None => {
                        let token = self.fetch(transport, config, &realm, &service, scopes).await?;
                        lock(&self.tokens).insert(key, token.0.clone());
                        token.0
                    }
                };
                format!("Bearer {}", token.text)
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Error::Protocol("the credentials have characters no header takes".into())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Logs in without a scope; returns the refresh token if the registry gives one.
    ///
    /// # Errors
    /// What the registry or its token server says.
    pub async fn log_in(&self, transport: &Transport, config: &Config) -> Result<String, Error> {
        let challenge = lock(&self.challenge).clone();
        let Some(Challenge::Bearer { realm, service }) = challenge else {
            return Ok(String::new());
        };
        let (token, refresh) = self.fetch(transport, config, &realm, &service, &[]).await?;
        lock(&self.tokens).insert(String::new(), token);
        Ok(refresh)
    }

    async fn fetch(
        &self,
        transport: &Transport,
        config: &Config,
        realm: &str,
        service: &str,
        scopes: &[String],
    ) -> Result<(Token, String), Error> {
        let has_secret =
            self.credentials.basic().is_some() || !self.credentials.identity_token.is_empty();
        let plain = realm.strip_prefix("http://");
        if has_secret
            && let Some(rest) = plain
            && !config.is_insecure(rest.split(['/', '?']).next().unwrap_or_default())
        {
            return Err(Error::Protocol(format!(
                "refusing to send credentials to the token server {realm} without TLS"
            )));
        }
        let request = if self.credentials.identity_token.is_empty() {
            self.token_request(realm, service, scopes)
        } else {
            self.refresh_request(realm, service, scopes)
        };
        let request = Request { trust: self.trust.clone(), ..request };
        let answer = transport.send(config, &request).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let bytes = read(answer.into_body(), ANSWER_MAX, "the token server's answer").await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|error| {
            Error::Protocol(format!("unable to decode token response: {error}"))
        })?;
        let text = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if text.is_empty() {
            return Err(Error::Protocol(
                "authorization server did not include a token in the response".into(),
            ));
        }
        // A little less than it lives: it has to get there.
        let life = answer.expires_in.max(TOKEN_LIFE) * 9 / 10;
        let until = Instant::now() + Duration::from_secs(life.min(24 * 3600));
        Ok((Token { text, until }, answer.refresh_token))
    }

    fn token_request(&self, realm: &str, service: &str, scopes: &[String]) -> Request {
        let mut query = vec![("service", service)];
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        if !self.credentials.username.is_empty() {
            query.push(("account", &self.credentials.username));
            query.push(("client_id", CLIENT_ID));
            if scopes.is_empty() {
                query.push(("offline_token", "true"));
            }
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let request = Request::new(Method::GET, format!("{realm}{separator}{}", form(&query)));
        match self.credentials.basic() {
            Some(basic) => request.with(header::AUTHORIZATION, &basic),
            None => request,
        }
    }

    fn refresh_request(&self, realm: &str, service: &str, scopes: &[String]) -> Request {
        let scope = scopes.join(" ");
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", CLIENT_ID),
            ("scope", &scope),
            ("refresh_token", &self.credentials.identity_token),
        ];
        let mut request = Request::new(Method::POST, realm)
            .with(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.payload = Payload::Bytes(form(&fields).into());
        request
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `application/x-www-form-urlencoded`.
pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    pairs.join("&")
}

fn escape(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_escaped() {
        assert_eq!(form(&[("a", "x y/ü"), ("b", "")]), "a=x%20y%2F%C3%BC&b=");
    }

    #[test]
    fn credentials_are_not_shown() {
        let credentials = Credentials { password: "secret".into(), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn a_token_is_asked_for_by_scope() {
        let auth = Auth::new(
            Credentials { username: "joe".into(), password: "p".into(), ..Credentials::default() },
            None,
        );
        let request = auth.token_request("https://a/t", "s", &["repository:x:pull".into()]);
        assert_eq!(
            request.url,
            "https://a/t?service=s&scope=repository%3Ax%3Apull&account=joe&client_id=docker"
        );
        assert_eq!(request.headers[header::AUTHORIZATION], "Basic am9lOnA=");
    }
}
