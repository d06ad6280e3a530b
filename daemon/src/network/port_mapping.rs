//! Published ports: what was asked for, and which port of the host it becomes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use super::Error;
use cleat_proto::{
    docker::container::{PortBinding, PortMap},
    id::ContainerId,
};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, listen,
    setsockopt, socket, sockopt,
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

/// A container's port that is to be reachable at the host, under one port of several of the host's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The container's port.
    pub port: Port,
    /// Where on the host; 0.0.0.0 and :: are everywhere.
    pub host_ips: Vec<IpAddr>,
    /// The host's ports that will do, both included; `None` for any ephemeral one.
    pub host_ports: Option<(u16, u16)>,
}

/// A port of the host that leads to a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mapping {
    /// The container's port.
    pub port: Port,
    /// Where on the host; 0.0.0.0 and :: are everywhere.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// A mapping, and the socket that keeps the host's port: whoever holds it serves what the firewall does not lead past it.
#[derive(Debug)]
pub struct Bound {
    /// What leads where.
    pub mapping: Mapping,
    /// Bound, and listening if its protocol has connections.
    pub socket: OwnedFd,
}

/// Where ports are published that name no address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `--ip`; 0.0.0.0 is everywhere.
    pub host_ip: IpAddr,
    /// The host can listen on IPv6 addresses: then everywhere is there as well.
    pub ipv6: bool,
}

impl Defaults {
    fn addresses(self) -> Vec<IpAddr> {
        let everywhere = self.host_ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let as_well = (everywhere && self.ipv6).then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        [self.host_ip].into_iter().chain(as_well).collect()
    }
}

/// Reads what a container publishes: its bindings, and with `publish_all` every exposed port. In Docker's order, which decides
/// who gets which port: those that were asked for by number come first; bindings that differ in nothing but the
/// host's address share a port.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub fn requests(
    exposed: &[String],
    bindings: &PortMap,
    publish_all: bool,
    defaults: Defaults,
) -> Result<Vec<Request>, Error> {
    let mut wanted = Vec::new();
    for (text, bindings) in bindings {
        let port = Port::parse(text)?;
        for binding in bindings.iter().flatten() {
            wanted.push((port, parse_range(&binding.host_port)?, parse_ip(&binding.host_ip)?));
        }
    }
    if publish_all {
        let bound: BTreeSet<Port> = wanted.iter().map(|(port, ..)| *port).collect();
        for text in exposed {
            let port = Port::parse(text)?;
            if !bound.contains(&port) {
                wanted.push((port, None, None));
            }
        }
    }
    wanted.sort_by_key(|(port, host_ports, host_ip)| {
        let exact = host_ports.is_some_and(|(first, last)| first == last);
        (!exact, port.number, port.protocol, *host_ports, *host_ip)
    });
    let mut requests: Vec<Request> = Vec::new();
    for (port, host_ports, host_ip) in wanted {
        let host_ips = host_ip.map_or_else(|| defaults.addresses(), |address| vec![address]);
        match requests.last_mut() {
            Some(last) if (last.port, last.host_ports) == (port, host_ports) => {
                last.host_ips.extend(host_ips);
            }
            _ => requests.push(Request { port, host_ips, host_ports }),
        }
    }
    Ok(requests)
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
        /// Where.
        host_ip: IpAddr,
        /// Which port.
        host_port: u16,
    },
    /// Somebody else has it, or the address is not this host's.
    Bind {
        /// Where.
        host_ip: IpAddr,
        /// Which port.
        host_port: u16,
        /// What the kernel says.
        source: io::Error,
    },
    /// None of those that would do is free.
    Exhausted,
}

impl Refusal {
    /// Whether another port might be had.
    fn is_of_this_port(&self) -> bool {
        match self {
            Self::Allocated { .. } => true,
            Self::Bind { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Exhausted => false,
        }
    }
}

/// Which of the host's ports our containers have.
#[derive(Debug, Default)]
pub struct Ports {
    taken: HashMap<(Protocol, u16), Vec<(IpAddr, ContainerId)>>,
    /// Where the search for an ephemeral port goes on.
    next: u16,
}

/// Binds a socket to a port of the host: see [`bind`].
pub type Bind<'b> = &'b dyn Fn(Protocol, IpAddr, u16) -> io::Result<OwnedFd>;

impl Ports {
    /// Finds a port for a request, and binds it on each address.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn allocate(
        &mut self,
        container: &ContainerId,
        request: &Request,
        ephemeral: (u16, u16),
        bind: Bind<'_>,
    ) -> Result<Vec<Bound>, Refusal> {
        let (first, last) = request.host_ports.unwrap_or(ephemeral);
        if let Some(host_ip) = asked_twice(&request.host_ips) {
            return Err(Refusal::Allocated { host_ip, host_port: first });
        }
        let start = match request.host_ports {
            None if (first..=last).contains(&self.next) => self.next,
            _ => first,
        };
        let mut refusal = Refusal::Exhausted;
        for host_port in (start..=last).chain(first..start) {
            match self.bind_everywhere(request, host_port, bind) {
                Ok(bound) => {
                    bound.iter().for_each(|bound| self.take(container, bound.mapping));
                    if request.host_ports.is_none() {
                        self.next = host_port.checked_add(1).unwrap_or(first);
                    }
                    return Ok(bound);
                }
                Err(why) if why.is_of_this_port() => refusal = why,
                Err(why) => return Err(why),
            }
        }
        if first == last { Err(refusal) } else { Err(Refusal::Exhausted) }
    }

