//! One repository of one registry: what is fetched from it.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use cleat_proto::digest::Digest;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc::UnboundedSender, time::sleep};

use super::{
    ANSWER_MAX, Credentials, Error, MANIFEST_MAX, Registries,
    ahead::{Ahead, Work},
    auth::Auth,
    endpoint::{Endpoint, Purpose},
    manifest::{self, Descriptor, Document, Manifest, Platform},
    transport::{self, Request, next, read, refusal},
};

/// How often a request that may do better is sent.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; doubled each time.
const BACKOFF: Duration = Duration::from_millis(200);
/// How often it is doubled at most.
const BACKOFF_DOUBLED: u32 = 6;
/// We do not wait longer than this for a registry that says when to come again.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What a session may do that only fetches.
const PULL: &str = "pull";
/// The header that names a manifest. distribution-spec, "Pulling manifests".
const CONTENT_DIGEST: &str = "docker-content-digest";

/// One repository, with the way in: a session lasts for one pull or push.
pub struct Session {
    pub(super) registries: Registries,
    pub(super) endpoint: Endpoint,
    pub(super) path: String,
    pub(super) auth: Auth,
    actions: &'static str,
}

/// A manifest or an index, as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub digest: Digest,
    /// What the registry says it is.
    pub media_type: String,
    /// All of it, verified.
    pub bytes: Vec<u8>,
}

/// A blob on its way.
pub struct Blob {
    body: Incoming,
    /// Bytes that we have already, of a server that cannot begin in the middle.
    skip: u64,
    /// The server does not say that it cannot.
    has_ranges: bool,
}

impl Registries {
    /// Opens a repository, to push as well if wanted.
    ///
    /// # Errors
    /// If it cannot be reached, or is no registry.
    pub async fn session(
        &self,
        domain: &str,
        path: &str,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Session, Error> {
        let mut last = None;
        for endpoint in self.0.config.endpoints(domain, purpose)? {
            if !endpoint.resolve {
                continue;
            }
            let credentials = credentials_for(&endpoint, &credentials);
            match self.open(endpoint, path, credentials, purpose).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Config(format!("{domain} is no registry"))))
    }

    /// Finds a manifest by tag or digest, at a mirror or at the registry itself, and returns where it was.
    ///
    /// # Errors
    /// What the registry itself says.
    pub async fn find(
        &self,
        domain: &str,
        path: &str,
        credentials: Credentials,
        tag_or_digest: &str,
    ) -> Result<(Session, Found), Error> {
        let (mut last, mut passed_over) = (None, Vec::new());
        let is_digest = tag_or_digest.parse::<Digest>().is_ok();
        for endpoint in self.0.config.endpoints(domain, Purpose::Pull)? {
            if !is_digest && !endpoint.resolve {
                passed_over.push(endpoint);
                continue;
            }
            let mirror = endpoint.mirror;
            match self.find_at(endpoint, path, &credentials, tag_or_digest).await {
                Ok(found) => {
                    return Ok(self
                        .nearer(passed_over, path, &credentials, &found)
                        .await
                        .unwrap_or(found));
                }
                // What the registry itself says is the answer; that it cannot be reached is not.
                Err((true, error)) if !mirror => return Err(error),
                Err((_, error)) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Config(format!("{domain} is no registry"))))
    }

    /// Looks at one place. An error tells whether it answered at all.
    async fn find_at(
        &self,
        endpoint: Endpoint,
        path: &str,
        credentials: &Credentials,
        tag_or_digest: &str,
    ) -> Result<(Session, Found), (bool, Error)> {
        let credentials = credentials_for(&endpoint, credentials);
        let (name, mirror) = (endpoint.authority.clone(), endpoint.mirror);
        let found = match self.open(endpoint, path, credentials, Purpose::Pull).await {
            Ok(session) => match session.manifest(tag_or_digest, None).await {
                Ok(found) => return Ok((session, found)),
                Err(error) => (true, error),
            },
            Err(error) => (false, error),
        };
        if mirror {
            let error = cleat_proto::kind::whole(&found.1);
            tracing::warn!(mirror = name, error, "a mirror does not help");
        }
        Err(found)
    }

