//! `GET /containers/{id}/json` and `GET /exec/{id}/json`: Engine API v1.51, ContainerInspect, ExecInspect.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::{
    container::{Config, Empty, EndpointSettings, HostConfig, PortMap},
    summary::MountPoint,
};

/// One container, whole.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Container<'a> {
    pub id: &'a str,
    pub created: String,
    pub path: &'a str,
    pub args: &'a [String],
    pub state: State<'a>,
    pub image: &'a str,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: &'a str,
    pub platform: &'a str,
    pub mount_label: &'a str,
    pub process_label: &'a str,
    pub app_armor_profile: &'a str,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<&'a str>>,
    pub host_config: &'a HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    pub mounts: Vec<MountPoint<'a>>,
    pub config: Cow<'a, Config>,
    pub network_settings: NetworkSettings<'a>,
}

/// Where it stands.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct State<'a> {
    pub status: &'a str,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: u32,
    pub exit_code: u32,
    pub error: &'a str,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health<'a>>,
}

/// How its health stands.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Health<'a> {
    pub status: &'a str,
    pub failing_streak: u32,
    pub log: Vec<HealthcheckResult<'a>>,
}

/// What one probe found.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct HealthcheckResult<'a> {
    pub start: String,
    pub end: String,
    pub exit_code: i32,
    pub output: &'a str,
}

/// Where the storage driver keeps it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct GraphDriver {
    pub data: BTreeMap<&'static str, String>,
    pub name: &'static str,
}

/// The networks, and the first one's endpoint once more for clients from before there were several.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct NetworkSettings<'a> {
    pub bridge: &'a str,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: &'a str,
    pub sandbox_key: String,
    pub ports: PortMap,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: &'a str,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: i64,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Empty>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Empty>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: &'a str,
    pub gateway: &'a str,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: &'a str,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "IPAddress")]
    pub ip_address: &'a str,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: &'a str,
    pub mac_address: &'a str,
    pub networks: Cow<'a, BTreeMap<String, EndpointSettings>>,
}

/// One exec.
#[derive(Serialize)]
#[allow(missing_docs)]
pub struct Exec<'a> {
    #[serde(rename = "ID")]
    pub id: &'a str,
    #[serde(rename = "Running")]
    pub running: bool,
    #[serde(rename = "ExitCode")]
    pub exit_code: Option<u32>,
    #[serde(rename = "ProcessConfig")]
    pub process_config: ProcessConfig<'a>,
    #[serde(rename = "OpenStdin")]
    pub open_stdin: bool,
    #[serde(rename = "OpenStderr")]
    pub open_stderr: bool,
    #[serde(rename = "OpenStdout")]
    pub open_stdout: bool,
    #[serde(rename = "CanRemove")]
    pub can_remove: bool,
    #[serde(rename = "ContainerID")]
    pub container_id: &'a str,
    /// Bytes, in base64 as Go writes them.
    #[serde(rename = "DetachKeys")]
    pub detach_keys: String,
    #[serde(rename = "Pid")]
    pub pid: u32,
}

/// What an exec runs.
#[derive(Serialize)]
#[allow(missing_docs)]
pub struct ProcessConfig<'a> {
    pub tty: bool,
    pub entrypoint: &'a str,
    pub arguments: &'a [String],
    pub privileged: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user: &'a str,
}
