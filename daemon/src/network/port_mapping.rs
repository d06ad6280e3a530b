//! Published ports: what was asked for, and which port of the host it becomes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
};

use super::Error;
use cleat_proto::{
    docker::container::{PortBinding, PortMap},
    id::ContainerId,
};

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Number 6.
    Tcp,
    /// Number 17.
    Udp,
    /// Number 132.
    Sctp,
}

impl Protocol {
    /// Its number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// Of this protocol.
    pub protocol: Protocol,
}

impl Port {
    /// Reads `80/tcp` or `80`.
    ///
    /// # Errors
    /// [`Error::Invalid`] in Docker's words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
        let number = parse_number(number).ok_or_else(|| invalid(number))?;
        let protocol =
            Protocol::parse(protocol).ok_or_else(|| Error::Invalid("unknown protocol".into()))?;
        Ok(Self { number, protocol })
    }

    /// Writes `80/tcp`.
    pub fn text(self) -> String {
        format!("{}/{}", self.number, self.protocol.name())
    }
}

/// A container's port that is to be reachable at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The container's port.
    pub port: Port,
    /// Where on the host; 0.0.0.0 is everywhere.
    pub host_ip: Ipv4Addr,
    /// The host's ports that will do, both included; `None` for any ephemeral one.
    pub host_ports: Option<(u16, u16)>,
}

/// A port of the host that leads to a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mapping {
    /// The container's port.
    pub port: Port,
    /// Where on the host; 0.0.0.0 is everywhere.
    pub host_ip: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
}

/// Checks at create what can be checked then.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words, [`Error::NotImplemented`] for IPv6.
pub fn check(bindings: &PortMap) -> Result<(), Error> {
    for (port, bindings) in bindings {
        // An unknown protocol is accepted until the start, as Docker does.
        let number = port.split('/').next().unwrap_or_default();
        parse_number(number).ok_or_else(|| invalid(number))?;
        for binding in bindings.iter().flatten() {
            parse_range(&binding.host_port)?;
            parse_ip(&binding.host_ip, Ipv4Addr::UNSPECIFIED)?;
        }
    }
    Ok(())
}

/// Reads what a container publishes: its bindings, and with `publish_all` every exposed port.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words, [`Error::NotImplemented`] for IPv6.
pub fn requests(
    exposed: &[String],
    bindings: &PortMap,
    publish_all: bool,
    default_ip: Ipv4Addr,
) -> Result<Vec<Request>, Error> {
    let mut wanted = Vec::new();
    for (text, bindings) in bindings {
        let port = Port::parse(text)?;
        for binding in bindings.iter().flatten() {
            let host_ip = parse_ip(&binding.host_ip, default_ip)?;
            let host_ports = parse_range(&binding.host_port)?;
            wanted.push(Request { port, host_ip, host_ports });
        }
    }
    if publish_all {
        let bound: BTreeSet<Port> = wanted.iter().map(|request| request.port).collect();
        for text in exposed {
            let port = Port::parse(text)?;
            if !bound.contains(&port) {
                wanted.push(Request { port, host_ip: default_ip, host_ports: None });
            }
        }
    }
    Ok(wanted)
}

/// Puts mappings into the form that inspect shows; exposed ports without one are `null`.
pub fn shown(exposed: &[String], mappings: &[Mapping]) -> PortMap {
    let mut map: PortMap = exposed
        .iter()
        .filter_map(|text| Port::parse(text).ok())
        .map(|port| (port.text(), None))
        .collect();
    for mapping in mappings {
        map.entry(mapping.port.text()).or_default().get_or_insert_default().push(PortBinding {
            host_ip: mapping.host_ip.to_string(),
            host_port: mapping.host_port.to_string(),
        });
    }
    map
}

/// Reads back what [`shown`] wrote, from a container's record. What does not parse is left out.
pub fn recorded(ports: &PortMap) -> Vec<Mapping> {
    let bindings = ports.iter().filter_map(|(text, bindings)| {
        Some((Port::parse(text).ok()?, bindings.as_deref().unwrap_or_default()))
    });
    bindings
        .flat_map(|(port, bindings)| {
            bindings.iter().filter_map(move |binding| {
                let host_ip = binding.host_ip.parse().ok()?;
                Some(Mapping { port, host_ip, host_port: parse_number(&binding.host_port)? })
            })
        })
        .collect()
}

/// Why a host's port could not be had.
#[derive(Debug)]
pub enum Refusal {
    /// One of our containers has it.
    Allocated {
        /// Which port.
        host_port: u16,
    },
    /// Somebody else has it, or the address is not this host's.
    Bind {
        /// Which port.
        host_port: u16,
        /// What the kernel says.
        source: io::Error,
    },
    /// None of those that would do is free.
    Exhausted,
}

