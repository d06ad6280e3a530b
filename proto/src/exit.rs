//! `exit.json`, which the shim writes into its state directory before anybody hears of an exit.

use serde::{Deserialize, Serialize};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "exit.json";

/// How a container's first process ended, for good: no restart follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, or 128 + the signal.
    pub status: u32,
    /// When, in nanoseconds since the epoch.
    pub exited_at_nanos: i64,
    /// Whether the kernel's OOM killer met a process of the container during this run.
    pub oom_killed: bool,
    /// The pid it had in the host's namespace; 0 if it never ran.
    pub pid: u32,
    /// How often the restart policy has restarted the container since the daemon started it.
    pub restart_count: u32,
    /// Why the container could not be (re)started, if that is how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A Stop or a Kill that suppresses restarts came before: somebody wanted it to end.
    #[serde(default)]
    pub by_hand: bool,
}
