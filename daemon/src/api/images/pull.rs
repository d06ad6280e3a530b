//! `POST /images/create?fromImage=…`, and what pull and push have in common: credentials and progress.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use cleat_proto::{digest::Digest, docker::go_json};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::image_error;
use crate::{
    api::{
        body::{self, ProgressError},
        error::{Error, Result},
        hijack::Socket,
        query::Query,
    },
    engine::{self, Engine},
    image::{Pull, PullStep, Reference, pull::LayerStep},
    registry::Credentials,
};

/// Lines that wait for a client.
const QUEUE: usize = 64;

/// Base64url, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `AuthConfig` of the Engine API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
    /// Both, as `user:password` in base64: clients of old.
    pub auth: String,
    #[serde(rename = "serveraddress")]
    pub server_address: String,
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
}

impl From<AuthConfig> for Credentials {
    fn from(mut auth: AuthConfig) -> Self {
        if auth.username.is_empty()
            && let Ok(both) = base64::engine::general_purpose::STANDARD.decode(&auth.auth)
            && let Ok(both) = String::from_utf8(both)
            && let Some((username, password)) = both.split_once(':')
        {
            (auth.username, auth.password) = (username.to_owned(), password.to_owned());
        }
        Self {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        }
    }
}

/// Reads `X-Registry-Auth`; what cannot be read is as if it were not there, as dockerd has it.
pub fn credentials(headers: &HeaderMap) -> Credentials {
    let value = headers.get("x-registry-auth").and_then(|value| value.to_str().ok());
    let bytes = value.and_then(|value| BASE64.decode(value).ok()).unwrap_or_default();
    go_json::from_slice::<AuthConfig>(&bytes).unwrap_or_default().into()
}

/// Reads `X-Registry-Config`: credentials by registry.
pub(super) fn configs(headers: &HeaderMap) -> BTreeMap<String, AuthConfig> {
    let value = headers.get("x-registry-config").and_then(|value| value.to_str().ok());
    let bytes = value.and_then(|value| BASE64.decode(value).ok()).unwrap_or_default();
    go_json::from_slice(&bytes).unwrap_or_default()
}

pub(super) async fn pull(
    engine: Engine,
    client: Option<Socket>,
    query: &Query,
    headers: &HeaderMap,
) -> Result {
    let reference = to_pull(query.get("fromImage"), query.get("tag"))?;
    let request = Pull {
        reference: reference.clone(),
        platform: super::named_platform(query)?,
        all_platforms: query.bool("allPlatforms"),
        credentials: credentials(headers),
    };
    let wanted = request.platform.clone();
    stream(client, move |lines| async move {
        let told = lines.clone();
        let pulled = engine.pull_image(request, move |reference, step| told.step(reference, step));
        let newer = pulled.await?;
        let name = reference.familiar();
        lines.status(&match newer {
            true => format!("Status: Downloaded newer image for {name}"),
            false => format!("Status: Image is up to date for {name}"),
        });
        // One image for another machine comes all the same.
        if wanted.is_some()
            && let Err(other) = engine.images().resolve_for(&name, wanted.as_ref())
        {
            lines.status(&format!("WARNING: {other}"));
        }
        Ok(lines)
    })
    .await
}

/// The reference to pull: without a tag it is all of them.
fn to_pull(name: &str, tag: &str) -> Result<Reference, Error> {
    let mut reference = Reference::parse(name.trim_end_matches(':')).map_err(image_error)?;
    if !tag.is_empty() {
        if let Ok(digest) = tag.parse() {
            reference.digest = Some(digest);
            reference.tag = None;
        } else if crate::image::reference::is_tag(tag) {
            reference.tag = Some(tag.to_owned());
        } else {
            return Err(image_error(crate::image::reference::Error::Format));
        }
    }
    if reference.digest.is_some() {
        reference.tag = None;
    }
    Ok(reference)
}

