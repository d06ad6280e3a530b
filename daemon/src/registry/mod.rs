//! The client of registries: where they are, how to log in, manifests and blobs in both directions.
//!
//! ```text
//!  Registries ── session(domain, path, credentials) ──▶ Session ── manifest(), blob(), upload() … ──▶ transport.rs
//!     endpoint.rs: mirrors, scheme, trust                 auth.rs: tokens          redirects, retries, limits
//! ```
//! Source: OCI distribution-spec 1.1; CNCF distribution, "Token Authentication Specification". It knows no images: names are
//! a domain and a path. What a registry sends is bounded everywhere: an error says which bound was met.

mod ahead;
mod auth;
mod challenge;
mod connector;
mod endpoint;
mod fetch;
mod hosts;
pub mod manifest;
mod proxy;
mod search;
mod tls;
mod transport;
mod upload;

use std::{io, sync::Arc};

use cleat_proto::{digest::Digest, kind::Kind};

pub use auth::Credentials;
pub use endpoint::{Config, Purpose};
pub use fetch::{Found, Session};
pub use proxy::{Proxies, Proxy};
pub use search::SearchResult;
pub use upload::Upload;

use transport::Transport;

/// The most that a manifest or a configuration may have. OCI distribution-spec, "Pushing Manifests".
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The most that an answer with an error, a token or a search may have.
const ANSWER_MAX: u64 = 1 << 20;

/// What can go wrong between us and a registry. Texts are dockerd's where clients know them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry says no, in its own words.
    #[error("{}: {message}", code.to_ascii_lowercase().replace('_', " "))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// `MANIFEST_UNKNOWN` …: distribution-spec, "Error Codes".
        code: String,
        /// For people.
        message: String,
    },
    /// It answers with a status that means nothing here.
    #[error("received unexpected HTTP status: {0}")]
    Status(http::StatusCode),
    /// The request did not get there, or its answer not here.
    #[error("{method} \"{url}\"")]
    Request {
        /// As Go writes it: `Get`.
        method: &'static str,
        /// Without credentials.
        url: String,
        /// Why.
        source: Box<Error>,
    },
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(String),
    /// The connection ended in the middle.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// Nobody said who they are.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// A login that was refused.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// Where.
        url: String,
        /// With what.
        status: http::StatusCode,
    },
    /// More than we take.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Of what.
        what: String,
        /// How much we take.
        limit: u64,
    },
    /// What an address has instead of a file.
    #[error("{message}")]
    Address {
        /// The HTTP status.
        status: u16,
        /// With what the server says of it.
        message: String,
    },
    /// A redirect that is not followed.
    #[error("refusing the redirect to {0}")]
    Redirect(String),
    /// Bytes that are not what their name says.
    #[error("{what} verification failed for digest {wanted}")]
    Digest {
        /// `manifest`, `image config`.
        what: &'static str,
        /// The name.
        wanted: Digest,
    },
    /// A length that is not what was announced.
    #[error("{what} has {found} bytes instead of {wanted}")]
    Size {
        /// Of what.
        what: String,
        /// The announcement.
        wanted: u64,
        /// The truth.
        found: u64,
    },
    /// A manifest or an index that makes no sense.
    #[error("{0}")]
    Manifest(String),
    /// There is nothing for that platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    Platform(String),
    /// What the registry sends follows no specification.
    #[error("{0}")]
    Protocol(String),
    /// A name of a registry that is none, a certificate that cannot be read.
    #[error("{0}")]
    Config(String),
    /// What was to be uploaded could not be read.
    #[error("cannot read what is to be uploaded")]
    Source(#[source] io::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused { status, .. } | Self::Address { status, .. } => match status {
                401 => Kind::Unauthorized,
                403 => Kind::Forbidden,
                404 => Kind::NotFound,
                400 => Kind::InvalidArgument,
                _ => Kind::Internal,
            },
            Self::Platform(_) => Kind::NotFound,
            Self::Manifest(_) => Kind::InvalidArgument,
            // As dockerd has them: nothing that it says about a connection has a status of its own.
            Self::Status(_)
            | Self::Request { .. }
            | Self::Connection(_)
            | Self::Lost(_)
            | Self::NoCredentials
            | Self::Login { .. }
            | Self::TooLarge { .. }
            | Self::Redirect(_)
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Protocol(_)
            | Self::Config(_)
            | Self::Source(_) => Kind::Internal,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Request { source, .. } => source.is_passing(),
            Self::Connection(_) | Self::Lost(_) => true,
            Self::Status(status) => status.is_server_error(),
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    fn within(self, method: &http::Method, url: impl std::fmt::Display) -> Self {
        let method = match method.as_str() {
            "HEAD" => "Head",
            "POST" => "Post",
            "PUT" => "Put",
            "PATCH" => "Patch",
            _ => "Get",
        };
        Self::Request { method, url: url.to_string(), source: Box::new(self) }
    }
}

/// All registries. Clones share connections.
#[derive(Clone)]
pub struct Registries(Arc<Inner>);

struct Inner {
    config: Config,
    transport: Transport,
}

impl Registries {
    /// Makes a client; nothing is connected yet.
    pub fn new(config: Config) -> Self {
        let transport = Transport::new(config.user_agent.clone(), config.proxies.clone());
        Self(Arc::new(Inner { config, transport }))
    }
}
