//! Networks: the default bridge, `host`, `none`; addresses, ports and the firewall table, all over netlink.
//!
//! What a container got is in its record and nowhere else: at a restart of the daemon [`Controller::restore`] learns
//! addresses and ports from the records of those that live, and makes the kernel agree.

mod bridge;
pub mod controller;
mod files;
mod firewall;
mod ipam;
mod ipam_config;
mod link;
mod pool;
mod port_mapping;
mod request;
mod subnet;

pub use controller::{Attach, Controller, Error, Live, Mode, NetworkInfo, Published, Sandbox};
pub use files::{check_extra_hosts, check_names};
pub use ipam_config::check as check_ipam;
pub use port_mapping::{Port, Protocol};
pub use request::check as check_endpoints;

/// What the daemon was told about networks.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The default bridge's name: `cleat0` unless `--bridge`; `None` with `--bridge none`.
    pub bridge: Option<String>,
    /// `--bip`: the bridge's address with its prefix length; chosen among Docker's pools if absent.
    pub bip: Option<String>,
    /// `--mtu`; 0 is the default.
    pub mtu: u32,
    /// The nftables table is `cleat[-suffix]`.
    pub suffix: String,
    /// `--dns`, `--dns-search`, `--dns-opt`.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// resolv.conf options.
    pub dns_opts: Vec<String>,
    /// `--ip`: where published ports listen unless they say; 0.0.0.0.
    pub default_host_ip: String,
    /// `--icc`.
    pub icc: bool,
}