    fn bind_everywhere(
        &self,
        request: &Request,
        host_port: u16,
        bind: Bind<'_>,
    ) -> Result<Vec<Bound>, Refusal> {
        let port = request.port;
        let mut bound: Vec<Bound> = Vec::with_capacity(request.host_ips.len());
        for &host_ip in &request.host_ips {
            if self.is_taken(port.protocol, host_ip, host_port) {
                return Err(Refusal::Allocated { host_ip, host_port });
            }
            let socket = bind(port.protocol, host_ip, host_port)
                .map_err(|source| Refusal::Bind { host_ip, host_port, source })?;
            bound.push(Bound { mapping: Mapping { port, host_ip, host_port }, socket });
        }
        Ok(bound)
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

    fn is_taken(&self, protocol: Protocol, host_ip: IpAddr, host_port: u16) -> bool {
        let owners = self.taken.get(&(protocol, host_port));
        owners.into_iter().flatten().any(|(address, _)| overlap(*address, host_ip))
    }
}

fn asked_twice(host_ips: &[IpAddr]) -> Option<IpAddr> {
    let mut rest = host_ips.iter().enumerate();
    rest.find(|(place, one)| host_ips[..*place].iter().any(|other| overlap(**one, *other)))
        .map(|(_, address)| *address)
}

/// Whether a packet may be for both.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other
        || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
}

/// Binds a port of the host, and listens if the protocol has connections: from then on nobody else can bind it. (A socket that
/// does not listen would not keep out who sets SO_REUSEADDR as well.)
///
/// # Errors
/// What `bind(2)` and `listen(2)` answer; `EPROTONOSUPPORT` if the kernel does not have the protocol.
pub fn bind(protocol: Protocol, address: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, number)?;
    let has_connections = protocol != Protocol::Udp;
    // Connections of a former listener that wait for their end are not in the way.
    setsockopt(&socket, sockopt::ReuseAddr, &has_connections)?;
    if address.is_ipv6() {
        // The other family has a socket of its own.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    let at = SockaddrStorage::from(SocketAddr::from((address, port)));
    socket::bind(socket.as_raw_fd(), &at)?;
    if has_connections {
        listen(&socket, Backlog::MAXCONN)?;
    }
    Ok(socket)
}

/// Whether the host can listen on IPv6 addresses at all.
pub fn has_ipv6() -> bool {
    bind(Protocol::Udp, IpAddr::V6(Ipv6Addr::LOCALHOST), 0).is_ok()
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

fn parse_ip(text: &str) -> Result<Option<IpAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr =
        text.parse().map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))?;
    Ok(Some(address.to_canonical()))
}

/// The elements of the firewall's map that stand for all containers' mappings.
pub type Targets = BTreeMap<(u8, Ipv4Addr, u16), (Ipv4Addr, u16)>;

/// A port that takes datagrams, and the address it is published at.
pub type DatagramPort = (Ipv4Addr, u16);

