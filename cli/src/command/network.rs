//! `network create`, `connect`, `disconnect`, `ls`, `rm`: thin, the daemon decides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cleat_proto::docker::container::{EndpointIpamConfig, EndpointSettings};
use serde::Serialize;

use super::{filter_query, handler, list, short_id};
use crate::cli::{Arity, Call, Command};
use crate::client::{Query, escape};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::filter::Filters;
use crate::opts::pairs_to_map;
use crate::output::time;
use crate::print;
use crate::value::{Record, Value};

pub static CREATE: Command = Command {
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    names: "",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[
        flag("attachable", Kind::Bool, "Let containers be attached by hand").since("1.25"),
        flag("aux-address", Kind::Map, "Address that the driver must not give away"),
        flag("config-from", Kind::Text, "Network to take the configuration from").since("1.30"),
        flag("config-only", Kind::Bool, "Make a configuration for other networks").since("1.30"),
        short('d', "driver", Kind::Text, "Driver that makes it").default("bridge"),
        flag("gateway", Kind::Strings, "Gateway of a subnet"),
        flag("ingress", Kind::Bool, "Make it the network of the routing mesh").since("1.29"),
        flag("internal", Kind::Bool, "Let nothing in or out"),
        flag("ip-range", Kind::Strings, "Range to give addresses from"),
        flag("ipam-driver", Kind::Text, "Driver for the addresses").default("default"),
        flag("ipam-opt", Kind::Map, "Option for the driver of addresses"),
        flag("ipv4", Kind::Bool, "Give IPv4 addresses").default("true"),
        flag("ipv6", Kind::Bool, "Give IPv6 addresses"),
        flag("label", Kind::Label, "Label"),
        short('o', "opt", Kind::Map, "Option for the driver"),
        flag("scope", Kind::Text, "Scope of the network").since("1.30"),
        flag("subnet", Kind::Strings, "Subnet as CIDR"),
    ]],
    run: handler!(create),
};

pub static CONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    names: "",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[&[
        flag("alias", Kind::Strings, "Additional name on the network"),
        flag("driver-opt", Kind::Strings, "Option for the driver"),
        flag("gw-priority", Kind::Int, "The network with the highest gives the gateway"),
        flag("ip", Kind::Text, "IPv4 address"),
        flag("ip6", Kind::Text, "IPv6 address"),
        flag("link", Kind::Link, "Link to another container"),
        flag("link-local-ip", Kind::Strings, "Link-local address"),
    ]],
    run: handler!(connect),
};

pub static DISCONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    names: "",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[&[short('f', "force", Kind::Bool, "Do it whatever state the container is in")]],
    run: handler!(disconnect),
};

pub static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List networks",
    names: "network ls, network list",
    arity: Arity::None,
    options_first: false,
    flags: &[&[
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        list::FORMAT,
        list::NO_TRUNC,
        short('q', "quiet", Kind::Bool, "Print ids only"),
    ]],
    run: handler!(ls),
};

pub static RM: Command = Command {
    usage: "NETWORK [NETWORK...]",
    about: "Remove networks",
    names: "network rm, network remove",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[short('f', "force", Kind::Bool, "Do not complain about missing ones")]],
    run: handler!(rm),
};

/// One subnet. (Engine API, IPAMConfig.)
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Subnet {
    #[serde(rename = "Subnet", skip_serializing_if = "String::is_empty")]
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    range: String,
    #[serde(rename = "Gateway", skip_serializing_if = "String::is_empty")]
    gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: String,
    options: BTreeMap<String, String>,
    config: Vec<Subnet>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

/// The body of `POST /networks/create`. (Engine API, NetworkCreate.)
#[derive(Serialize)]
struct CreateRequest {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "CheckDuplicate", skip_serializing_if = "Option::is_none")]
    check_duplicate: Option<bool>,
    #[serde(rename = "Driver")]
    driver: String,
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    #[serde(rename = "Internal")]
    internal: bool,
    #[serde(rename = "Attachable")]
    attachable: bool,
    #[serde(rename = "Ingress")]
    ingress: bool,
    #[serde(rename = "ConfigOnly")]
    config_only: bool,
    #[serde(rename = "ConfigFrom")]
    config_from: Option<ConfigFrom>,
    #[serde(rename = "Options")]
    options: BTreeMap<String, String>,
    #[serde(rename = "Labels")]
    labels: BTreeMap<String, String>,
}

