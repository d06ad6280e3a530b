//! What the engine is asked and what it answers, as values.

use std::{collections::BTreeMap, time::Duration};

use cleat_proto::{
    docker::container::{Config, HostConfig, NetworkingConfig, RestartPolicy},
    id::ContainerId,
    platform::Platform,
};

/// A container to be made: Engine API v1.51, ContainerCreate.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// As typed, with or without the slash; generated if absent.
    pub name: Option<String>,
    /// `os[/arch[/variant]]`; the host's if absent.
    pub platform: Option<Platform>,
    /// `Config`.
    pub config: Config,
    /// `HostConfig`.
    pub host_config: HostConfig,
    /// `NetworkingConfig`.
    pub networking: NetworkingConfig,
}

/// A container that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// How long a stop may take before force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// SIGKILL after this time; zero is at once.
    After(Duration),
    /// Never SIGKILL.
    Never,
}

impl Timeout {
    /// Reads the API's seconds, where a negative number is "for ever".
    pub fn from_seconds(seconds: i64) -> Self {
        u64::try_from(seconds).map_or(Self::Never, |s| Self::After(Duration::from_secs(s)))
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopOptions {
    /// Instead of the container's own stop signal.
    pub signal: Option<i32>,
    /// Instead of the container's own timeout.
    pub timeout: Option<Timeout>,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Even if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Remove the legacy link that the reference names, not the container.
    pub link: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Until it does not run; at once if it does not.
    #[default]
    NotRunning,
    /// Until it ends the next time.
    NextExit,
    /// Until it is gone.
    Removed,
}

/// How a wait ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitOutcome {
    /// The exit code.
    pub status: u32,
    /// What went wrong with the container, if its end was no exit.
    pub error: Option<String>,
}

/// What `update` changes: Engine API v1.51, ContainerUpdate. Zero (or `None`) leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    /// Only the resource fields are read.
    pub resources: HostConfig,
    /// A new policy; an empty name changes nothing.
    pub restart_policy: RestartPolicy,
}

/// Which streams a client joins.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// What the client sends goes to stdin.
    pub stdin: bool,
    /// Send stdout.
    pub stdout: bool,
    /// Send stderr.
    pub stderr: bool,
    /// First what the log holds.
    pub logs: bool,
    /// Then what comes.
    pub stream: bool,
    /// As typed: `ctrl-p,ctrl-q`; absent is that default.
    pub detach_keys: Option<String>,
}

/// A process to be added to a container: Engine API v1.51, ContainerExec.
#[derive(Clone, Debug, Default)]
pub struct ExecConfig {
    /// The client will send stdin.
    pub attach_stdin: bool,
    /// The client wants stdout.
    pub attach_stdout: bool,
    /// The client wants stderr.
    pub attach_stderr: bool,
    /// On a terminal of its own.
    pub tty: bool,
    /// What to run.
    pub cmd: Vec<String>,
    /// Besides the container's.
    pub env: Vec<String>,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    /// With every capability.
    pub privileged: bool,
    /// Empty is the container's.
    pub working_dir: String,
    /// As typed; absent is the default.
    pub detach_keys: Option<String>,
    /// Height, width.
    pub console_size: Option<[u32; 2]>,
}

/// An exec as readers see it: Engine API v1.51, ExecInspect.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Its id.
    pub id: cleat_proto::id::ExecId,
    /// Whose.
    pub container: ContainerId,
    /// What was asked for.
    pub config: ExecConfig,
    /// Where it stands.
    pub state: ExecState,
}

/// Where an exec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// On its way.
    Starting,
    /// It runs.
    Running {
        /// Its pid in the host's namespace.
        pid: u32,
    },
    /// It ended.
    Exited {
        /// Its exit code; 126 or 127 where it could not be started.
        status: u32,
        /// The pid it had, 0 if none.
        pid: u32,
    },
}

/// What was pruned.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Ids.
    pub deleted: Vec<ContainerId>,
    /// What that freed.
    pub reclaimed_bytes: u64,
}

/// Attributes of an event, besides the ones every event of its kind has.
pub type Attributes = BTreeMap<String, String>;
