//! A task is a container's running instance, and its shim the process that owns it. Here the daemon starts shims, speaks to
//! them, and follows what they tell.
//!
//! Nothing is kept open per task but the watch of its journal: a call makes a connection of its own and closes it.

use std::{io, time::Duration};

use cleat_proto::kind::Kind;

pub mod cgroup;
pub mod client;
pub mod directory;
pub mod launch;
pub mod watch;

pub use client::Client;
pub use directory::TaskDir;
pub use watch::Watch;

/// What can go wrong between the daemon and a shim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on its socket: it is dead.
    #[error("cannot reach the shim")]
    Unreachable(#[source] io::Error),
    /// It took the request and did not answer.
    #[error("the shim did not answer {call} within {deadline:?}")]
    Deadline {
        /// What was asked.
        call: &'static str,
        /// How long it had.
        deadline: Duration,
    },
    /// What the shim (and through it the runtime) says; the text is the whole story.
    #[error("{message}")]
    Shim {
        /// What the caller can do about it.
        kind: Kind,
        /// The shim's own words.
        message: String,
    },
    /// A file or directory of the task failed.
    #[error("{what}")]
    Files {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Shim { kind, .. } => *kind,
            Self::Deadline { .. } => Kind::Unavailable,
            Self::Unreachable(_) | Self::Files { .. } => Kind::Internal,
        }
    }

    /// Whether the shim is known to be dead, not only slow.
    pub fn is_dead(&self) -> bool {
        match self {
            Self::Unreachable(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
            }
            Self::Deadline { .. } | Self::Shim { .. } | Self::Files { .. } => false,
        }
    }

    /// Puts words before a file error.
    pub(crate) fn files(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Files { what, source }
    }
}
