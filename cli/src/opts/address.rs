//! IP and hardware addresses, search domains, and entries for `/etc/hosts`.

use std::net::IpAddr;

use crate::go;

/// Checks an IP address and writes it in its usual form.
///
/// # Errors
/// Anything else.
pub fn validate_ip(value: &str) -> Result<String, String> {
    let address: IpAddr = value
        .trim()
        .parse()
        .map_err(|_| format!("IP address is not correctly formatted: {value}"))?;
    Ok(match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
        IpAddr::V4(v4) => v4.to_string(),
    })
}

/// Whether `value` is a hardware address: 6, 8 or 20 bytes, with colons, dashes or dots between.
pub fn is_mac(value: &str) -> bool {
    let value = value.trim();
    let (separator, width) = match value.as_bytes().get(2) {
        Some(b':') => (':', 2),
        Some(b'-') => ('-', 2),
        _ => ('.', 4),
    };
    let parts: Vec<&str> = value.split(separator).collect();
    let bytes = parts.len() * width / 2;
    matches!(bytes, 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == width && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Checks a search domain; `.` means none at all.
///
/// # Errors
/// What is no domain name.
pub fn validate_search_domain(value: &str) -> Result<String, String> {
    let value = value.trim_matches(' ');
    if value == "." {
        return Ok(value.to_owned());
    }
    let name = value.trim_end().trim_end_matches('.');
    let label = |label: &str| {
        let inner = label.strip_prefix(':').unwrap_or(label);
        !inner.is_empty()
            && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !inner.starts_with('-')
            && !inner.ends_with('-')
    };
    if !value.bytes().any(|byte| byte.is_ascii_alphabetic())
        || name.len() >= 255
        || !name.split('.').all(label)
    {
        return Err(format!("{value} is not a valid domain"));
    }
    Ok(name.to_owned())
}

/// Checks `HOST:IP` or `HOST=IP`, and writes it with a colon.
///
/// # Errors
/// No host, or no address.
pub fn validate_extra_host(value: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {}", go::quote(value));
    let (host, address) =
        value.split_once('=').or_else(|| value.split_once(':')).ok_or_else(bad)?;
    if host.is_empty() || host.contains(':') {
        return Err(bad());
    }
    let address = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| !inner.is_empty())
        .unwrap_or(address);
    if address != "host-gateway" {
        validate_ip(address)
            .map_err(|_| format!("invalid IP address in add-host: {}", go::quote(address)))?;
    }
    Ok(format!("{host}:{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_take_either_sign_and_brackets() {
        assert_eq!(validate_extra_host("six:::1"), Ok("six:::1".into()));
        assert_eq!(validate_extra_host("v6=[::2]"), Ok("v6:::2".into()));
        assert_eq!(validate_extra_host("a"), Err("bad format for add-host: \"a\"".into()));
        assert_eq!(validate_extra_host("a:b"), Err("invalid IP address in add-host: \"b\"".into()));
    }

    #[test]
    fn search_domains_are_names() {
        assert_eq!(validate_search_domain("a.example."), Ok("a.example".into()));
        assert_eq!(validate_search_domain("1.2"), Err("1.2 is not a valid domain".into()));
    }

    #[test]
    fn hardware_addresses_have_three_forms() {
        assert!(is_mac("02:42:0a:00:00:07"));
        assert!(is_mac("0242.0a00.0007"));
        assert!(!is_mac("02:42"));
    }
}
