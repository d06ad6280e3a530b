//! What the user asked for, as the database keeps it.

use std::collections::BTreeMap;

use cleat_proto::{
    docker::container::{Config, EndpointSettings, HostConfig, PortMap},
    id::ContainerId,
};
use serde::{Deserialize, Serialize};

use super::{health::Health, mount_point::MountPoint};

/// One container. Changes are commits; the engine's copy is replaced after one, never before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    pub id: ContainerId,
    /// Without the slash that the API puts before it.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created_at_nanos: i64,
    /// `sha256:…` of the image's configuration.
    pub image_id: String,
    /// The chain id of the image's topmost layer; `None` for an image without layers.
    pub top_layer: Option<String>,
    /// `linux/amd64`'s parts.
    pub platform: String,
    /// What is executed: entrypoint and command, put together.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// As asked for, with the image's defaults merged in.
    pub config: Config,
    /// As asked for, with the daemon's defaults filled in.
    pub host_config: HostConfig,
    /// By network name: what was asked for, and while it runs what it became.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// What is mounted where, resolved at create.
    pub mounts: Vec<MountPoint>,
    /// Where in its life the record is.
    pub phase: Phase,
    /// The last or present run.
    pub run: Run,
}

#[cfg(test)]
impl Record {
    /// A container of a test.
    pub fn of_test(name: &str) -> Self {
        Self {
            id: "a".repeat(64).parse().unwrap(),
            name: name.to_owned(),
            created_at_nanos: 1,
            image_id: String::new(),
            top_layer: None,
            platform: String::new(),
            path: "sh".into(),
            args: Vec::new(),
            config: Default::default(),
            host_config: Default::default(),
            networks: Default::default(),
            mounts: Vec::new(),
            phase: Phase::Present,
            run: Run::default(),
        }
    }
}

/// A record's life. Only `Present` is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Whole.
    Present,
    /// To be removed: the intent; recovery goes on with it.
    Removing {
        /// Its anonymous volumes too.
        volumes: bool,
    },
}

/// What is known of the last run, kept for `inspect` and for the time after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The user wants it to run: set by start, cleared by stop. Restart policies read it after a reboot.
    pub wanted: bool,
    /// A task was started and no end of it is recorded yet.
    pub open: bool,
    /// The journal entry up to which this record speaks.
    pub journal_seq: u64,
    /// Nanoseconds since the epoch; 0 is never.
    pub started_at_nanos: i64,
    /// Nanoseconds since the epoch; 0 is never.
    pub finished_at_nanos: i64,
    /// The exit code, or 128 + the signal; 126, 127 or 128 where the start failed.
    pub exit_code: u32,
    /// Whether the OOM killer met it.
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// How often the policy restarted it.
    pub restart_count: u32,
    /// Which ports were bound where.
    #[serde(default)]
    pub ports: PortMap,
    /// Where the health stands; `None` without a health check, or before the first start.
    #[serde(default)]
    pub health: Option<Health>,
    /// The network sandbox's id, empty without one.
    #[serde(default)]
    pub sandbox_id: String,
}