    /// Looks for the same manifest where nobody may say what a tag stands for: bytes that a digest names may come from anywhere.
    async fn nearer(
        &self,
        endpoints: Vec<Endpoint>,
        path: &str,
        credentials: &Credentials,
        known: &(Session, Found),
    ) -> Option<(Session, Found)> {
        for endpoint in endpoints {
            let digest = known.1.digest.as_str();
            if let Ok((session, mut found)) =
                self.find_at(endpoint, path, credentials, digest).await
            {
                found.media_type.clone_from(&known.1.media_type);
                return Some((session, found));
            }
        }
        None
    }

    /// Asks whether there is a registry, and what it wants of us. distribution-spec, "Determining Support".
    async fn open(
        &self,
        endpoint: Endpoint,
        path: &str,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Session, Error> {
        let auth = Auth::new(credentials, endpoint.trust.clone());
        let url = endpoint.url("");
        let request = Request { trust: endpoint.trust.clone(), ..Request::new(Method::GET, &url) };
        let answer = self.0.transport.send(&self.0.config, &request).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => drop(auth.challenged(answer.headers())),
            // Registries that serve images alone need not have this page.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {}
            status => return Err(Error::Status(status).within(&Method::GET, url)),
        }
        let actions = if purpose == Purpose::Push { "pull,push" } else { PULL };
        Ok(Session { registries: self.clone(), endpoint, path: path.to_owned(), auth, actions })
    }

    /// Opens whatever is at an address, without credentials.
    ///
    /// # Errors
    /// If it is none, or there is nothing.
    pub async fn get(&self, url: &str) -> Result<Blob, Error> {
        let request = Request::new(Method::GET, url);
        let answer = self.0.transport.send(&self.0.config, &request).await?;
        if !answer.status().is_success() {
            return Err(address_refusal(url, answer).await);
        }
        Ok(Blob { body: answer.into_body(), skip: 0, has_ranges: false })
    }

    /// `POST /auth`: tries credentials. Returns the refresh token if the registry gives one.
    ///
    /// # Errors
    /// [`Error::Login`], and whatever a connection meets.
    pub async fn log_in(&self, domain: &str, credentials: Credentials) -> Result<String, Error> {
        let session = self.session(domain, "", credentials, Purpose::Own).await?;
        let inner = &self.0;
        let token = session.auth.log_in(&inner.transport, &inner.config).await?;
        let url = session.endpoint.url("");
        let mut request = Request::new(Method::GET, &url);
        let header = session.auth.header(&inner.transport, &inner.config, &[]).await?;
        if let Some(value) = header {
            request.headers.insert(header::AUTHORIZATION, value);
        }
        let answer = inner.transport.send(&inner.config, &request).await?;
        match answer.status() {
            StatusCode::OK => Ok(token),
            status => Err(Error::Login { url, status }),
        }
    }
}

/// Credentials are bound to the registry that they were given for; others have their own.
fn credentials_for(endpoint: &Endpoint, given: &Credentials) -> Credentials {
    match (&endpoint.trust, endpoint.mirror) {
        (_, false) => given.clone(),
        (Some(trust), true) => trust.credentials(),
        (None, true) => Credentials::default(),
    }
}

impl Session {
    /// `repository:path:actions`. CNCF distribution, "Token Scope".
    pub(super) fn scope(&self) -> Vec<String> {
        vec![format!("repository:{}:{}", self.path, self.actions)]
    }

    /// The trust of a registry, for a request that goes there.
    pub(super) fn to_registry(&self, request: Request) -> Request {
        Request { trust: self.endpoint.trust.clone(), ..request }
    }

