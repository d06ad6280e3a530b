//! Where a registry is: its mirrors, its scheme, and whether its certificate counts.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use super::{
    Error,
    auth::form,
    hosts::{self, Host, Trust},
    proxy::Proxies,
};

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
    /// Directories with a `hosts.toml` per `host:port`.
    pub hosts: Vec<PathBuf>,
    /// Ways around.
    pub proxies: Proxies,
    /// `max-download-attempts`: how often in a row a layer's download may bring nothing.
    pub attempts: u32,
    /// How we introduce ourselves.
    pub user_agent: String,
}

/// What a place is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Images from there.
    Pull,
    /// Images to there.
    Push,
    /// The registry itself, for what only it can tell.
    Own,
}

/// One place that a repository can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `host[:port]`
    pub authority: String,
    /// Where the API is, mostly `/v2`.
    pub root: String,
    /// It stands for another registry, whose credentials are not for it.
    pub mirror: bool,
    /// It may say what a tag stands for.
    pub resolve: bool,
    /// The registry that it stands for, where it wants to hear that.
    pub namespace: Option<String>,
    /// What `hosts.toml` says of it.
    pub trust: Option<Arc<Trust>>,
}

impl Endpoint {
    fn own(scheme: &'static str, authority: &str) -> Self {
        Self {
            scheme,
            authority: authority.to_owned(),
            root: "/v2".to_owned(),
            mirror: false,
            resolve: true,
            namespace: None,
            trust: None,
        }
    }

    /// Returns the address of a path below the API's root.
    pub fn url(&self, path: &str) -> String {
        let query = match &self.namespace {
            Some(namespace) => format!("?{}", form(&[("ns", namespace)])),
            None => String::new(),
        };
        format!("{}://{}{}/{path}{query}", self.scheme, self.authority, self.root)
    }
}

impl Config {
    /// Returns the places of a domain's registry, in the order to try; mirrors only where they will do.
    ///
    /// # Errors
    /// [`Error::Config`] for a mirror that is no address, and for what `hosts.toml` has wrong.
    pub fn endpoints(&self, domain: &str, purpose: Purpose) -> Result<Vec<Endpoint>, Error> {
        let authority = if domain == DEFAULT_DOMAIN { DEFAULT_HOST } else { domain };
        let mut found = Vec::new();
        if purpose == Purpose::Own {
            return Ok(self.own(authority));
        }
        if purpose == Purpose::Pull && domain == DEFAULT_DOMAIN {
            for mirror in &self.mirrors {
                let (scheme, authority, path) = address(mirror)?;
                let root = format!("{path}/v2");
                found.push(Endpoint { root, mirror: true, ..Endpoint::own(scheme, authority) });
            }
        }
        let hosts = hosts::of(&self.hosts, domain)?.unwrap_or_default();
        for host in hosts.hosts.iter().chain(&hosts.server) {
            let is_for_it = match purpose {
                Purpose::Push => host.push,
                Purpose::Pull | Purpose::Own => host.pull,
            };
            if is_for_it {
                found.push(host_endpoint(host, domain, authority)?);
            }
        }
        if hosts.server.is_none() {
            let trust = hosts.own.map(|host| host.trust);
            let own = self.own(authority).into_iter();
            found.extend(own.map(|own| Endpoint { trust: trust.clone(), ..own }));
        }
        if purpose == Purpose::Push {
            // What is pushed goes to one place.
            let first = found.first().cloned();
            found.retain(|other| {
                first.as_ref().is_some_and(|first| first.authority == other.authority)
            });
        }
        Ok(found)
    }

    fn own(&self, authority: &str) -> Vec<Endpoint> {
        let https = Endpoint::own("https", authority);
        match self.is_insecure(authority) {
            true => vec![https, Endpoint::own("http", authority)],
            false => vec![https],
        }
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
}

/// Takes an address apart: scheme, `host[:port]`, and a path without a slash at its end.
fn address(text: &str) -> Result<(&'static str, &str, &str), Error> {
    let wrong = || Error::Config(format!("invalid mirror: {text:?} is no http or https address"));
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "https" => "https",
        "http" => "http",
        _ => return Err(wrong()),
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') || path.contains(['?', '#']) {
        return Err(wrong());
    }
    Ok((scheme, authority, path.trim_end_matches('/')))
}

fn host_endpoint(host: &Host, domain: &str, own: &str) -> Result<Endpoint, Error> {
    // Without a scheme it is https, as containerd has it.
    let url = match host.url.contains("://") {
        true => host.url.clone(),
        false => format!("https://{}", host.url),
    };
    let (scheme, authority, path) = address(&url)?;
    let authority = if authority == DEFAULT_DOMAIN { DEFAULT_HOST } else { authority };
    let root = match host.override_path || path.ends_with("/v2") {
        true => path.to_owned(),
        false => format!("{path}/v2"),
    };
    let is_own = authority == own;
    Ok(Endpoint {
        root,
        mirror: !is_own,
        resolve: host.resolve,
        namespace: (!is_own).then(|| domain.to_owned()),
        trust: Some(Arc::clone(&host.trust)),
        ..Endpoint::own(scheme, authority)
    })
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
        let found = config().endpoints(domain, Purpose::Pull).unwrap();
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
            assert!(config.endpoints("docker.io", Purpose::Pull).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_of_hosts_says_who_is_asked_for_what() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        };
        write(
            "q.example",
            "[host.\"http://m.example/sub\"]\ncapabilities = [\"pull\"]\n[host.\"q.example\"]\n[host.\"https://r.example/api\"]\noverride_path = true",
        );
        write("only.example", "server = \"https://m.example/v2\"");
        let config = Config { hosts: vec![dir.path().to_owned()], ..config() };
        let check = |domain: &str, purpose, expected: &[(&str, bool, bool)]| {
            let found = config.endpoints(domain, purpose).unwrap();
            let found: Vec<(String, bool, bool)> =
                found.iter().map(|found| (found.url("x"), found.mirror, found.resolve)).collect();
            let found: Vec<(&str, bool, bool)> = found
                .iter()
                .map(|(url, mirror, resolve)| (url.as_str(), *mirror, *resolve))
                .collect();
            assert_eq!(found, expected, "{domain} {purpose:?}");
        };
        let own = ("https://q.example/v2/x", false, true);
        let other = ("https://r.example/api/x?ns=q.example", true, true);
        let mirror = ("http://m.example/sub/v2/x?ns=q.example", true, false);
        check("q.example", Purpose::Pull, &[mirror, own, other, own]);
        check("q.example", Purpose::Push, &[own, own]);
        check("q.example", Purpose::Own, &[own]);
        let only = ("https://m.example/v2/x?ns=only.example", true, true);
        check("only.example", Purpose::Pull, &[only]);
        check("only.example", Purpose::Push, &[only]);
    }
}