async fn create(call: Call) -> Outcome {
    let flags = &call.flags;
    let config = subnets(
        flags.list("subnet"),
        &flags.list("ip-range"),
        &flags.list("gateway"),
        &pairs_to_map(&flags.list("aux-address")),
    )?;
    let client = call.client()?;
    let old = crate::client::older(&client.version().await, "1.44");
    let given = |name: &str| flags.changed(name).then(|| flags.on(name));
    let from = flags.text("config-from");
    let request = CreateRequest {
        name: call.arg(0).into(),
        check_duplicate: old.then_some(true),
        driver: flags.text("driver").into(),
        scope: flags.text("scope").into(),
        ipv4: given("ipv4"),
        ipv6: given("ipv6"),
        ipam: Ipam {
            driver: flags.text("ipam-driver").into(),
            options: pairs_to_map(&flags.list("ipam-opt")),
            config,
        },
        internal: flags.on("internal"),
        attachable: flags.on("attachable"),
        ingress: flags.on("ingress"),
        config_only: flags.on("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigFrom { network: from.into() }),
        options: pairs_to_map(&flags.list("opt")),
        labels: pairs_to_map(&flags.list("label")),
    };
    let answer = client.post_json_for("/networks/create", &Query::default(), &request).await?;
    print::line(answer.at("Id").text());
    Ok(())
}

/// Puts ranges, gateways and reserved addresses to the subnets they lie in.
fn subnets(
    subnets: Vec<String>,
    ranges: &[String],
    gateways: &[String],
    reserved: &BTreeMap<String, String>,
) -> Result<Vec<Subnet>, String> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut found: Vec<Subnet> = Vec::new();
    for subnet in subnets {
        for other in &found {
            if contains(&subnet, &other.subnet)? || contains(&other.subnet, &subnet)? {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
        }
        found.push(Subnet { subnet, ..Subnet::default() });
    }
    for range in ranges {
        parse_cidr(range)?;
        place(
            &mut found,
            range,
            |subnet| &mut subnet.range,
            "range",
            |old, subnet| {
                format!(
                    "cannot configure multiple ranges ({range}, {old}) on the same subnet ({subnet})"
                )
            },
        )?;
    }
    for gateway in gateways {
        place(
            &mut found,
            gateway,
            |subnet| &mut subnet.gateway,
            "gateway",
            |old, subnet| {
                format!(
                    "cannot configure multiple gateways ({gateway}, {old}) for the same subnet ({subnet})"
                )
            },
        )?;
    }
    for (name, address) in reserved {
        let mut matched = false;
        for subnet in &mut found {
            if contains(&subnet.subnet, address)? {
                subnet.auxiliary.insert(name.clone(), address.clone());
                matched = true;
            }
        }
        if !matched {
            return Err(format!("no matching subnet for aux-address {address}"));
        }
    }
    Ok(found)
}

fn place(
    subnets: &mut [Subnet],
    text: &str,
    field: impl Fn(&mut Subnet) -> &mut String,
    what: &str,
    twice: impl Fn(&str, &str) -> String,
) -> Result<(), String> {
    let mut matched = false;
    for subnet in subnets {
        if !contains(&subnet.subnet, text)? {
            continue;
        }
        let name = subnet.subnet.clone();
        let slot = field(subnet);
        if !slot.is_empty() {
            return Err(twice(slot, &name));
        }
        text.clone_into(slot);
        matched = true;
    }
    if matched { Ok(()) } else { Err(format!("no matching subnet for {what} {text}")) }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let invalid = || format!("invalid CIDR address: {text}");
    let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let bits: u8 = bits.parse().map_err(|_| invalid())?;
    let limit = if address.is_ipv4() { 32 } else { 128 };
    if bits > limit { Err(invalid()) } else { Ok((address, bits)) }
}

/// Whether an address, or the address of a subnet, lies in `subnet`.
fn contains(subnet: &str, text: &str) -> Result<bool, String> {
    let (network, bits) =
        parse_cidr(subnet).map_err(|reason| format!("invalid subnet: {reason}"))?;
    let address = if text.contains('/') {
        parse_cidr(text)?.0
    } else {
        match text.parse() {
            Ok(address) => address,
            Err(_) => return Ok(false),
        }
    };
    Ok(match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    })
}

/// The path of a network's resource.
fn path(name: &str, rest: &str) -> Outcome<String> {
    let name = name.trim();
    if name.is_empty() {
        return Err("invalid network name or ID: value is empty".into());
    }
    Ok(format!("/networks/{}{rest}", escape(name, true)))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectRequest<'a> {
    container: &'a str,
    endpoint_config: EndpointSettings,
}

