//! What is sent with a request, and what comes back in pieces.

use std::convert::Infallible;
use std::io::Read;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Error;
use crate::value::Value;

/// The body type hyper sees.
pub(super) type Stream = UnsyncBoxBody<Bytes, Infallible>;

/// What is sent with a request.
pub enum Body {
    /// Nothing.
    Empty,
    /// A JSON document.
    Json(Vec<u8>),
    /// A stream of unknown length.
    Reader(&'static str, Box<dyn Read + Send>),
}

impl Body {
    /// `value` as Go's encoder would send it, with a newline at its end.
    pub fn json(value: &impl Serialize) -> Self {
        let mut text = serde_json::to_vec(value).unwrap_or_default();
        text.push(b'\n');
        Self::Json(text)
    }

    pub(super) fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::Empty => None,
            Self::Json(_) => Some("application/json"),
            Self::Reader(kind, _) => Some(kind),
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        match self {
            Self::Empty => Empty::new().boxed_unsync(),
            Self::Json(text) => Full::from(text).boxed_unsync(),
            Self::Reader(_, reader) => pump(reader),
        }
    }
}

/// Reads on a thread of its own, since files and pipes block; a few chunks ahead of the socket.
fn pump(mut reader: Box<dyn Read + Send>) -> Stream {
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(count) = reader.read(&mut buffer) {
            if count == 0 || sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err()
            {
                break;
            }
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (Ok(Frame::data(chunk)), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body as it comes.
pub struct Chunks {
    body: Incoming,
    pending: BytesMut,
}

impl Chunks {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, pending: BytesMut::new() }
    }

    /// The next piece, `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.pending.is_empty() {
            return Ok(Some(self.pending.split().freeze()));
        }
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next line of JSON, `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the line is no JSON.
    pub async fn next_value(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return read(&line).map(Some);
            }
            match self.body.frame().await {
                None if self.pending.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return read(&self.pending.split()).map(Some),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn read(line: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(line).map_err(|error| Error::Request(error.to_string()))
}

fn broken(error: &hyper::Error) -> Error {
    if error.is_incomplete_message() || error.is_closed() {
        return Error::Request("unexpected EOF".into());
    }
    Error::Transport(error.to_string())
}
