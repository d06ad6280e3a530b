//! `--network NAME` or `--network name=…,alias=…,ip=…`.

use std::collections::BTreeMap;

use super::csv;
use crate::go;

/// One network to join, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// Name, id, or a mode such as `host`.
    pub target: String,
    /// Names for the container on this network.
    pub aliases: Vec<String>,
    /// Options for the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Links, from `--link`.
    pub links: Vec<String>,
    /// IPv4 address asked for.
    pub ipv4: String,
    /// IPv6 address asked for.
    pub ipv6: String,
    /// Link-local addresses asked for.
    pub link_local_ips: Vec<String>,
    /// Hardware address asked for.
    pub mac: String,
    /// Which network gives the default gateway: the highest.
    pub gw_priority: i64,
}

/// Whether `target` names a network and not one of the modes.
pub fn is_user_defined(target: &str) -> bool {
    !matches!(target, "default" | "bridge" | "host" | "none") && !is_container(target)
}

/// Whether `target` is `container:…`.
pub fn is_container(target: &str) -> bool {
    target == "container" || target.starts_with("container:")
}

/// Whether the long form is meant: somewhere `word=word`.
fn is_long(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('=')
        .any(|(at, _)| text[..at].ends_with(word) && text[at + 1..].starts_with(word))
}

/// Reads a network.
///
/// # Errors
/// An unknown key, no name, or a bad value.
pub fn parse(text: &str) -> Result<Attachment, String> {
    let mut network = Attachment::default();
    if !is_long(text) {
        text.clone_into(&mut network.target);
        return Ok(network);
    }
    for field in csv::fields(text)? {
        let lower = field.to_lowercase();
        let (key, value) = lower.split_once('=').unwrap_or(("", ""));
        if key.is_empty() {
            return Err(format!("invalid field {field}"));
        }
        let value = value.trim().to_owned();
        match key.trim() {
            "name" => network.target = value,
            "alias" => network.aliases.push(value),
            "ip" => network.ipv4 = value,
            "ip6" => network.ipv6 = value,
            "mac-address" => network.mac = value,
            "link-local-ip" => network.link_local_ips.push(value),
            "driver-opt" => {
                let (key, value) = value
                    .split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .ok_or("invalid key value pair format in driver options")?;
                network.driver_opts.insert(key.trim().to_owned(), value.trim().to_owned());
            }
            "gw-priority" => {
                network.gw_priority = go::atoi(&value)
                    .map_err(|fault| format!("invalid gw-priority ({value}): {}", fault.text()))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_word_is_a_name() {
        assert_eq!(parse("net").unwrap().target, "net");
        assert_eq!(parse("name=").unwrap().target, "name=");
    }

    #[test]
    fn the_long_form_is_read_in_lower_case() {
        let network = parse("name=N,alias=a,ALIAS=B,gw-priority=3").unwrap();
        assert_eq!((network.target.as_str(), network.gw_priority), ("n", 3));
        assert_eq!(network.aliases, ["a", "b"]);
        assert_eq!(parse("bogus=1"), Err("invalid field key bogus".into()));
    }
}
