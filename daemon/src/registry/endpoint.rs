//! Where a registry is: its mirrors, its scheme, and whether its certificate counts.

use std::{net::IpAddr, path::PathBuf};

use super::{Error, proxy::Proxies};

/// The domain that names without one have.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// Where that domain's registry is.
const DEFAULT_HOST: &str = "registry-1.docker.io";

/// What the client was told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `registry-mirrors`: tried first, for Docker Hub alone.
    pub mirrors: Vec<String>,
    /// `insecure-registries`: `host`, `host:port` or a network.
    pub insecure: Vec<String>,
    /// Directories with one directory per `host:port`.
    pub certificates: Vec<PathBuf>,
    /// How we introduce ourselves.
    pub user_agent: String,
}

/// One place that a repository can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `host[:port]`
    pub authority: String,
    /// Before `/v2/`; mostly empty.
    pub prefix: String,
    /// The certificate must be good.
    pub verify: bool,
    /// It stands for another registry, whose credentials are not for it.
    pub mirror: bool,
}

impl Endpoint {
    /// Returns the address of a path below the API's root.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{}/v2/{path}", self.scheme, self.authority, self.prefix)
    }
}

impl Config {
    /// Returns the places of a domain's registry, in the order to try; mirrors only where they will do.
    ///
    /// # Errors
    /// [`Error::Config`] for a mirror that is no address.
    pub fn endpoints(&self, domain: &str, mirrors: bool) -> Result<Vec<Endpoint>, Error> {
        let mut found = Vec::new();
        if mirrors && domain == DEFAULT_DOMAIN {
            for mirror in &self.mirrors {
                found.push(self.mirror(mirror)?);
            }
        }
        let authority = if domain == DEFAULT_DOMAIN { DEFAULT_HOST } else { domain };
        found.extend(self.own(authority));
        Ok(found)
    }

    fn own(&self, authority: &str) -> Vec<Endpoint> {
        let one = |scheme, verify| Endpoint {
            scheme,
            authority: authority.to_owned(),
            prefix: String::new(),
            verify,
            mirror: false,
        };
        match self.is_insecure(authority) {
            true => vec![one("https", false), one("http", false)],
            false => vec![one("https", true)],
        }
    }

    fn mirror(&self, text: &str) -> Result<Endpoint, Error> {
        let wrong =
            || Error::Config(format!("invalid mirror: {text:?} is no http or https address"));
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme {
            "https" => "https",
            "http" => "http",
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let verify = !self.is_insecure(authority);
        let authority = authority.to_owned();
        Ok(Endpoint { scheme, authority, prefix, verify, mirror: true })
    }

    /// Loopback always is, as dockerd has it.
    pub fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|entry| {
            entry == authority
                || entry == host
                || address.is_some_and(|address| is_within(address, entry))
        })
    }

    /// Returns the directory with the certificates of a host, if there is one.
    pub fn certificates_of(&self, authority: &str) -> Option<PathBuf> {
        let name = authority.rsplit_once(':').map_or(authority, |_| authority);
        self.certificates.iter().map(|dir| dir.join(name)).find(|dir| dir.is_dir())
    }

    /// Returns the environment's proxies.
    pub fn proxies() -> Proxies {
        Proxies::from_environment()
    }
}

fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// Returns whether an address is in `network/length`.
pub fn is_within(address: IpAddr, network: &str) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let Ok(length) = length.parse::<u32>() else { return false };
    match (address, base.parse::<IpAddr>()) {
        (IpAddr::V4(address), Ok(IpAddr::V4(base))) if length <= 32 => {
            let shift = 32 - length;
            u64::from(address.to_bits()) >> shift == u64::from(base.to_bits()) >> shift
        }
        (IpAddr::V6(address), Ok(IpAddr::V6(base))) if length <= 128 => {
            length == 0 || (address.to_bits() ^ base.to_bits()) >> (128 - length) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            mirrors: vec!["https://m.example/hub/".into()],
            insecure: vec!["10.0.0.0/8".into(), "plain.example:5000".into()],
            ..Config::default()
        }
    }

    #[track_caller]
    fn check(domain: &str, expected: &[&str]) {
        let found = config().endpoints(domain, true).unwrap();
        let urls: Vec<String> = found.iter().map(|endpoint| endpoint.url("")).collect();
        assert_eq!(urls, expected, "{domain}");
    }

    #[test]
    fn mirrors_come_first_and_for_the_hub_alone() {
        check("docker.io", &["https://m.example/hub/v2/", "https://registry-1.docker.io/v2/"]);
        check("q.example", &["https://q.example/v2/"]);
    }

    #[test]
    fn loopback_and_what_was_declared_may_be_without_tls() {
        check("localhost:5000", &["https://localhost:5000/v2/", "http://localhost:5000/v2/"]);
        check("[::1]:5", &["https://[::1]:5/v2/", "http://[::1]:5/v2/"]);
        check("10.1.1.1:5", &["https://10.1.1.1:5/v2/", "http://10.1.1.1:5/v2/"]);
        check("plain.example", &["https://plain.example/v2/"]);
        check(
            "plain.example:5000",
            &["https://plain.example:5000/v2/", "http://plain.example:5000/v2/"],
        );
    }

    #[test]
    fn a_mirror_that_is_no_address_is_refused() {
        for wrong in ["m.example", "ftp://m", "https://", "https://u:p@m"] {
            let config = Config { mirrors: vec![wrong.into()], ..Config::default() };
            assert!(config.endpoints("docker.io", true).is_err(), "{wrong}");
        }
    }
}
