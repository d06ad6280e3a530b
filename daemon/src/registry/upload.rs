//! What is brought to a repository. Source: OCI distribution-spec, "Push".

use std::io;

use bytes::Bytes;
use cleat_proto::digest::Digest;
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{
    Error, Session,
    auth::form,
    transport::{Payload, Request, SourceFailed, refusal, resolve_same_host},
};

/// The bytes of a blob that is being made.
pub type Source = mpsc::Receiver<io::Result<Bytes>>;

/// An upload that the registry has begun.
pub struct Upload {
    url: String,
}

impl Session {
    /// Returns the size of a blob that the repository has.
    ///
    /// # Errors
    /// What the registry says, other than that it has none.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let request = self.blob_request(Method::HEAD, digest);
        let answer = self.request(request, &self.scope()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let length = answer.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
                Ok(Some(length.unwrap_or(0)))
            }
            _ => Err(refusal(answer).await),
        }
    }

    /// Begins an upload, or takes a blob over from another repository of the registry: `None` then.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn begin(&self, mount: Option<(&Digest, &str)>) -> Result<Option<Upload>, Error> {
        let url = self.url("blobs/uploads/");
        let mut scopes = self.scope();
        let request = match mount {
            None => Request::new(Method::POST, &url),
            Some((digest, from)) => {
                scopes.push(format!("repository:{from}:pull"));
                let query = form(&[("mount", digest.as_str()), ("from", from)]);
                let separator = if url.contains('?') { '&' } else { '?' };
                Request::new(Method::POST, format!("{url}{separator}{query}"))
            }
        };
        let answer = self.request(request.with(header::CONTENT_LENGTH, "0"), &scopes).await?;
        match answer.status() {
            StatusCode::CREATED if mount.is_some() => Ok(None),
            StatusCode::ACCEPTED => self.upload(&url, &answer).map(Some),
            _ => Err(refusal(answer).await),
        }
    }

    fn upload(&self, from: &str, answer: &Response<Incoming>) -> Result<Upload, Error> {
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location
            .ok_or_else(|| Error::Protocol("the registry names no place to upload to".into()))?;
        Ok(Upload { url: resolve_same_host(from, location)? })
    }

    /// Sends a blob as it is made: its digest is known at the end alone, when [`Self::finish`] names it.
    ///
    /// # Errors
    /// What the registry says, or [`Error::Source`].
    pub async fn send(&self, upload: Upload, source: Source) -> Result<Upload, Error> {
        let inner = &self.registries.0;
        let mut request = self.to_registry(
            Request::new(Method::PATCH, &upload.url)
                .with(header::CONTENT_TYPE, "application/octet-stream"),
        );
        let header = self.auth.header(&inner.transport, &inner.config, &self.scope()).await?;
        if let Some(value) = header {
            request.headers.insert(header::AUTHORIZATION, value);
        }
        let body = SourceBody(source).boxed_unsync();
        let answer = inner.transport.send_once(&inner.config, &request, body).await?;
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => self.upload(&upload.url, &answer),
            _ => Err(refusal(answer).await),
        }
    }

    /// Ends an upload: what is still to be sent, and the name of it all.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn finish(&self, upload: Upload, digest: &Digest, rest: Bytes) -> Result<(), Error> {
        let separator = if upload.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}{}", upload.url, form(&[("digest", digest.as_str())]));
        let mut request = Request::new(Method::PUT, url)
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .with(header::CONTENT_LENGTH, &rest.len().to_string());
        request.payload = Payload::Bytes(rest);
        let answer = self.request(request, &self.scope()).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(refusal(answer).await),
        }
    }

    /// Gives a manifest a tag.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let url = self.url(&format!("manifests/{tag}"));
        let mut request = Request::new(Method::PUT, url).with(header::CONTENT_TYPE, media_type);
        request.payload = Payload::Bytes(bytes.into());
        let answer = self.request(request, &self.scope()).await?;
        if answer.status().is_success() { Ok(()) } else { Err(refusal(answer).await) }
    }
}

/// A body that somebody else makes.
struct SourceBody(Source);

impl http_body::Body for SourceBody {
    type Data = Bytes;
    type Error = io::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|chunk| {
            chunk.map(|chunk| {
                let failed = |error: io::Error| io::Error::other(SourceFailed(error.to_string()));
                chunk.map(http_body::Frame::data).map_err(failed)
            })
        })
    }
}