    pub(super) fn url(&self, rest: &str) -> String {
        self.endpoint.url(&format!("{}/{rest}", self.path))
    }

    /// Sends a request with credentials: once more after a challenge, and a few times if that may help.
    pub(super) async fn request(
        &self,
        request: Request,
        scopes: &[String],
    ) -> Result<Response<Incoming>, Error> {
        let (mut attempt, mut challenged) = (0, false);
        loop {
            let sent = self.authorized(&request, scopes).await;
            let wait = match &sent {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    if !challenged && self.auth.challenged(answer.headers()) {
                        challenged = true;
                        continue;
                    }
                    return sent;
                }
                Ok(answer) if transport::is_passing(answer.status()) => {
                    transport::retry_after(answer.headers()).unwrap_or(BACKOFF * 2_u32.pow(attempt))
                }
                Err(error) if error.is_passing() => BACKOFF * 2_u32.pow(attempt),
                _ => return sent,
            };
            attempt += 1;
            if attempt == ATTEMPTS || wait > WAIT_MAX {
                return sent;
            }
            sleep(wait).await;
        }
    }

    async fn authorized(
        &self,
        request: &Request,
        scopes: &[String],
    ) -> Result<Response<Incoming>, Error> {
        let inner = &self.registries.0;
        let mut request = self.to_registry(request.clone());
        let header = self.auth.header(&inner.transport, &inner.config, scopes).await;
        let header = header.map_err(|error| match error {
            // dockerd names the request where it pulls, and only there.
            Error::NoCredentials if self.actions == PULL => {
                error.within(&request.method, &request.url)
            }
            other => other,
        })?;
        if let Some(value) = header {
            request.headers.insert(header::AUTHORIZATION, value);
        }
        inner.transport.send(&inner.config, &request).await
    }

    fn manifest_request(&self, method: Method, tag_or_digest: &str) -> Request {
        let url = self.url(&format!("manifests/{tag_or_digest}"));
        manifest::ACCEPT
            .into_iter()
            .fold(Request::new(method, url), |request, kind| request.with(header::ACCEPT, kind))
    }

    /// Fetches a manifest or an index and verifies it.
    ///
    /// # Errors
    /// What the registry says; [`Error::TooLarge`], [`Error::Digest`], [`Error::Size`].
    pub async fn manifest(&self, tag_or_digest: &str, size: Option<u64>) -> Result<Found, Error> {
        let request = self.manifest_request(Method::GET, tag_or_digest);
        let answer = self.request(request, &self.scope()).await?;
        if !answer.status().is_success() {
            return Err(manifest_refusal(answer).await);
        }
        let head = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let media_type =
            head("content-type").split(';').next().unwrap_or_default().trim().to_owned();
        let said: Option<Digest> = head(CONTENT_DIGEST).parse().ok();
        let wanted: Option<Digest> = tag_or_digest.parse().ok();
        let bytes = read(answer.into_body(), MANIFEST_MAX, "the manifest").await?;
        check_size("the manifest", size, bytes.len() as u64)?;
        let digest = Digest::from_sum(Sha256::digest(&bytes));
        for wanted in [wanted, said].into_iter().flatten() {
            if wanted != digest {
                return Err(Error::Digest { what: "manifest", wanted });
            }
        }
        Ok(Found { digest, media_type, bytes })
    }

    /// Goes from what a reference names to the manifest of one platform. `None` takes an image alone whatever it is for.
    ///
    /// # Errors
    /// [`Error::Platform`], and whatever a fetch meets.
    pub async fn choose(&self, found: &Found, wanted: &Platform) -> Result<Manifest, Error> {
        let mut document = manifest::parse(&found.bytes, &found.media_type)?;
        for _ in 0..manifest::DEPTH_MAX {
            let entries = match document {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(entries) => entries,
            };
            let best = manifest::matching(&entries, wanted).into_iter().next();
            let best = best.ok_or_else(|| Error::Platform(wanted.to_string()))?;
            let next = self.manifest(best.digest.as_str(), Some(best.size)).await?;
            let claimed =
                if best.media_type.is_empty() { &next.media_type } else { &best.media_type };
            document = manifest::parse(&next.bytes, claimed)?;
        }
        Err(Error::Manifest("the indexes are nested too deep".into()))
    }

    /// Fetches a small blob whole and verifies it.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if descriptor.size > MANIFEST_MAX {
            let what = "the image's configuration".to_owned();
            return Err(Error::TooLarge { what, limit: MANIFEST_MAX });
        }
        let mut attempt = 0;
        let bytes = loop {
            let request = self.blob_request(Method::GET, &descriptor.digest);
            let answer = self.request(request, &self.scope()).await?;
            if !answer.status().is_success() {
                return Err(refusal(answer).await);
            }
            match read(answer.into_body(), descriptor.size, "the image's configuration").await {
                Err(error) if error.is_passing() && attempt + 1 < ATTEMPTS => {
                    sleep(BACKOFF * 2_u32.pow(attempt)).await;
                    attempt += 1;
                }
                other => break other?,
            }
        };
        check_size("the image's configuration", Some(descriptor.size), bytes.len() as u64)?;
        if Digest::from_sum(Sha256::digest(&bytes)) != descriptor.digest {
            let wanted = descriptor.digest.clone();
            return Err(Error::Digest { what: "image config", wanted });
        }
        Ok(bytes)
    }

    pub(super) fn blob_request(&self, method: Method, digest: &Digest) -> Request {
        Request::new(method, self.url(&format!("blobs/{digest}")))
    }

    /// Opens a stretch of a layer. A server that cannot begin in the middle sends it from the start, unless it has to be
    /// `exact`.
    async fn open_blob(
        &self,
        layer: &Descriptor,
        stretch: &Range<u64>,
        exact: bool,
    ) -> Result<Blob, Error> {
        let is_whole = *stretch == (0..layer.size) && !exact;
        let begin = |request: Request| match is_whole {
            true => request,
            false => request.with(header::RANGE, &range(stretch, layer.size)),
        };
        let elsewhere = layer.urls.iter().flatten().find(|url| url.starts_with("https://"));
        let answer = match elsewhere {
            // A foreign layer: another host, which must not see our credentials.
            Some(url) => {
                let request = begin(Request::new(Method::GET, url));
                let inner = &self.registries.0;
                inner.transport.send(&inner.config, &request).await?
            }
            None => {
                let request = begin(self.blob_request(Method::GET, &layer.digest));
                self.request(request, &self.scope()).await?
            }
        };
        let skip = match answer.status() {
            StatusCode::OK if !exact => stretch.start,
            StatusCode::PARTIAL_CONTENT if is_range(&answer, stretch, layer.size) => 0,
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                return Err(Error::Protocol(
                    "the registry sends another range than the one asked for".into(),
                ));
            }
            _ => return Err(refusal(answer).await),
        };
        // RFC 9110, 14.3: who says nothing may have them.
        let has_ranges =
            answer.headers().get(header::ACCEPT_RANGES).is_none_or(|said| said != "none");
        let body = answer.into_body();
        let before = stretch.start - skip;
        let announced = http_body::Body::size_hint(&body).exact().map(|length| length + before);
        if let Some(found) = announced.filter(|found| *found != stretch.end) {
            return Err(wrong_size(layer, found));
        }
        Ok(Blob { body, skip, has_ranges })
    }

    /// Downloads a layer from an offset to its end, and goes on where it stopped when the connection is lost. `take` gets the
    /// pieces in order and may make us wait; its `false` ends the download. More connections are opened where that pays,
    /// each with a right to it from `spare`.
    ///
    /// # Errors
    /// What the registry says, or that the blob is shorter or longer than it should be.
    pub async fn download<S: Send, F: Future<Output = bool>>(
        &self,
        layer: &Descriptor,
        offset: u64,
        spare: &(dyn Fn() -> Option<S> + Sync),
        mut take: impl FnMut(Bytes) -> F,
    ) -> Result<(), Error> {
        let fetch = |stretch: Range<u64>, pieces: UnboundedSender<Bytes>| {
            let send = move |piece| std::future::ready(pieces.send(piece).is_ok());
            Box::pin(self.part(layer, stretch, send)) as Work<'_>
        };
        let mut ahead = Ahead::new(layer.size, &fetch, spare);
        let mut tries = Tries::new(self.registries.0.config.attempts);
        let mut at = offset;
        while at < layer.size {
            let before = at;
            let mut blob = self.open_blob(layer, &(at..layer.size), false).await?;
            if !blob.has_ranges {
                ahead.stop();
            }
            let lost = loop {
                match ahead.beside(blob.next(), at).await {
                    Ok(Some(piece)) => {
                        let piece = ahead.before_parts(piece, at);
                        at += piece.len() as u64;
                        if at > layer.size {
                            return Err(wrong_size(layer, at));
                        }
                        if !take(piece).await {
                            return Ok(());
                        }
                        if ahead.starts_at(at) {
                            drop(blob);
                            break None;
                        }
                    }
                    Ok(None) => break Some(wrong_size(layer, at)),
                    Err(error) => break Some(error),
                }
            };
            while let Some(piece) = ahead.next(at).await {
                at += piece.len() as u64;
                if !take(piece).await {
                    return Ok(());
                }
            }
            if let Some(lost) = lost
                && at < layer.size
            {
                tries.again(at > before, lost).await?;
                tracing::debug!(digest = %layer.digest, at, "a download goes on after a lost connection");
            }
        }
        Ok(())
    }

    /// Downloads a stretch of a layer, and exactly that.
    async fn part<F: Future<Output = bool>>(
        &self,
        layer: &Descriptor,
        stretch: Range<u64>,
        take: impl Fn(Bytes) -> F,
    ) -> Result<(), Error> {
        let mut tries = Tries::new(self.registries.0.config.attempts);
        let mut at = stretch.start;
        loop {
            let before = at;
            let mut blob = self.open_blob(layer, &(at..stretch.end), true).await?;
            let lost = loop {
                match blob.next().await {
                    Ok(Some(piece)) => {
                        at += piece.len() as u64;
                        if at > stretch.end {
                            return Err(wrong_size(layer, at));
                        }
                        if !take(piece).await {
                            return Ok(());
                        }
                    }
                    Ok(None) => break wrong_size(layer, at),
                    Err(error) => break error,
                }
            };
            if at == stretch.end {
                return Ok(());
            }
            tries.again(at > before, lost).await?;
        }
    }

    /// Returns the tags of the repository. distribution-spec, "Listing Tags".
    ///
    /// # Errors
    /// What the registry says.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        const PAGES_MAX: usize = 100;
        #[derive(serde::Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let (mut all, mut url) = (Vec::new(), self.url("tags/list"));
        for _ in 0..PAGES_MAX {
            let answer = self.request(Request::new(Method::GET, &url), &self.scope()).await?;
            if !answer.status().is_success() {
                return Err(refusal(answer).await);
            }
            let link = answer.headers().get(header::LINK).and_then(|value| value.to_str().ok());
            let following = link.and_then(|link| link.split(['<', '>']).nth(1)).map(str::to_owned);
            let bytes = read(answer.into_body(), MANIFEST_MAX, "the list of tags").await?;
            let tags: Tags = serde_json::from_slice(&bytes)
                .map_err(|error| Error::Protocol(format!("invalid list of tags: {error}")))?;
            all.extend(tags.tags.unwrap_or_default());
            match following {
                Some(link) => url = transport::resolve_same_host(&url, &link)?,
                None => return Ok(all),
            }
        }
        Err(Error::Protocol(format!("the list of tags has more than {PAGES_MAX} pages")))
    }
}

