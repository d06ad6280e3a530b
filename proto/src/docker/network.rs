//! Networks: Engine API v1.51, `Network`, `NetworkCreateRequest` and their kin. Field order is Docker's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::EndpointSettings;

/// One network, as inspect and list show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Network {
    pub name: String,
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigFrom,
    pub config_only: bool,
    /// By id; empty in a list.
    pub containers: BTreeMap<String, Endpoint>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Where its addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Option<Vec<IpamConfig>>,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct IpamConfig {
    pub subnet: String,
    pub gateway: String,
}

/// The network that lends its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct ConfigFrom {
    pub network: String,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Endpoint {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    /// With its prefix length.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// What a client asks for when it creates a network: as much as is looked at today.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename = "network.CreateRequest", rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CreateRequest {
    pub name: String,
    pub driver: String,
    #[serde(rename = "IPAM")]
    pub ipam: Option<CreateIpam>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
}

/// The addresses of a network that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CreateIpam {
    pub config: Option<Vec<CreateIpamConfig>>,
}

/// One subnet of it, as the client wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CreateIpamConfig {
    pub subnet: String,
    #[serde(rename = "IPRange")]
    pub ip_range: String,
    pub gateway: String,
    /// By name.
    pub auxiliary_addresses: Option<BTreeMap<String, String>>,
}

/// What a client asks for when it connects a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "network.ConnectOptions", rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ConnectOptions {
    pub container: String,
    pub endpoint_config: Option<EndpointSettings>,
}

/// What a client asks for when it disconnects a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename = "network.DisconnectOptions", rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct DisconnectOptions {
    pub container: String,
    pub force: bool,
}

/// The answer to a prune.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Pruned {
    pub networks_deleted: Option<Vec<String>>,
}
