//! Published and exposed ports: `[IP:][HOST[-END]]:CONTAINER[-END][/PROTO]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cleat_proto::docker::container::{Empty, PortBinding, PortMap};

use crate::go;

/// What `-p` and `--expose` become in the request.
#[derive(Debug, Default, PartialEq)]
pub struct Ports {
    /// `Config.ExposedPorts`.
    pub exposed: BTreeMap<String, Empty>,
    /// `HostConfig.PortBindings`.
    pub bindings: PortMap,
}

/// Reads all ports.
///
/// # Errors
/// In the words of docker's go-connections.
pub fn parse(publish: &[String], expose: &[String]) -> Result<Ports, String> {
    let mut ports = Ports::default();
    for text in publish {
        publish_one(&mut ports, &standard_form(text)?)?;
    }
    for text in expose {
        if text.contains(':') {
            return Err(format!("invalid port format for --expose: {text}"));
        }
        let (protocol, range) = split_protocol(text);
        let (start, end) = range_of(range).map_err(|error| {
            format!("invalid range format for --expose: {text}, error: {error}")
        })?;
        for port in start..=end {
            ports.exposed.insert(format!("{port}/{protocol}"), Empty {});
        }
    }
    Ok(ports)
}

/// `published=80,target=81,protocol=udp` in the short form.
fn standard_form(text: &str) -> Result<String, String> {
    if !text.contains('=') {
        return Ok(text.to_owned());
    }
    let mut parts = BTreeMap::from([("protocol", "tcp"), ("published", ""), ("target", "")]);
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                format!("invalid publish opts format (should be name=value but got '{field}')")
            })?;
        parts.insert(key, value);
    }
    Ok(format!("{}:{}/{}", parts["published"], parts["target"], parts["protocol"]))
}

fn publish_one(ports: &mut Ports, text: &str) -> Result<(), String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = address(parts.next().unwrap_or_default())?;
    let (protocol, container) = split_protocol(container);
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (start, end) =
        range_of(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(range_of(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    if let Some((first, last)) = host_range
        && last - first != end - start
        && start != end
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    for offset in 0..=(end - start) {
        let host_port = match host_range {
            None => String::new(),
            Some((first, last)) if start == end && first != last => format!("{first}-{last}"),
            Some((first, _)) => (first + offset).to_string(),
        };
        let port = format!("{}/{protocol}", start + offset);
        ports.exposed.insert(port.clone(), Empty {});
        let binding = PortBinding { host_ip: address.clone(), host_port };
        ports.bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    Ok(())
}

fn address(text: &str) -> Result<String, String> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| {
            format!("invalid IP address {text}: address {text}:: missing ']' in address")
        })?,
        None => text,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {bare}"));
    }
    Ok(bare.to_owned())
}

/// `80/udp` as protocol and port; tcp where none is named.
pub fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(("", _)) => ("", ""),
        _ if text.is_empty() => ("", ""),
        None => ("tcp", text),
        Some((port, rest)) => match rest.split('/').next() {
            Some("") | None => ("tcp", port),
            Some(protocol) => (protocol, port),
        },
    }
}

fn range_of(text: &str) -> Result<(u64, u64), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".into());
    }
    let number =
        |text: &str| go::parse_uint(text, 10, 16).map_err(|fault| fault.message("ParseUint", text));
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((start, end)) => {
            let (start, end) = (number(start)?, number(end)?);
            if end < start {
                return Err(format!("invalid range specified for port: {text}"));
            }
            Ok((start, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(text: &str) -> Vec<(String, String, String)> {
        let ports = parse(&[text.to_owned()], &[]).unwrap();
        let flat = ports.bindings.into_iter().flat_map(|(port, list)| {
            list.unwrap()
                .into_iter()
                .map(move |binding| (port.clone(), binding.host_ip, binding.host_port))
        });
        flat.collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, &str)]) {
        let found = bindings(text);
        let found: Vec<_> =
            found.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn ports_have_an_address_a_host_port_and_a_protocol() {
        check("80", &[("80/tcp", "", "")]);
        check("127.0.0.1::83", &[("83/tcp", "127.0.0.1", "")]);
        check("[::1]:84:84", &[("84/tcp", "::1", "84")]);
        check("8090-8091:90-91/sctp", &[("90/sctp", "", "8090"), ("91/sctp", "", "8091")]);
        check("8100-8102:85", &[("85/tcp", "", "8100-8102")]);
    }

    #[test]
    fn refusals_name_the_part_that_is_wrong() {
        for (text, expected) in [
            ("99999", "invalid containerPort: 99999"),
            ("a:80", "invalid hostPort: a"),
            (
                "80-81:90-95",
                "invalid ranges specified for container and host Ports: 90-95 and 80-81",
            ),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80:80/xyz", "invalid proto: xyz"),
            (":", "no port specified: :<empty>"),
        ] {
            assert_eq!(parse(&[text.to_owned()], &[]), Err(expected.to_owned()), "{text}");
        }
    }
}
