//! `journal`, which the shim appends to: one JSON entry a line, for a daemon that was away.
//!
//! A daemon reads it live through [`crate::shim::Hello::Watch`]; if the shim is dead, from the file.

use serde::{Deserialize, Serialize};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "journal";

/// One thing that happened to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1 without a gap.
    pub seq: u64,
    /// When, in nanoseconds since the epoch.
    pub at_nanos: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The first process runs: after Task.Start, or restarted by policy.
    Started {
        /// Its pid in the host's namespace.
        pid: u32,
        /// 0 for the daemon's own start, then counting.
        restart_count: u32,
    },
    /// The first process ended and the policy will start it again.
    Restarting {
        /// The exit code, or 128 + the signal.
        status: u32,
        /// As in [`crate::exit::Exit`].
        oom_killed: bool,
        /// How long the shim waits before it does.
        delay_millis: u64,
    },
    /// The first process ended for good; `exit.json` says the same.
    Exited {
        /// The exit code, or 128 + the signal.
        status: u32,
        /// As in [`crate::exit::Exit`].
        oom_killed: bool,
        /// As in [`crate::exit::Exit`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// As in [`crate::exit::Exit`].
        #[serde(default)]
        by_hand: bool,
    },
    /// The kernel's OOM killer met a process of the container.
    Oom,
    /// The freezer stopped it.
    Paused,
    /// The freezer let it go.
    Resumed,
    /// An exec's process ended.
    ExecExited {
        /// Which.
        exec_id: String,
        /// The exit code, or 128 + the signal.
        status: u32,
    },
    /// A client left by the detach keys.
    Detached {
        /// Empty for the container itself.
        exec_id: String,
    },
    /// A health probe begins: an exec of the shim's own.
    Probing {
        /// Which.
        exec_id: String,
    },
    /// A probe's process ended.
    ProbeExited {
        /// Which.
        exec_id: String,
        /// The exit code, or 128 + the signal.
        status: u32,
    },
    /// What a probe found, at this entry's time, and how the container stands now.
    Probed {
        /// When it began, in nanoseconds since the epoch.
        started_at_nanos: i64,
        /// The probe's exit code; -1 if it could not be started, or not be ended in time.
        exit_code: i32,
        /// What it said, or why it did not.
        output: String,
        /// Where the container's health stands.
        health: Health,
        /// How many failures there were in a row.
        failing_streak: u32,
    },
}

/// Where a container's health stands (Engine API v1.51, Health.Status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No probe has succeeded since the start, and not enough have failed.
    Starting,
    /// The last probe, or not long ago one of the last, succeeded.
    Healthy,
    /// Too many have failed, or none is made: the container is paused or has ended.
    Unhealthy,
}

impl Health {
    /// Returns the API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}