/// Picks out the ports whose flows the kernel remembers without a connection: UDP over IPv4.
pub fn datagram_ports(mappings: &[Mapping]) -> Vec<DatagramPort> {
    let datagrams = mappings.iter().filter(|mapping| mapping.port.protocol == Protocol::Udp);
    datagrams
        .filter_map(|mapping| match mapping.host_ip {
            IpAddr::V4(address) => Some((address, mapping.host_port)),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// Adds a container's mappings to the elements. It has an IPv4 address alone: what comes over IPv6 is for the sockets.
pub fn add_targets(targets: &mut Targets, address: Ipv4Addr, mappings: &[Mapping]) {
    for mapping in mappings {
        if let IpAddr::V4(host_ip) = mapping.host_ip {
            let key = (mapping.port.protocol.number(), host_ip, mapping.host_port);
            targets.insert(key, (address, mapping.port.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn asked(bindings: &PortMap) -> Result<Vec<Request>, Error> {
        requests(&[], bindings, false, EVERYWHERE)
    }

    fn map(port: &str, host_ip: &str, host_port: &str) -> PortMap {
        let binding = PortBinding { host_ip: host_ip.into(), host_port: host_port.into() };
        PortMap::from([(port.to_owned(), Some(vec![binding]))])
    }

    fn id(digit: char) -> ContainerId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    const EVERYWHERE: Defaults =
        Defaults { host_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ipv6: true };

    fn ask(bindings: &PortMap) -> Vec<Request> {
        requests(&[], bindings, false, EVERYWHERE).unwrap()
    }

    /// A socket that is nothing but a descriptor.
    fn some_socket() -> io::Result<OwnedFd> {
        Ok(std::fs::File::open("/dev/null")?.into())
    }

    fn is_free(_: Protocol, _: IpAddr, _: u16) -> io::Result<OwnedFd> {
        some_socket()
    }

    fn host_ports(bound: &[Bound]) -> Vec<(String, u16)> {
        let mapping = |bound: &Bound| (bound.mapping.host_ip.to_string(), bound.mapping.host_port);
        bound.iter().map(mapping).collect()
    }

    #[track_caller]
    fn refused(port: &str, host_ip: &str, host_port: &str, text: &str) {
        assert_eq!(asked(&map(port, host_ip, host_port)).unwrap_err().to_string(), text);
    }

    #[test]
    fn bad_ports_are_refused_at_create_in_dockers_words() {
        refused("80/tcp", "", "70000", "invalid port specification: \"70000\"");
        refused("80/tcp", "", "90-80", "invalid port specification: \"90-80\"");
        refused("80/tcp", "", "abc", "invalid port specification: \"abc\"");
        refused("99999/tcp", "", "", "invalid port specification: \"99999\"");
        refused("80/tcp", "300.1.1.1", "0", "invalid IP address: 300.1.1.1");
        assert!(asked(&map("80/tcp", "::1", "80")).is_ok());
        let late = requests(&[], &map("80/nosuch", "", "80"), false, EVERYWHERE);
        assert_eq!(late.unwrap_err().to_string(), "unknown protocol");
    }

    #[test]
    fn everywhere_is_both_families_where_the_host_has_both() {
        let addresses = |host_ip: &str, defaults| {
            let asked = requests(&[], &map("80", host_ip, "80"), false, defaults).unwrap();
            let texts: Vec<_> = asked[0].host_ips.iter().map(IpAddr::to_string).collect();
            texts.join(" ")
        };
        let only_v4 = Defaults { ipv6: false, ..EVERYWHERE };
        let localhost = Defaults { host_ip: Ipv4Addr::LOCALHOST.into(), ..EVERYWHERE };
        assert_eq!(addresses("", EVERYWHERE), "0.0.0.0 ::");
        assert_eq!(addresses("", only_v4), "0.0.0.0");
        assert_eq!(addresses("", localhost), "127.0.0.1");
        assert_eq!(addresses("0.0.0.0", EVERYWHERE), "0.0.0.0");
        assert_eq!(addresses("::ffff:127.0.0.1", EVERYWHERE), "127.0.0.1");
        assert_eq!(addresses("::1", only_v4), "::1");
    }

    #[test]
    fn bindings_of_one_port_at_several_addresses_get_the_same_number() {
        let mut bindings = map("80", "127.0.0.1", "");
        let others = [("::1", ""), ("", "8080")]
            .map(|(ip, port)| PortBinding { host_ip: ip.into(), host_port: port.into() });
        bindings.get_mut("80").unwrap().as_mut().unwrap().extend(others);
        bindings.extend(map("70", "", "9000-9001"));
        let asked = ask(&bindings);
        let mut ports = Ports::default();
        let mut bound = Vec::new();
        for request in &asked {
            bound.extend(ports.allocate(&id('a'), request, (100, 102), &is_free).unwrap());
        }
        let expected = [
            ("0.0.0.0", 8080),
            ("::", 8080),
            ("0.0.0.0", 9000),
            ("::", 9000),
            ("127.0.0.1", 100),
            ("::1", 100),
        ];
        assert_eq!(host_ports(&bound), expected.map(|(ip, port)| (ip.to_owned(), port)));
    }

    #[test]
    fn everywhere_collides_with_anywhere_of_its_family() {
        let mut ports = Ports::default();
        let mut try_it = |who, ip: &str| {
            let asked = ask(&map("80/tcp", ip, "8080"));
            ports.allocate(&id(who), &asked[0], (1, 2), &is_free).is_ok()
        };
        assert!(try_it('a', "127.0.0.1"));
        assert!(try_it('b', "127.0.0.2"));
        assert!(!try_it('c', "127.0.0.1"));
        assert!(!try_it('c', ""));
        assert!(try_it('c', "::"));
        assert!(!try_it('d', "::1"));
    }

    #[test]
    fn an_address_that_is_named_twice_is_refused_at_once() {
        let mut bindings = map("80", "", "");
        let again = bindings["80"].clone().unwrap();
        bindings.get_mut("80").unwrap().as_mut().unwrap().extend(again);
        let never = |_: Protocol, _: IpAddr, _: u16| panic!("nothing is to be bound");
        let refused = Ports::default().allocate(&id('a'), &ask(&bindings)[0], (1, 60000), &never);
        assert!(matches!(refused, Err(Refusal::Allocated { .. })));
    }

    #[test]
    fn a_range_gives_the_first_port_that_is_free_here_and_elsewhere() {
        let mut ports = Ports::default();
        // Taken in one family alone.
        let foreign = |_: Protocol, address: IpAddr, port: u16| {
            if port == 8001 && address.is_ipv6() {
                Err(Errno::EADDRINUSE.into())
            } else {
                some_socket()
            }
        };
        let asked = ask(&map("80", "", "8000-8002"));
        let mut try_it = |who| ports.allocate(&id(who), &asked[0], (1, 2), &foreign);
        assert_eq!(try_it('a').unwrap()[0].mapping.host_port, 8000);
        assert_eq!(try_it('b').unwrap()[0].mapping.host_port, 8002);
        assert!(matches!(try_it('c'), Err(Refusal::Exhausted)));
    }

    #[test]
    fn ephemeral_ports_go_round() {
        let mut ports = Ports::default();
        let asked = requests(&["80/udp".into()], &PortMap::new(), true, EVERYWHERE).unwrap();
        let mut try_it = |who| {
            let got = ports.allocate(&id(who), &asked[0], (100, 102), &is_free).unwrap();
            ports.free(&id(who));
            got[0].mapping.host_port
        };
        assert_eq!([try_it('a'), try_it('b'), try_it('c'), try_it('d')], [100, 101, 102, 100]);
    }

    #[test]
    fn what_inspect_shows_is_read_back_from_the_record() {
        let port = Port::parse("80/tcp").unwrap();
        let mapping = |host_ip| Mapping { port, host_ip, host_port: 8080 };
        let mappings = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()].map(mapping);
        let map = shown(&["80/tcp".into(), "99/udp".into()], &mappings);
        assert_eq!(map["99/udp"], None);
        assert_eq!(map["80/tcp"].as_ref().unwrap()[1].host_ip, "::");
        assert_eq!(recorded(&map), mappings);
    }

    /// Runs on a host of its own, with `lo` up.
    fn alone(test: impl FnOnce() + Send) {
        cleat_sys::netns::create_with(|| {
            use super::super::link::{Which, up};
            use cleat_sys::netlink::{Family, Socket};
            Socket::open(Family::Route).unwrap().transact(&[up(Which::Name("lo"))]).unwrap();
            test();
        })
        .unwrap();
    }

    fn number(result: io::Result<OwnedFd>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn a_port_that_is_bound_is_nobody_elses_in_its_family() {
        alone(|| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let held = bind(protocol, Ipv4Addr::UNSPECIFIED.into(), 8099).unwrap();
                let again = bind(protocol, Ipv4Addr::LOCALHOST.into(), 8099);
                assert_eq!(number(again), libc::EADDRINUSE);
                let sixth = bind(protocol, Ipv6Addr::UNSPECIFIED.into(), 8099).unwrap();
                // The library sets SO_REUSEADDR, as servers do.
                let server = match protocol {
                    Protocol::Tcp => std::net::TcpListener::bind("127.0.0.1:8099").map(drop),
                    _ => std::net::UdpSocket::bind("127.0.0.1:8099").map(drop),
                };
                assert_eq!(server.unwrap_err().kind(), io::ErrorKind::AddrInUse);
                drop((held, sixth));
                bind(protocol, Ipv4Addr::LOCALHOST.into(), 8099).unwrap();
            }
            let foreign = bind(Protocol::Udp, Ipv4Addr::new(192, 0, 2, 1).into(), 8099);
            assert_eq!(number(foreign), libc::EADDRNOTAVAIL);
        });
    }

    #[test]
    fn a_protocol_that_the_kernel_lacks_is_an_error() {
        match bind(Protocol::Sctp, Ipv4Addr::LOCALHOST.into(), 8099) {
            Ok(_) => assert!(std::fs::exists("/proc/sys/net/sctp").unwrap()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT)),
        }
    }
}