/// dockerd's words for what an address has instead of a file: its status and all that its server says.
async fn address_refusal(url: &str, answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let told = answer.extensions().get::<hyper::ext::ReasonPhrase>();
    let told = told.map(|told| String::from_utf8_lossy(told.as_bytes()).into_owned());
    let reason = told.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().to_owned());
    let said = read(answer.into_body(), ANSWER_MAX, "the answer").await;
    let said = said.map_or_else(
        |_| "error reading body".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
    );
    let status = status.as_u16();
    Error::Address {
        status,
        message: format!("failed to GET {url} with status {status} {reason}: {said}"),
    }
}

impl Blob {
    /// Returns how many bytes there are, if the server says.
    pub fn length(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.body).exact()
    }

    /// Waits for the next bytes.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(mut bytes) = next(&mut self.body).await? else { return Ok(None) };
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skip as u64;
            let rest = bytes.split_off(skip);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }
}

/// How often a download has failed without having come further.
struct Tries {
    max: u32,
    failures: u32,
}

impl Tries {
    fn new(max: u32) -> Self {
        Self { max: max.max(1), failures: 0 }
    }

    /// Waits before the next attempt, or gives up with the error of the last.
    async fn again(&mut self, came_further: bool, lost: Error) -> Result<(), Error> {
        self.failures = if came_further { 1 } else { self.failures + 1 };
        if self.failures >= self.max {
            return Err(lost);
        }
        sleep(BACKOFF * 2_u32.pow((self.failures - 1).min(BACKOFF_DOUBLED))).await;
        Ok(())
    }
}

