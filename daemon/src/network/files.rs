//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: pure texts, in Docker's form, and their writing.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use super::Error;

/// What a container's three files depend on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The host's name for it.
    pub hostname: &'a str,
    /// May be empty.
    pub domainname: &'a str,
    /// Its own address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// `name:address`, or `name:host-gateway`.
    pub extra_hosts: &'a [String],
    /// What `host-gateway` stands for.
    pub host_gateway: Option<Ipv4Addr>,
    /// It shares the host's network.
    pub host_network: bool,
    /// Instead of the host's, unless empty.
    pub dns: &'a [String],
    /// Instead of the host's, unless empty.
    pub dns_search: &'a [String],
    /// Instead of the host's, unless empty.
    pub dns_options: &'a [String],
}

/// Where the three files of a container are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/hostname`.
    pub hostname: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Paths {
    /// Names the files in a container's directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            hosts: directory.join("hosts"),
            hostname: directory.join("hostname"),
            resolv_conf: directory.join("resolv.conf"),
        }
    }
}

const HOSTS_HEAD: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Renders `/etc/hosts`. With the host's network and no extra hosts it is the host's own, so that is for the caller to copy.
///
/// # Errors
/// [`Error::Invalid`] for an extra host without an address.
pub fn hosts(input: &Input<'_>) -> Result<String, Error> {
    let mut text = HOSTS_HEAD.to_owned();
    for extra in input.extra_hosts {
        let (name, address) = extra_host(extra, input.host_gateway)?;
        let _ = writeln!(text, "{address}\t{name}");
    }
    if let Some(address) = input.address {
        let (host, domain) = (input.hostname, input.domainname);
        let _ = match domain {
            "" => writeln!(text, "{address}\t{host}"),
            _ => writeln!(text, "{address}\t{host}.{domain} {host}"),
        };
    }
    Ok(text)
}

/// Checks extra hosts at create.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub fn check_extra_hosts(extra_hosts: &[String]) -> Result<(), Error> {
    extra_hosts.iter().try_for_each(|extra| extra_host(extra, Some(Ipv4Addr::LOCALHOST)).map(drop))
}

fn extra_host(extra: &str, host_gateway: Option<Ipv4Addr>) -> Result<(&str, IpAddr), Error> {
    // An IPv6 address has colons of its own: the name ends at the first one.
    let (name, address) = extra
        .split_once(':')
        .filter(|(name, _)| is_one_word(name))
        .ok_or_else(|| Error::Invalid(format!("bad format for add-host: {extra:?}")))?;
    if address == "host-gateway" {
        let gateway = host_gateway.ok_or_else(|| {
            Error::Invalid(
                "unable to derive the IP value for host-gateway: there is no bridge".to_owned(),
            )
        })?;
        return Ok((name, gateway.into()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = bare
        .unwrap_or(address)
        .parse()
        .map_err(|_| Error::Invalid(format!("invalid IP address in add-host: {address:?}")));
    Ok((name, parsed?))
}

/// A word of `/etc/hosts`: with a space or a line break in it, it would be an entry of its own.
fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|char: char| char.is_whitespace() || char.is_control())
}

/// Checks search domains, resolver options and the domain name at create: they become lines of a file.
///
/// # Errors
/// [`Error::Invalid`] if one would be more than a part of its line.
pub fn check_names(search: &[String], options: &[String], domainname: &str) -> Result<(), Error> {
    let domain = Some(domainname).filter(|domain| !domain.is_empty());
    for text in search.iter().chain(options).map(String::as_str).chain(domain) {
        // Docker takes an empty one, and it does no harm.
        if !text.is_empty() && !is_one_word(text) {
            return Err(Error::Invalid(format!("invalid name or option for a resolver: {text:?}")));
        }
    }
    Ok(())
}

/// A resolver's configuration, as `resolv.conf(5)` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ResolvConf {
    nameservers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
    other: Vec<String>,
    invalid: Vec<String>,
}

fn parse_resolv_conf(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(keyword) = fields.next().filter(|word| !word.starts_with(['#', ';'])) else {
            continue;
        };
        let values: Vec<String> = fields.map(str::to_owned).collect();
        match (keyword, values.first()) {
            ("nameserver" | "domain" | "search" | "options", None) => {}
            ("nameserver", Some(address)) => match address.parse() {
                Ok(address) => conf.nameservers.push(address),
                Err(_) => conf.invalid.push(address.clone()),
            },
            // The last one counts; `domain` is its old name.
            ("domain" | "search", Some(_)) => conf.search = values,
            ("options", Some(_)) => conf.options.extend(values),
            _ => conf.other.push(line.to_owned()),
        }
    }
    conf
}

