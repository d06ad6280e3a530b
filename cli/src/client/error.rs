//! What can go wrong between us and the daemon.

/// The failure of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("Cannot connect to the Docker daemon at {0}. Is the docker daemon running?")]
    Unreachable(String),
    /// The socket is not for us.
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {host}: {reason}"
    )]
    PermissionDenied {
        /// The daemon's address.
        host: String,
        /// The request and what the system said.
        reason: String,
    },
    /// The connection failed otherwise, or broke.
    #[error("error during connect: {0}")]
    Transport(String),
    /// The daemon said no.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// A request or an answer that makes no sense.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// Reads an answer that reports an error.
    pub fn from_answer(status: http::StatusCode, json: bool, body: &[u8]) -> Self {
        let code = status.as_u16();
        let reason = status.canonical_reason().unwrap_or_default();
        if body.is_empty() {
            return Self::Request(format!(
                "request returned {code} {reason} for API route and version, check if the server supports the requested \
                 API version"
            ));
        }
        let text = String::from_utf8_lossy(body);
        let message = if json {
            #[derive(serde::Deserialize)]
            struct Answer {
                #[serde(default)]
                message: String,
            }
            match serde_json::from_slice::<Answer>(body) {
                Err(error) => return Self::Request(format!("Error reading JSON: {error}")),
                Ok(answer) if answer.message.is_empty() => {
                    format!("API returned a {code} ({reason}) but provided no error-message")
                }
                Ok(answer) => answer.message.trim().to_owned(),
            }
        } else {
            text.trim().to_owned()
        };
        Self::Daemon { status: code, message }
    }

    /// Whether the daemon knows no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }

    /// Whether there was no daemon to ask.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::PermissionDenied { .. } | Self::Transport(_))
    }
}