/// `bytes=10-19`, `bytes=10-`: RFC 9110, 14.1.2.
fn range(stretch: &Range<u64>, size: u64) -> String {
    match stretch.end == size {
        true => format!("bytes={}-", stretch.start),
        false => format!("bytes={}-{}", stretch.start, stretch.end - 1),
    }
}

/// Whether `bytes 10-19/100` is that stretch of that size: RFC 9110, 14.4.
fn is_range(answer: &Response<Incoming>, stretch: &Range<u64>, size: u64) -> bool {
    let value = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| fits(value, stretch, size))
}

fn fits(value: &str, stretch: &Range<u64>, size: u64) -> bool {
    let parse = || {
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let is_all = total == "*" || total.parse() == Ok(size);
        let found = first.parse::<u64>().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
        Some(is_all && found == *stretch)
    };
    parse().unwrap_or(false)
}

fn wrong_size(layer: &Descriptor, found: u64) -> Error {
    Error::Size { what: format!("layer {}", layer.digest), wanted: layer.size, found }
}

fn check_size(what: &str, wanted: Option<u64>, found: u64) -> Result<(), Error> {
    match wanted {
        Some(wanted) if wanted != found => {
            Err(Error::Size { what: what.to_owned(), wanted, found })
        }
        _ => Ok(()),
    }
}

/// A registry that says nothing more than 404 says that there is no such manifest.
async fn manifest_refusal(answer: Response<Incoming>) -> Error {
    match refusal(answer).await {
        Error::Refused { status: 404, code, .. } if code == "NOT_FOUND" => Error::Refused {
            status: 404,
            code: "MANIFEST_UNKNOWN".into(),
            message: "manifest unknown".into(),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_was_asked_for_or_it_is_not() {
        for (value, expected) in [
            ("bytes 10-19/100", true),
            ("bytes 10-19/*", true),
            ("bytes 10-18/100", false),
            ("bytes 9-19/100", false),
            ("bytes 10-19/101", false),
            ("bytes 10-18446744073709551615/100", false),
            ("bytes */100", false),
            ("lines 10-19/100", false),
            ("", false),
        ] {
            assert_eq!(fits(value, &(10..20), 100), expected, "{value}");
        }
        assert_eq!(range(&(10..20), 100), "bytes=10-19");
        assert_eq!(range(&(10..100), 100), "bytes=10-");
    }
}