/// Renders `/etc/resolv.conf` from the host's, which was read from `host_path`. On a bridge the host's loopback is out of
/// reach, so its name servers there are left out.
///
/// # Errors
/// [`Error::Invalid`] for a name server that is not an address.
pub fn resolv_conf(input: &Input<'_>, host: &str, host_path: &str) -> Result<String, Error> {
    let mut conf = parse_resolv_conf(host);
    let mut overrides = Vec::new();
    let has_ndots = |options: &[String]| options.iter().any(|option| is_ndots(option));
    let mut ndots_from = if has_ndots(&conf.options) { "host" } else { "" };
    if !input.dns.is_empty() {
        conf.nameservers = parse_servers(input.dns)?;
        overrides.push("nameservers");
    }
    if !input.dns_search.is_empty() {
        // A lone dot means: no search domains.
        conf.search = input.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
        overrides.push("search");
    }
    if !input.dns_options.is_empty() {
        conf.options = input.dns_options.to_vec();
        ndots_from = if has_ndots(&conf.options) { "override" } else { "" };
        overrides.push("options");
    }
    let mut warning = "";
    if !input.host_network && input.dns.is_empty() {
        conf.nameservers.retain(|address| address.is_ipv4() && !address.is_loopback());
        if conf.nameservers.is_empty() {
            conf.nameservers = [[8, 8, 8, 8], [8, 8, 4, 4]].map(IpAddr::from).to_vec();
            warning = "# Used default nameservers.\n";
        }
    }
    let mut text = "# Generated by Docker Engine.\n\
        # This file can be edited; Docker Engine will not make further changes once it\n\
        # has been modified.\n\n"
        .to_owned();
    for address in &conf.nameservers {
        let _ = writeln!(text, "nameserver {address}");
    }
    for (keyword, values) in [("search", &conf.search), ("options", &conf.options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{keyword} {}", values.join(" "));
        }
    }
    if !conf.other.is_empty() {
        let _ = writeln!(text, "{}", conf.other.join("\n"));
    }
    let transform = if input.host_network { "" } else { " (legacy)" };
    let _ = writeln!(text, "\n# Based on host file: '{host_path}'{transform}");
    text.push_str(warning);
    if !conf.invalid.is_empty() {
        let _ = writeln!(text, "# Invalid nameservers: [{}]", conf.invalid.join(" "));
    }
    let _ = writeln!(text, "# Overrides: [{}]", overrides.join(" "));
    if !ndots_from.is_empty() {
        let _ = writeln!(text, "# Option ndots from: {ndots_from}");
    }
    Ok(text)
}

fn is_ndots(option: &str) -> bool {
    option.split(':').next() == Some("ndots")
}

/// Checks `--dns` at create.
///
/// # Errors
/// [`Error::Invalid`] for what is not an address.
pub fn check_dns(servers: &[String]) -> Result<(), Error> {
    parse_servers(servers).map(drop)
}

fn parse_servers(servers: &[String]) -> Result<Vec<IpAddr>, Error> {
    servers
        .iter()
        .map(|text| {
            text.parse().map_err(|_| Error::Invalid(format!("bad nameserver address: {text:?}")))
        })
        .collect()
}

/// Reads the host's resolver configuration and says where it is from. systemd-resolved's stub listens on the host's
/// loopback alone: then the file that names the real servers is meant.
fn host_resolv_conf() -> (String, &'static str) {
    const USUAL: &str = "/etc/resolv.conf";
    const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
    let text = fs::read_to_string(USUAL).unwrap_or_default();
    let servers = parse_resolv_conf(&text).nameservers;
    if servers == [IpAddr::from([127, 0, 0, 53])]
        && let Ok(real) = fs::read_to_string(RESOLVED)
    {
        return (real, RESOLVED);
    }
    (text, USUAL)
}

/// Writes a container's three files.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Failed`].
pub fn write_all(input: &Input<'_>, directory: &Path) -> Result<(), Error> {
    let paths = Paths::in_directory(directory);
    let hosts = match (input.host_network && input.extra_hosts.is_empty())
        .then(|| fs::read_to_string("/etc/hosts"))
    {
        Some(Ok(text)) => text,
        _ => hosts(input)?,
    };
    write(&paths.hosts, &hosts)?;
    write(&paths.hostname, &format!("{}\n", input.hostname))?;
    let resolver = if input.host_network && input.dns_is_hosts() {
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        let (host, path) = host_resolv_conf();
        resolv_conf(input, &host, path)?
    };
    if !was_edited(&paths.resolv_conf) {
        write(&paths.resolv_conf, &resolver)?;
        write(&hash_path(&paths.resolv_conf), &hash(resolver.as_bytes()))?;
    }
    Ok(())
}

impl Input<'_> {
    fn dns_is_hosts(&self) -> bool {
        self.dns.is_empty() && self.dns_search.is_empty() && self.dns_options.is_empty()
    }
}

