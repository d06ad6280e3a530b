//! `GET /containers/json`: Engine API v1.51, ContainerSummary. Borrowed from the containers themselves: a list may be long.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::container::EndpointSettings;

/// One container of the list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Summary<'a> {
    pub id: &'a str,
    pub names: [String; 1],
    pub image: &'a str,
    #[serde(rename = "ImageID")]
    pub image_id: &'a str,
    pub command: Cow<'a, str>,
    /// Seconds since the epoch.
    pub created: i64,
    pub ports: Vec<Port<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_rw: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_root_fs: i64,
    pub labels: &'a BTreeMap<String, String>,
    pub state: &'a str,
    pub status: String,
    pub host_config: SummaryHostConfig<'a>,
    pub network_settings: SummaryNetworks<'a>,
    pub mounts: Vec<MountPoint<'a>>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// What the list shows of `HostConfig`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct SummaryHostConfig<'a> {
    pub network_mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// What the list shows of the networks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct SummaryNetworks<'a> {
    pub networks: Cow<'a, BTreeMap<String, EndpointSettings>>,
}

/// An exposed or published port.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Port<'a> {
    #[serde(rename = "IP", skip_serializing_if = "str::is_empty")]
    pub ip: &'a str,
    pub private_port: u16,
    #[serde(skip_serializing_if = "is_no_port")]
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub protocol: &'a str,
}

fn is_no_port(port: &u16) -> bool {
    *port == 0
}

/// A mount as list and inspect show it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct MountPoint<'a> {
    #[serde(rename = "Type")]
    pub kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    pub source: Cow<'a, str>,
    pub destination: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub driver: &'a str,
    pub mode: &'a str,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: &'a str,
}
