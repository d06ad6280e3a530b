//! What a peer may say on a shim's socket besides gRPC and ttrpc: one line, [`PREFIX`] and a [`Hello`] as JSON.
//!
//! The first bytes tell the three apart: `PRI ` is HTTP/2, a zero byte is a ttrpc frame, `CLEAT ` is this.
//!
//! * **attach**: the line comes with one descriptor (`SCM_RIGHTS` on its first byte): the client's own connection, after the
//!   daemon has written the response head and taken what the client had sent early. From then on the shim alone speaks
//!   to the client: the bytes never pass through the daemon, and its death breaks no connection. The shim answers
//!   [`Answer`] in one line and closes.
//! * **follow**: comes with a descriptor as well, and is answered in the same way. The client gets the container's log, and what is added
//!   to it until the container's run ends.
//! * **watch**: the shim answers [`Answer`], then every journal entry with a `seq` above `after`, one JSON a line, and goes on
//!   as they come, until the peer hangs up.

use serde::{Deserialize, Serialize};

use crate::log::LogOptions;

/// How the line begins.
pub const PREFIX: &str = "CLEAT ";

/// The longest line; a longer one ends the connection.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// The type URL of `cleat.shim.v1.Orders` in CreateTaskRequest.options.
pub const ORDERS_TYPE_URL: &str = "cleat.shim.v1.Orders";

/// The type URL of an OCI process in ExecProcessRequest.spec (JSON).
pub const PROCESS_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// The type URL of OCI LinuxResources in UpdateTaskRequest.resources (JSON).
pub const RESOURCES_TYPE_URL: &str =
    "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// The URI for stdin, stdout and stderr in Create and Exec that makes the shim keep the stream for attached clients.
pub const STREAM_URI: &str = "stream://";

/// What the peer wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hello {
    /// Joins the descriptor that came along to the streams of a process.
    Attach(Attach),
    /// Sends the log to the descriptor that came along, and goes on with it as it grows.
    Follow(Follow),
    /// Follows the journal.
    Watch {
        /// The last entry already known; 0 for none.
        after: u64,
    },
}

/// Which streams of which process, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Empty for the container itself.
    #[serde(default)]
    pub exec_id: String,
    /// What the client sends goes to stdin.
    #[serde(default)]
    pub stdin: bool,
    /// Send stdout (with a terminal: everything, raw).
    #[serde(default)]
    pub stdout: bool,
    /// Send stderr.
    #[serde(default)]
    pub stderr: bool,
    /// First send what the log holds already (`logs=1`), without a gap to what follows.
    #[serde(default)]
    pub logs: bool,
    /// Stay and send what comes; otherwise close after `logs`.
    #[serde(default)]
    pub stream: bool,
    /// The key sequence that detaches the client; empty: none.
    #[serde(default)]
    pub detach_keys: Vec<u8>,
    /// What the client had sent already (base64 would cost more than it saves: these are a few bytes).
    #[serde(default)]
    pub early_stdin: Vec<u8>,
}

/// What of the log, and in which shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Which records, and how they are shown.
    pub options: LogOptions,
    /// In chunks of HTTP/1.1 (RFC 9112, section 7.1), the last one included; otherwise the end is the connection's.
    #[serde(default)]
    pub chunked: bool,
}

/// The shim's answer, one JSON line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, or what was asked for follows.
    Ok,
    /// Not done, and why.
    Error(String),
}
