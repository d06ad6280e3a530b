//! What the engine answers when it cannot.

use cleat_proto::kind::{self, Kind};

/// A refusal or a failure, with what a client can do about it. Modules below have errors of their own; each becomes one
/// of these by `From`, kind and cause kept.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error in Docker's words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Puts words before a cause.
    pub fn with_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// A piece of work of the daemon's own did not come to its end.
    pub(crate) fn lost(error: tokio::task::JoinError) -> Self {
        Self::with_source(Kind::Internal, "a task of the daemon failed", error)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message and its causes, joined by `": "`, as the API's body has it.
    pub fn whole(&self) -> String {
        kind::whole(self)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Keeps a lower module's kind and puts it, with its causes, under an empty head.
macro_rules! from_module {
    ($($module:path),* $(,)?) => {$(
        impl From<$module> for Error {
            fn from(error: $module) -> Self {
                Self::with_source(error.kind(), String::new(), error)
            }
        }
    )*};
}

from_module!(
    crate::metadata::Error,
    crate::spec::Error,
    crate::network::Error,
    crate::volume::Error,
    crate::container::mount_point::Error,
    crate::archive::Error,
    crate::image::Error,
    crate::registry::Error,
    crate::snapshot::Error,
    crate::content::Error,
    crate::container::names::Error,
    crate::task::Error,
);
