//! What went wrong, as an answer: `{"message": …}` with the status of its kind.

use axum::response::{IntoResponse, Response};
use cleat_proto::kind::Kind;
use http::{StatusCode, header};
use serde::Serialize;

use super::body;

/// An error on its way to a client.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    message: String,
}

/// What a handler returns.
pub type Result<T = Response, E = Error> = std::result::Result<T, E>;

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
}

impl Error {
    /// Makes an error in Docker's words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status());
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message: message.into(),
        }
    }

    /// The request makes no sense: 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// What Docker, by its own oversight, answers with 500 although the client is at fault. Clients may look for it.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// We do not have that yet: 501, with a message that names it.
    pub fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotImplemented, format!("{what} is not implemented by cleat yet"))
    }

    /// Puts words before the message.
    pub fn within(mut self, words: impl std::fmt::Display) -> Self {
        self.message = format!("{words}: {}", self.message);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<crate::engine::Error> for Error {
    fn from(error: crate::engine::Error) -> Self {
        if error.kind() == Kind::Internal {
            tracing::error!(error = error.whole(), "a request failed");
        }
        Self::new(error.kind(), error.whole())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        body::json(self.status, &ErrorBody { message: &self.message })
    }
}

/// The answer to an unknown path, and to a known one with another method: Docker never says 405.
pub async fn page_not_found() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::NOT_FOUND, json, "{\"message\":\"page not found\"}\n").into_response()
}