async fn connect(call: Call) -> Outcome {
    let flags = &call.flags;
    let mut driver_opts = BTreeMap::new();
    for word in flags.list("driver-opt") {
        let pair = word.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let (key, value) = pair.ok_or("invalid key/value pair format in driver options")?;
        driver_opts.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let endpoint_config = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: flags.text("ip").into(),
            ipv6_address: flags.text("ip6").into(),
            link_local_ips: flags.slice("link-local-ip"),
        }),
        links: flags.slice("link"),
        aliases: Some(flags.list("alias")),
        driver_opts: Some(driver_opts),
        gw_priority: flags.int("gw-priority"),
        ..EndpointSettings::default()
    };
    let request = ConnectRequest { container: call.arg(1), endpoint_config };
    call.client()?.post_json(&path(call.arg(0), "/connect")?, &Query::default(), &request).await?;
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DisconnectRequest<'a> {
    container: &'a str,
    force: bool,
}

async fn disconnect(call: Call) -> Outcome {
    let request = DisconnectRequest { container: call.arg(1), force: call.flags.on("force") };
    call.client()?
        .post_json(&path(call.arg(0), "/disconnect")?, &Query::default(), &request)
        .await?;
    Ok(())
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

async fn ls(call: Call) -> Outcome {
    let filters = Filters::new(&call.flags.list("filter"));
    let answer = call.client()?.get("/networks", &filter_query(&filters)).await?;
    let formats = list::Formats {
        configured: &call.app.config.networks_format,
        table: "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        quiet_table: "{{.ID}}",
        raw: "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n",
        quiet_raw: "network_id: {{.ID}}",
    };
    let truncate = !call.flags.on("no-trunc");
    let networks = list::by_name(answer.items());
    let rows: Vec<Value> = networks.into_iter().map(|network| row(network, truncate)).collect();
    list::print(&call, &formats, HEADERS, &rows)
}

/// A network as templates see it. (Engine API, NetworkList.)
fn row(network: &Value, truncate: bool) -> Value {
    let id = network.at("Id").text();
    let labels = network.at("Labels");
    let fields = vec![
        ("ID", Value::from(if truncate { short_id(id) } else { id })),
        ("Name", network.at("Name").text().into()),
        ("Driver", network.at("Driver").text().into()),
        ("Scope", network.at("Scope").text().into()),
        ("IPv4", network.at("EnableIPv4").bool().to_string().into()),
        ("IPv6", network.at("EnableIPv6").bool().to_string().into()),
        ("Internal", network.at("Internal").bool().to_string().into()),
        ("Labels", super::list_containers::joined_labels(labels).into()),
        ("CreatedAt", time::go_string_of(network.at("Created").text()).into()),
    ];
    let mut record = Record::row("*network.networkContext", fields);
    record.labels = Some(labels.texts());
    record.into()
}

async fn rm(call: Call) -> Outcome {
    let client = call.client()?;
    let mut failed = false;
    for name in &call.args {
        match client.delete(&path(name, "")?, &Query::default()).await {
            Ok(_) => print::line(name),
            Err(error) if call.flags.on("force") && error.is_not_found() => {}
            Err(error) => {
                print::err(&format!("{error}\n"));
                failed = true;
            }
        }
    }
    if failed { Err(Error::Message("exit status 1".into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_go_to_the_subnet_they_lie_in() {
        let found = subnets(
            vec!["10.1.0.0/24".into(), "10.2.0.0/24".into()],
            &["10.2.0.128/25".into()],
            &["10.1.0.9".into()],
            &BTreeMap::from([("a".into(), "10.2.0.7".into())]),
        )
        .unwrap();
        assert_eq!((found[0].gateway.as_str(), found[0].range.as_str()), ("10.1.0.9", ""));
        assert_eq!((found[1].gateway.as_str(), found[1].range.as_str()), ("", "10.2.0.128/25"));
        assert_eq!(found[1].auxiliary["a"], "10.2.0.7");
    }

    #[test]
    fn what_fits_nowhere_is_refused() {
        let none = BTreeMap::new();
        assert_eq!(
            subnets(vec!["bad".into()], &[], &["1.1.1.1".into()], &none),
            Err("invalid subnet: invalid CIDR address: bad".into())
        );
        assert_eq!(
            subnets(Vec::new(), &[], &["10.0.0.1".into()], &none),
            Err("every ip-range or gateway must have a corresponding subnet".into())
        );
    }
}
