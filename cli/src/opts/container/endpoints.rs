//! Which networks the container joins, and how.

use std::collections::BTreeMap;

use cleat_proto::docker::container::{EndpointIpamConfig, EndpointSettings};

use crate::flags::Flags;
use crate::opts::{address, network};

/// By the network's name.
pub type Endpoints = BTreeMap<String, Option<EndpointSettings>>;

/// Makes endpoints of `--network` and of the flags that speak of the first one.
///
/// # Errors
/// Networks or flags that contradict each other.
pub fn read(flags: &Flags, mut networks: Vec<network::Attachment>) -> Result<Endpoints, String> {
    let mut endpoints = Endpoints::new();
    if networks.is_empty() {
        let mut attachment = network::Attachment { target: "default".into(), ..Default::default() };
        apply_flags(flags, &mut attachment)?;
        endpoints.insert("default".into(), Some(endpoint(attachment)?));
        return Ok(endpoints);
    }
    let count = networks.len();
    let any_user = networks.iter().any(|network| network::is_user_defined(&network.target));
    let any_mode = networks.iter().any(|network| !network::is_user_defined(&network.target));
    for (index, mut attachment) in networks.drain(..).enumerate() {
        if index == 0 {
            apply_flags(flags, &mut attachment)?;
        }
        let target = attachment.target.clone();
        let endpoint = endpoint(attachment)?;
        if endpoints.contains_key(&target) {
            return Err(format!(
                "network {} is specified multiple times",
                crate::go::quote(&target)
            ));
        }
        if count > 1 || endpoint != EndpointSettings::default() {
            endpoints.insert(target, Some(endpoint));
        }
    }
    if any_user && any_mode {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    Ok(endpoints)
}

/// The address that old daemons look for beside the endpoints.
pub fn mac_address(flags: &Flags, endpoints: &Endpoints, network_mode: &str) -> String {
    let first = endpoints.get(network_mode).and_then(Option::as_ref);
    first.map_or_else(|| flags.text("mac-address").into(), |endpoint| endpoint.mac_address.clone())
}

fn apply_flags(flags: &Flags, network: &mut network::Attachment) -> Result<(), String> {
    let conflict = |given: bool, flag: &str, also: bool, name: &str| {
        if given && also {
            return Err(format!(
                "conflicting options: cannot specify both --{flag} and per-network {name}"
            ));
        }
        Ok(())
    };
    let (aliases, links, local) =
        (flags.list("network-alias"), flags.list("link"), flags.list("link-local-ip"));
    let (ip, ip6, mac) = (flags.text("ip"), flags.text("ip6"), flags.text("mac-address"));
    conflict(!network.aliases.is_empty(), "network-alias", !aliases.is_empty(), "alias")?;
    conflict(!network.links.is_empty(), "link", !links.is_empty(), "links")?;
    conflict(!network.ipv4.is_empty(), "ip", !ip.is_empty(), "IPv4 address")?;
    conflict(!network.ipv6.is_empty(), "ip6", !ip6.is_empty(), "IPv6 address")?;
    conflict(!network.mac.is_empty(), "mac-address", !mac.is_empty(), "MAC address")?;
    conflict(
        !network.link_local_ips.is_empty(),
        "link-local-ip",
        !local.is_empty(),
        "link-local IP addresses",
    )?;
    if !aliases.is_empty() {
        network.aliases = aliases;
    }
    if network::is_user_defined(&network.target) && !links.is_empty() {
        network.links = links;
    }
    for (field, value) in
        [(&mut network.ipv4, ip), (&mut network.ipv6, ip6), (&mut network.mac, mac)]
    {
        if !value.is_empty() {
            value.clone_into(field);
        }
    }
    if !local.is_empty() {
        network.link_local_ips = local;
    }
    Ok(())
}

fn endpoint(network: network::Attachment) -> Result<EndpointSettings, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".into());
    }
    if !network::is_user_defined(&network.target) {
        if !network.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".into()
            );
        }
        if !network.links.is_empty() {
            return Err("links are only supported for user-defined networks".into());
        }
    }
    if !network.mac.is_empty() && !address::is_mac(&network.mac) {
        return Err(format!("{} is not a valid mac address", network.mac));
    }
    let asked =
        !network.ipv4.is_empty() || !network.ipv6.is_empty() || !network.link_local_ips.is_empty();
    Ok(EndpointSettings {
        ipam_config: asked.then(|| EndpointIpamConfig {
            ipv4_address: network.ipv4,
            ipv6_address: network.ipv6,
            link_local_ips: Some(network.link_local_ips).filter(|ips| !ips.is_empty()),
        }),
        links: Some(network.links).filter(|links| !links.is_empty()),
        aliases: Some(network.aliases).filter(|aliases| !aliases.is_empty()),
        mac_address: network.mac,
        driver_opts: Some(network.driver_opts).filter(|opts| !opts.is_empty()),
        gw_priority: network.gw_priority,
        ..EndpointSettings::default()
    })
}