/// Which of the host's ports our containers have.
#[derive(Debug, Default)]
pub struct Ports {
    taken: HashMap<(Protocol, u16), Vec<(Ipv4Addr, ContainerId)>>,
    /// Where the search for an ephemeral port goes on.
    next: u16,
}

impl Ports {
    /// Finds a port for a request. `probe` tells whether the host lets us have it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn allocate(
        &mut self,
        container: &ContainerId,
        request: &Request,
        ephemeral: (u16, u16),
        probe: &dyn Fn(Protocol, Ipv4Addr, u16) -> io::Result<()>,
    ) -> Result<Mapping, Refusal> {
        let (first, last) = request.host_ports.unwrap_or(ephemeral);
        let start = match request.host_ports {
            None if (first..=last).contains(&self.next) => self.next,
            _ => first,
        };
        let mut refusal = Refusal::Exhausted;
        for host_port in (start..=last).chain(first..start) {
            let mapping = Mapping { port: request.port, host_ip: request.host_ip, host_port };
            if self.conflicts(&mapping) {
                refusal = Refusal::Allocated { host_port };
                continue;
            }
            match probe(request.port.protocol, request.host_ip, host_port) {
                Ok(()) => {
                    self.take(container, mapping);
                    if request.host_ports.is_none() {
                        self.next = host_port.checked_add(1).unwrap_or(first);
                    }
                    return Ok(mapping);
                }
                Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                    refusal = Refusal::Bind { host_port, source };
                }
                // Another port would not help.
                Err(source) => return Err(Refusal::Bind { host_port, source }),
            }
        }
        if first == last { Err(refusal) } else { Err(Refusal::Exhausted) }
    }

    /// Notes a port as a container's: at a restart, from its record.
    pub fn take(&mut self, container: &ContainerId, mapping: Mapping) {
        let key = (mapping.port.protocol, mapping.host_port);
        self.taken.entry(key).or_default().push((mapping.host_ip, container.clone()));
    }

    /// Gives back all that a container has.
    pub fn free(&mut self, container: &ContainerId) {
        self.taken.retain(|_, owners| {
            owners.retain(|(_, owner)| owner != container);
            !owners.is_empty()
        });
    }

    fn conflicts(&self, mapping: &Mapping) -> bool {
        let owners = self.taken.get(&(mapping.port.protocol, mapping.host_port));
        owners.into_iter().flatten().any(|(address, _)| {
            *address == mapping.host_ip
                || address.is_unspecified()
                || mapping.host_ip.is_unspecified()
        })
    }
}

/// Asks the host whether a port is free, by binding it for a moment. It is not kept: the mapping that follows takes what
/// comes from elsewhere, whoever listens later.
///
/// # Errors
/// What `bind(2)` answers.
pub fn probe(protocol: Protocol, address: Ipv4Addr, port: u16) -> io::Result<()> {
    match protocol {
        // The library sets SO_REUSEADDR: connections of a former listener that wait for their end are not in the way.
        Protocol::Tcp => TcpListener::bind((address, port)).map(drop),
        Protocol::Udp => UdpSocket::bind((address, port)).map(drop),
        // A kernel without SCTP has no listener to collide with.
        Protocol::Sctp => Ok(()),
    }
}

/// Returns the host's ephemeral ports. Source: ip-sysctl, `ip_local_port_range`.
pub fn ephemeral_range() -> (u16, u16) {
    // What Docker falls back to.
    const FALLBACK: (u16, u16) = (49153, 65535);
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else {
        return FALLBACK;
    };
    let mut numbers = text.split_ascii_whitespace().filter_map(parse_number);
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last => (first, last),
        _ => FALLBACK,
    }
}

fn invalid(text: &str) -> Error {
    Error::Invalid(format!("invalid port specification: {text:?}"))
}

fn parse_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|number| *number != 0)
}

/// Empty and `0` are "any".
fn parse_range(text: &str) -> Result<Option<(u16, u16)>, Error> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (parse_number(first), parse_number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Some((first, last))),
        _ => Err(invalid(text)),
    }
}

fn parse_ip(text: &str, default: Ipv4Addr) -> Result<Ipv4Addr, Error> {
    if text.is_empty() {
        return Ok(default);
    }
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(address)) => Err(Error::NotImplemented(format!(
            "publishing a port on an IPv6 address ({address}) is not implemented"
        ))),
        Err(_) => Err(Error::Invalid(format!("invalid IP address: {text}"))),
    }
}

/// The elements of the firewall's map that stand for all containers' mappings.
pub type Targets = BTreeMap<(u8, Ipv4Addr, u16), (Ipv4Addr, u16)>;

