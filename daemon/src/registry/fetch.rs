//! One repository of one registry: what is fetched from it.

use std::time::Duration;

use bytes::Bytes;
use cleat_proto::digest::Digest;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::{
    ANSWER_MAX, Credentials, Error, MANIFEST_MAX, Registries,
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
        Ok(Blob { body: answer.into_body(), skip: 0 })
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

    /// Opens a blob at an offset; a server that cannot do that sends it from the start.
    async fn open_blob(&self, layer: &Descriptor, offset: u64) -> Result<Blob, Error> {
        let range = format!("bytes={offset}-");
        let begin = |request: Request| match offset {
            0 => request,
            _ => request.with(header::RANGE, &range),
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
        let status = answer.status();
        let skip = match status {
            StatusCode::OK => offset,
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, offset) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(Error::Protocol(
                    "the registry sends another range than the one asked for".into(),
                ));
            }
            _ => return Err(refusal(answer).await),
        };
        let body = answer.into_body();
        let announced = http_body::Body::size_hint(&body).exact();
        if let Some(length) = announced
            && length + offset - skip != layer.size
        {
            let what = format!("layer {}", layer.digest);
            return Err(Error::Size { what, wanted: layer.size, found: length + offset - skip });
        }
        Ok(Blob { body, skip })
    }

    /// Downloads a layer from an offset to its end, and goes on where it stopped when the connection is lost. `take` gets the
    /// pieces in order and may make us wait; its `false` ends the download.
    ///
    /// # Errors
    /// What the registry says, or that the blob is shorter or longer than it should be.
    pub async fn download<F: Future<Output = bool>>(
        &self,
        layer: &Descriptor,
        offset: u64,
        mut take: impl FnMut(Bytes) -> F,
    ) -> Result<(), Error> {
        let size = |found| {
            let what = format!("layer {}", layer.digest);
            Error::Size { what, wanted: layer.size, found }
        };
        let attempts = self.registries.0.config.attempts.max(1);
        let (mut at, mut failures) = (offset, 0);
        while at < layer.size {
            let before = at;
            let lost = match self.open_blob(layer, at).await {
                Err(error) => return Err(error),
                Ok(mut blob) => loop {
                    match blob.next().await {
                        Ok(Some(bytes)) => {
                            at += bytes.len() as u64;
                            if at > layer.size {
                                return Err(size(at));
                            }
                            if !take(bytes).await {
                                return Ok(());
                            }
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                },
            };
            if at == layer.size {
                break;
            }
            failures = if at > before { 1 } else { failures + 1 };
            if failures >= attempts {
                return Err(lost.unwrap_or_else(|| size(at)));
            }
            tracing::debug!(digest = %layer.digest, at, "a download goes on after a lost connection");
            sleep(BACKOFF * 2_u32.pow((failures - 1).min(BACKOFF_DOUBLED))).await;
        }
        Ok(())
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

/// `bytes 10-…`: RFC 9110, 14.4.
fn starts_at(answer: &Response<Incoming>, offset: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start =
        range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(offset)
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
