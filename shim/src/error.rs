//! What goes wrong in a shim, worded for who asked.

use std::io;

use cleat_proto::kind::Kind;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("process {0} does not exist")]
    NoProcess(String),
    #[error("id {0}: already exists")]
    Exists(String),
    #[error("cannot {action} a {state} process")]
    WrongState { action: &'static str, state: &'static str },
    #[error("process already finished")]
    Finished,
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is not supported by this shim")]
    Unsupported(&'static str),
    /// The runtime's own words, whole.
    #[error("OCI runtime {verb} failed: {message}")]
    Runtime { verb: &'static str, message: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the shim is shutting down")]
    ShuttingDown,
}

impl Error {
    /// Says what the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoContainer(_) | Self::NoProcess(_) | Self::Finished => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadySo,
            Self::WrongState { .. } => Kind::Conflict,
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::Unsupported(_) => Kind::NotImplemented,
            Self::Runtime { .. } | Self::Io { .. } => Kind::Internal,
            Self::ShuttingDown => Kind::Unavailable,
        }
    }

    /// Makes the wrapper for a system call's error: what we were doing, then what it said.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::new(error.kind().grpc_code(), error.to_string())
    }
}