/// Adds a container's mappings to the elements.
pub fn add_targets(targets: &mut Targets, address: Ipv4Addr, mappings: &[Mapping]) {
    for mapping in mappings {
        let key = (mapping.port.protocol.number(), mapping.host_ip, mapping.host_port);
        targets.insert(key, (address, mapping.port.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(port: &str, host_ip: &str, host_port: &str) -> PortMap {
        let binding = PortBinding { host_ip: host_ip.into(), host_port: host_port.into() };
        PortMap::from([(port.to_owned(), Some(vec![binding]))])
    }

    fn id(digit: char) -> ContainerId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    #[track_caller]
    fn refused(port: &str, host_ip: &str, host_port: &str, text: &str) {
        assert_eq!(check(&map(port, host_ip, host_port)).unwrap_err().to_string(), text);
    }

    #[test]
    fn bad_ports_are_refused_at_create_in_dockers_words() {
        refused("80/tcp", "", "70000", "invalid port specification: \"70000\"");
        refused("80/tcp", "", "90-80", "invalid port specification: \"90-80\"");
        refused("80/tcp", "", "abc", "invalid port specification: \"abc\"");
        refused("99999/tcp", "", "", "invalid port specification: \"99999\"");
        refused("80/tcp", "300.1.1.1", "0", "invalid IP address: 300.1.1.1");
        assert!(matches!(check(&map("80/tcp", "::1", "80")), Err(Error::NotImplemented(_))));
        assert!(check(&map("80/nosuch", "", "80")).is_ok());
        let late = requests(&[], &map("80/nosuch", "", "80"), false, Ipv4Addr::UNSPECIFIED);
        assert_eq!(late.unwrap_err().to_string(), "unknown protocol");
    }

    #[test]
    fn everywhere_collides_with_anywhere() {
        let mut ports = Ports::default();
        let free = |_: Protocol, _: Ipv4Addr, _: u16| Ok(());
        let mut ask = |who, ip: &str| {
            let wanted = requests(&[], &map("80/tcp", ip, "8080"), false, Ipv4Addr::UNSPECIFIED);
            ports.allocate(&id(who), &wanted.unwrap()[0], (1, 2), &free).is_ok()
        };
        assert!(ask('a', "127.0.0.1"));
        assert!(ask('b', "127.0.0.2"));
        assert!(!ask('c', "127.0.0.1"));
        assert!(!ask('c', ""));
    }

    #[test]
    fn a_range_gives_the_first_port_that_is_free_here_and_elsewhere() {
        let mut ports = Ports::default();
        let foreign = |_: Protocol, _: Ipv4Addr, port: u16| {
            if port == 8001 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
        };
        let wanted =
            requests(&[], &map("80", "", "8000-8002"), false, Ipv4Addr::UNSPECIFIED).unwrap();
        let mut ask = |who| ports.allocate(&id(who), &wanted[0], (1, 2), &foreign);
        assert_eq!(ask('a').unwrap().host_port, 8000);
        assert_eq!(ask('b').unwrap().host_port, 8002);
        assert!(matches!(ask('c'), Err(Refusal::Exhausted)));
    }

    #[test]
    fn ephemeral_ports_go_round() {
        let mut ports = Ports::default();
        let free = |_: Protocol, _: Ipv4Addr, _: u16| Ok(());
        let wanted = requests(&["80/udp".into()], &PortMap::new(), true, Ipv4Addr::UNSPECIFIED);
        let wanted = wanted.unwrap();
        let mut ask = |who| {
            let got = ports.allocate(&id(who), &wanted[0], (100, 102), &free).unwrap().host_port;
            ports.free(&id(who));
            got
        };
        assert_eq!([ask('a'), ask('b'), ask('c'), ask('d')], [100, 101, 102, 100]);
    }

    #[test]
    fn what_inspect_shows_is_read_back_from_the_record() {
        let port = Port::parse("80/tcp").unwrap();
        let mapping = Mapping { port, host_ip: Ipv4Addr::LOCALHOST, host_port: 8080 };
        let map = shown(&["80/tcp".into(), "99/udp".into()], &[mapping]);
        assert_eq!(map["99/udp"], None);
        assert_eq!(recorded(&map), [mapping]);
    }

    #[test]
    fn a_foreign_listener_is_found() {
        let (_namespace, kinds) = cleat_sys::netns::create_with(|| {
            let mut socket =
                cleat_sys::netlink::Socket::open(cleat_sys::netlink::Family::Route).unwrap();
            socket
                .transact(&[super::super::link::up(super::super::link::Which::Name("lo"))])
                .unwrap();
            let listener = std::net::TcpListener::bind("0.0.0.0:8099").unwrap();
            let busy = probe(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8099).unwrap_err().kind();
            let foreign =
                probe(Protocol::Udp, Ipv4Addr::new(192, 0, 2, 1), 8099).unwrap_err().kind();
            drop(listener);
            (busy, foreign, probe(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8099).is_ok())
        })
        .unwrap();
        assert_eq!(kinds, (io::ErrorKind::AddrInUse, io::ErrorKind::AddrNotAvailable, true));
    }
}