/// Runs work that tells of itself in lines. What fails before the first line has a status of its own, what fails later is told
/// in band; a client that goes away ends the work.
pub(super) async fn stream<F>(
    client: Option<Socket>,
    work: impl FnOnce(Lines) -> F + Send + 'static,
) -> Result
where
    F: Future<Output = engine::Result<Lines>> + Send,
{
    let (sender, answer) = body::channel(QUEUE);
    let (lines, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let (begun, begins) = oneshot::channel::<Option<Error>>();
    let mut begun = Some(begun);
    tokio::spawn(async move {
        let first = Arc::new(Mutex::new(Vec::new()));
        let watched = sender.clone();
        // A registry may say nothing for long, and then a client's end shows in no write.
        let mut gone = Box::pin(async move {
            match &client {
                Some(client) => client.gone().await,
                None => std::future::pending().await,
            }
        });
        let mut work = Box::pin(work(Lines { queue: lines, last: Arc::clone(&first) }));
        let mut outcome = None;
        loop {
            tokio::select! {
                biased;
                line = queue.recv() => {
                    // The queue ends when the work has.
                    let Some(line) = line else { break };
                    if let Some(begun) = begun.take() {
                        let _ = begun.send(None);
                    }
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                ended = &mut work, if outcome.is_none() => outcome = Some(ended.map(drop)),
                () = watched.closed() => return,
                () = &mut gone => return,
            }
        }
        let Some(Err(error)) = outcome else { return };
        match begun.take() {
            Some(begun) => drop(begun.send(Some(Error::from(error)))),
            None => {
                tracing::debug!(error = error.whole(), "a transfer failed");
                let _ = sender.progress(&ProgressError::new(error.whole())).await;
            }
        }
    });
    match begins.await {
        Ok(Some(error)) => Err(error),
        Ok(None) | Err(_) => Ok(body::stream("application/json", answer)),
    }
}

/// Where progress is told. Clones tell the same client.
#[derive(Clone)]
pub(super) struct Lines {
    queue: mpsc::UnboundedSender<Vec<u8>>,
    last: Arc<Mutex<Vec<u8>>>,
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerLine<'a> {
    status: &'a str,
    progress_detail: Detail,
    #[serde(skip_serializing_if = "String::is_empty")]
    progress: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
}

#[derive(Serialize, Default)]
struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuxLine<'a, T> {
    progress_detail: Detail,
    aux: &'a T,
}

impl Lines {
    pub(super) fn status(&self, status: &str) {
        self.send(&Status { status, id: None });
    }

    pub(super) fn layer(&self, id: &str, status: &str) {
        let line =
            LayerLine { status, progress_detail: Detail::default(), progress: String::new(), id };
        self.send(&line);
    }

    pub(super) fn progress(&self, id: &str, status: &str, current: u64, total: u64) {
        let progress_detail =
            Detail { current: Some(current), total: Some(total).filter(|total| *total > 0) };
        self.send(&LayerLine { status, progress_detail, progress: bar(current, total), id });
    }

    pub(super) fn aux(&self, aux: &impl Serialize) {
        self.send(&AuxLine { progress_detail: Detail::default(), aux });
    }

    fn send(&self, line: &impl Serialize) {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.extend_from_slice(b"\r\n");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == text {
            return;
        }
        last.clone_from(&text);
        // Nobody listens any more: the work is about to be dropped.
        let _ = self.queue.send(text);
    }

    fn step(&self, reference: &Reference, step: PullStep) {
        match step {
            PullStep::Begin => {
                let name = reference.name.path();
                // As dockerd writes them, a digest with all before it.
                let id = match &reference.digest {
                    Some(_) => reference.to_string(),
                    None => reference.tag.clone().unwrap_or_default(),
                };
                let status = format!("Pulling from {name}");
                self.send(&Status { status: &status, id: Some(&id) });
            }
            PullStep::Layer(digest, step) => self.layer_step(&digest, step),
            PullStep::Digest(digest) => self.status(&format!("Digest: {digest}")),
        }
    }

    fn layer_step(&self, digest: &Digest, step: LayerStep) {
        let id = digest.short();
        match step {
            LayerStep::Exists => self.layer(id, "Already exists"),
            LayerStep::Pulling => self.layer(id, "Pulling fs layer"),
            LayerStep::Waiting => self.layer(id, "Waiting"),
            LayerStep::Downloading { current, total } => {
                self.progress(id, "Downloading", current, total);
            }
            LayerStep::Verifying => self.layer(id, "Verifying Checksum"),
            LayerStep::Downloaded => self.layer(id, "Download complete"),
            LayerStep::Extracting { current, total } => {
                self.progress(id, "Extracting", current, total);
            }
            LayerStep::Complete => self.layer(id, "Pull complete"),
        }
    }
}

/// `[==>   ]  1kB/2kB`, as clients of old print it.
fn bar(current: u64, total: u64) -> String {
    let total = if current > total { 0 } else { total };
    if total == 0 {
        return format!("{:>8}", size(current));
    }
    let done = usize::try_from(current * 50 / total).unwrap_or(50).min(50);
    format!("[{}>{}] {:>8}/{}", "=".repeat(done), " ".repeat(50 - done), size(current), size(total))
}

/// go-units' `HumanSize`: four digits, decimal units.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_dockers() {
        assert_eq!(bar(3678, 101_661), format!("[=>{}]  3.678kB/101.7kB", " ".repeat(49)));
        assert_eq!(bar(101_661, 101_661), format!("[{}>]  101.7kB/101.7kB", "=".repeat(50)));
        assert_eq!(bar(2_211_840, 2_066_580), " 2.212MB");
        assert_eq!(size(400_000), "400kB");
    }

    #[test]
    fn credentials_come_in_many_shapes() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            credentials(&headers)
        };
        let joe = Credentials {
            username: "joe".into(),
            password: "secret".into(),
            ..Credentials::default()
        };
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE.encode(text);
        assert_eq!(of(&encode(r#"{"username":"joe","password":"secret","email":null}"#)), joe);
        let padded = encode(r#"{"auth":"am9lOnNlY3JldA=="}"#);
        assert_eq!(of(&padded), joe);
        assert_eq!(of(padded.trim_end_matches('=')), joe);
        for nothing in ["", "!", "e30", "null"] {
            assert_eq!(of(nothing), Credentials::default(), "{nothing}");
        }
    }
}
