//! Bodies: JSON in and out, and streams.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use cleat_proto::docker::go_json;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::error::{Error, Result};

/// The largest JSON body, but for `/containers/create`.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// A JSON body, read as Go does it. No body at all is the default value, as Docker has it.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let Some(body) = json_body(request, MAX_JSON_BYTES).await? else {
            return Ok(Self(T::default()));
        };
        go_json::from_slice(&body).map(Self).map_err(json_error)
    }
}

/// Reads a JSON body whole; `None` if the request has none.
///
/// # Errors
/// 400 for another content type, 413 for more than `limit` bytes.
pub async fn json_body(request: Request, limit: usize) -> Result<Option<Bytes>, Error> {
    let has_body = request.body().size_hint().exact() != Some(0);
    check_json_type(request.headers(), has_body)?;
    if has_body { read(request.into_body(), limit).await.map(Some) } else { Ok(None) }
}

/// Words a JSON error as Docker does.
pub fn json_error(error: go_json::Error) -> Error {
    match error {
        go_json::Error::Empty => Error::invalid("invalid JSON: got EOF while reading request body"),
        go_json::Error::Trailing => Error::invalid(error.to_string()),
        go_json::Error::Syntax(_) | go_json::Error::Shape(_) => {
            Error::invalid(format!("invalid JSON: {error}"))
        }
    }
}

/// A body must say that it is JSON: a page in a browser cannot send that to us without asking first.
fn check_json_type(headers: &HeaderMap, has_body: bool) -> Result<(), Error> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let given = match given {
        None if !has_body => return Ok(()),
        None | Some("") => {
            return Err(Error::invalid("malformed Content-Type header (): mime: no media type"));
        }
        Some(given) => given,
    };
    let essence = media_type(given).map_err(|why| {
        Error::invalid(format!("malformed Content-Type header ({given}): mime: {why}"))
    })?;
    if essence == "application/json" {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "unsupported Content-Type header ({given}): must be 'application/json'"
    )))
}

/// Reads a content type as Go's `mime.ParseMediaType` does; returns the type without parameters, in lower case.
///
/// # Errors
/// Go's words for what is none.
pub fn media_type(text: &str) -> Result<String, &'static str> {
    let (essence, mut rest) = text.find(';').map_or((text, ""), |at| text.split_at(at));
    let essence = essence.trim().to_ascii_lowercase();
    let (kind, after) = token(&essence);
    if kind.is_empty() {
        return Err("no media type");
    }
    if !after.is_empty() {
        let after = after.strip_prefix('/').ok_or("expected slash after first token")?;
        match token(after) {
            ("", _) => return Err("expected token after slash"),
            (_, "") => {}
            _ => return Err("unexpected content after media subtype"),
        }
    }
    while !rest.trim_start().is_empty() {
        rest = match parameter(rest) {
            Some(after) => after,
            // A semicolon at the end is let pass.
            None if rest.trim() == ";" => break,
            None => return Err("invalid media parameter"),
        };
    }
    Ok(essence)
}

/// Takes `; name=value` off; the value may be quoted.
fn parameter(text: &str) -> Option<&str> {
    let (name, rest) = token(text.trim_start().strip_prefix(';')?.trim_start());
    let value = rest.trim_start().strip_prefix('=')?.trim_start();
    let Some(quoted) = value.strip_prefix('"') else {
        let (value, rest) = token(value);
        return (!name.is_empty() && !value.is_empty()).then_some(rest);
    };
    let mut escaped = false;
    let end = quoted.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    })?;
    (!name.is_empty()).then_some(&quoted[end + 1..])
}

/// Splits after the token at the beginning. Source: RFC 2045, section 5.1.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// Reads a body up to a limit.
///
/// # Errors
/// 400 if it is longer, or the client goes away.
pub async fn read(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Error::invalid(format!("cannot read the body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limit {
                return Err(Error::invalid(format!("the body is larger than {limit} bytes")));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// An answer in JSON with Go's newline at the end.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match to_line(value) {
        Ok(text) => json_text(status, text),
        Err(error) => {
            let text = format!("{{\"message\":\"cannot write the answer: {error}\"}}\n");
            json_text(StatusCode::INTERNAL_SERVER_ERROR, text.into_bytes())
        }
    }
}

/// 200 with a JSON body.
pub fn ok(value: &impl Serialize) -> Result {
    Ok(json(StatusCode::OK, value))
}

/// An answer whose JSON is written already.
pub fn json_text(status: StatusCode, text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 204.
pub fn no_content() -> Result {
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn to_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// The client is gone, or never reads: whoever produces can stop.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// Where a streaming answer is written to. The head goes out at once, before the first byte.
#[derive(Clone)]
pub struct Sender(mpsc::Sender<std::io::Result<Bytes>>);

impl Sender {
    /// Waits until the client has taken enough, then queues `bytes`.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.send(Ok(bytes.into())).await.map_err(|_| Gone)
    }

    /// As [`Sender::send`], from a thread that may block.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn blocking_send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.blocking_send(Ok(bytes.into())).map_err(|_| Gone)
    }

    /// One JSON value and a newline.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn line(&self, value: &(impl Serialize + Sync)) -> Result<(), Gone> {
        self.send(to_line(value).map_err(|_| Gone)?).await
    }

    /// One progress message of pull, load, import: JSON and `\r\n`.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn progress(&self, value: &(impl Serialize + Sync)) -> Result<(), Gone> {
        self.send(progress_line(value)).await
    }

    /// Ends the answer as broken: the connection is closed before the body's end.
    pub async fn abort(self, error: std::io::Error) {
        // Nobody left to tell is as good.
        let _ = self.0.send(Err(error)).await;
    }

    /// Resolves when the client has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

fn progress_line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.extend_from_slice(b"\r\n");
    text
}

/// Makes a body that is written while it is sent. `queue` chunks wait at most: with a client that does not read, that is
/// the memory it costs.
pub fn channel(queue: usize) -> (Sender, Body) {
    let (sender, receiver) = mpsc::channel(queue);
    (Sender(sender), Body::new(ChannelBody(receiver)))
}

/// A body of chunks that somebody else sends; an error among them ends it broken.
pub fn from_receiver(chunks: mpsc::Receiver<std::io::Result<Bytes>>) -> Body {
    Body::new(ChannelBody(chunks))
}

/// 200 with a streamed body.
pub fn stream(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// In-band failure of a progress stream, for after the first byte.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressError {
    error_detail: ErrorDetail,
    error: String,
}

#[derive(Serialize)]
struct ErrorDetail {
    message: String,
}

impl ProgressError {
    /// Makes the last line of a stream that failed.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { error_detail: ErrorDetail { message: message.clone() }, error: message }
    }
}

struct ChannelBody(mpsc::Receiver<std::io::Result<Bytes>>);

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|item| item.map(|item| item.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_as_go_reads_them() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;",
            "application/json ; a=\"b\\\"c\"; d=e",
        ] {
            assert_eq!(media_type(good).as_deref(), Ok("application/json"), "{good}");
        }
        for (wrong, why) in [
            ("", "no media type"),
            ("; a=b", "no media type"),
            ("application/json;;x", "invalid media parameter"),
            ("application/json; x", "invalid media parameter"),
            ("application/json; x=\"y", "invalid media parameter"),
            ("application", "x"),
            ("application/", "expected token after slash"),
            ("application json", "expected slash after first token"),
            ("application/json x", "unexpected content after media subtype"),
        ] {
            let read = media_type(wrong);
            assert_eq!(read, if why == "x" { Ok(wrong.to_owned()) } else { Err(why) }, "{wrong}");
        }
    }
}
