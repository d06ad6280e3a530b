//! Which proxy leads to a host: `proxies` of the options, else `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, as Go's `net/http` reads them.

use std::net::IpAddr;

/// All proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<Proxy>,
    /// For `https://`.
    pub https: Option<Proxy>,
    /// Hosts, domains, networks without one.
    pub except: Vec<String>,
}

/// One proxy. Reached without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`
    pub address: String,
    /// `Basic …`, if the address had credentials.
    pub authorization: Option<String>,
}

impl Proxy {
    /// Reads `[http://][user:password@]host[:port]`; other schemes are none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => text,
        };
        let rest = rest.split('/').next().unwrap_or_default();
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        if address.is_empty() {
            return None;
        }
        let has_port =
            address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Some(Self {
            address: if has_port { address.to_owned() } else { format!("{address}:80") },
            authorization: credentials.map(|text| format!("Basic {}", STANDARD.encode(text))),
        })
    }
}

impl Proxies {
    /// Takes what was configured, and for the rest what the process's environment says.
    pub fn configured(http: Option<String>, https: Option<String>, except: Option<String>) -> Self {
        let or = |configured: Option<String>, name: &str| {
            let lower = name.to_ascii_lowercase();
            let get = || [name, &lower].into_iter().find_map(|name| std::env::var(name).ok());
            configured.filter(|text| !text.is_empty()).or_else(get)
        };
        Self::of(or(http, "HTTP_PROXY"), or(https, "HTTPS_PROXY"), or(except, "NO_PROXY"))
    }

    fn of(http: Option<String>, https: Option<String>, except: Option<String>) -> Self {
        let read = |text: Option<String>| text.as_deref().and_then(Proxy::parse);
        let except = except.unwrap_or_default();
        let except = except.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        Self {
            http: read(http),
            https: read(https),
            except: except.filter(|entry| !entry.is_empty()).collect(),
        }
    }

    /// Returns the proxy that leads to a host; the host itself is always reached directly.
    pub fn towards(&self, https: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = bare.parse::<IpAddr>().ok();
        if bare == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let excepted = |entry: &String| is_excepted(entry, &bare, address, port);
        (!self.except.iter().any(excepted)).then_some(proxy)
    }
}

fn is_excepted(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(address) = address
        && entry.contains('/')
    {
        return super::endpoint::is_within(address, entry);
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, number)) if !name.contains(':') => match number.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.strip_prefix("*.").map_or(name, |rest| rest);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(except: &str) -> Proxies {
        let some = |text: &str| Some(text.to_owned());
        Proxies::of(some("http://u:p@one"), some("two:3128"), some(except))
    }

    #[track_caller]
    fn goes(except: &str, host: &str, by_proxy: bool) {
        assert_eq!(proxies(except).towards(true, host, 443).is_some(), by_proxy, "{except} {host}");
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = proxies("");
        let plain = proxies.towards(false, "a.example", 80).unwrap();
        assert_eq!(plain.address, "one:80");
        assert_eq!(plain.authorization.as_deref(), Some("Basic dTpw"));
        assert_eq!(proxies.towards(true, "a.example", 443).unwrap().address, "two:3128");
    }

    #[test]
    fn exceptions_are_hosts_domains_and_networks() {
        goes("", "a.example", true);
        goes("", "localhost", false);
        goes("", "127.0.0.5", false);
        goes("", "[::1]", false);
        goes("*", "a.example", false);
        goes("example", "a.example", false);
        goes(".example", "a.example", false);
        goes("*.example", "a.example", false);
        goes("xample", "a.example", true);
        goes("a.example:443", "a.example", false);
        goes("a.example:80", "a.example", true);
        goes("10.0.0.0/8", "10.1.2.3", false);
        goes("10.0.0.0/8", "11.1.2.3", true);
    }
}