/// Whether a user changed the file since we wrote it: then it stays as it is, as its head promises.
fn was_edited(path: &Path) -> bool {
    let written = fs::read_to_string(hash_path(path));
    match (written, fs::read(path)) {
        (Ok(written), Ok(now)) => written != hash(&now),
        _ => false,
    }
}

fn hash_path(path: &Path) -> PathBuf {
    path.with_extension("conf.hash")
}

fn hash(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes by replacing: a container that still has the old file bound keeps it whole. The files are made anew at every
/// start, so they need no sync.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    let written =
        fs::write(&new, text).and_then(|()| set_mode(&new)).and_then(|()| fs::rename(&new, path));
    written.map_err(|source| Error::Failed {
        what: format!("cannot write {}", path.display()),
        source,
    })
}

/// Whoever runs in the container reads them, whatever the daemon's umask.
fn set_mode(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Input<'static> = Input {
        hostname: "hh",
        domainname: "",
        address: Some(Ipv4Addr::new(172, 17, 0, 2)),
        extra_hosts: &[],
        host_gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
        host_network: false,
        dns: &[],
        dns_search: &[],
        dns_options: &[],
    };

    #[test]
    fn hosts_is_dockers_with_extra_hosts_before_the_container() {
        let extra = ["x:1.2.3.4", "y:host-gateway", "z:2001:db8::1"].map(str::to_owned);
        let input = Input { domainname: "dd", extra_hosts: &extra, ..PLAIN };
        let tail = hosts(&input).unwrap().split_off(HOSTS_HEAD.len());
        assert_eq!(tail, "1.2.3.4\tx\n172.17.0.1\ty\n2001:db8::1\tz\n172.17.0.2\thh.dd hh\n");
        for wrong in ["x", ":1.2.3.4", "x:", "x:nope", "a\n6.6.6.6 evil:1.1.1.1", "a b:1.1.1.1"] {
            assert!(hosts(&Input { extra_hosts: &[wrong.into()], ..PLAIN }).is_err(), "{wrong}");
        }
    }

    #[test]
    fn resolv_conf_on_a_bridge_leaves_out_the_hosts_loopback() {
        let host = "# c\nnameserver 127.0.0.1\nnameserver 10.0.0.1\nsearch a b\noptions ndots:2\nsortlist x\n";
        let text = resolv_conf(&PLAIN, host, "/etc/resolv.conf").unwrap();
        insta::assert_snapshot!(text, @r"
        # Generated by Docker Engine.
        # This file can be edited; Docker Engine will not make further changes once it
        # has been modified.

        nameserver 10.0.0.1
        search a b
        options ndots:2
        sortlist x

        # Based on host file: '/etc/resolv.conf' (legacy)
        # Overrides: []
        # Option ndots from: host
        ");
    }

    #[test]
    fn without_a_reachable_server_the_public_ones_serve() {
        let text = resolv_conf(&PLAIN, "nameserver ::1\n", "/etc/resolv.conf").unwrap();
        assert!(text.contains("nameserver 8.8.8.8\nnameserver 8.8.4.4\n"), "{text}");
        assert!(text.contains("# Used default nameservers.\n"), "{text}");
    }

    #[test]
    fn what_the_user_says_replaces_the_hosts() {
        let (dns, search, options) =
            (["127.0.0.1".to_owned()], [".".to_owned()], ["ndots:3".to_owned()]);
        let input = Input { dns: &dns, dns_search: &search, dns_options: &options, ..PLAIN };
        let text = resolv_conf(&input, "search a\n", "/etc/resolv.conf").unwrap();
        assert!(text.contains("\nnameserver 127.0.0.1\noptions ndots:3\n\n"), "{text}");
        assert!(text.ends_with(
            "# Overrides: [nameservers search options]\n# Option ndots from: override\n"
        ));
        assert!(resolv_conf(&Input { dns: &["x".into()], ..PLAIN }, "", "").is_err());
    }

    #[test]
    fn no_name_makes_a_line_of_its_own() {
        let one = |text: &str| [text.to_owned()];
        assert!(check_names(&one("a.b"), &one("ndots:3"), "d.example").is_ok());
        assert!(check_names(&one("a\nnameserver 6.6.6.6"), &[], "").is_err());
        assert!(check_names(&[], &one("a\nb"), "").is_err());
        assert!(check_names(&[], &[], "d\t1.1.1.1").is_err());
    }

    #[test]
    fn a_resolv_conf_that_the_user_edited_stays() {
        let dir = tempfile::tempdir().unwrap();
        write_all(&PLAIN, dir.path()).unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 1.1.1.1\n").unwrap();
        write_all(&PLAIN, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 1.1.1.1\n");
        assert_eq!(fs::read_to_string(dir.path().join("hostname")).unwrap(), "hh\n");
    }
}
