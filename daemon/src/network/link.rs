//! Links, addresses and routes as netlink requests, and the few questions we ask about them. Requests are pure values, so
//! that a whole set-up goes to the kernel in one write. Source: `rtnetlink(7)`, `linux/if_link.h`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use cleat_sys::netlink::{Message, Socket};
use netlink_packet_core::{DefaultNla, Emitable, Parseable};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::subnet::Subnet;

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const DELETE_LINK: u16 = libc::RTM_DELLINK;
const GET_LINK: u16 = libc::RTM_GETLINK;
const NEW_ADDRESS: u16 = libc::RTM_NEWADDR;
const GET_ADDRESS: u16 = libc::RTM_GETADDR;
const NEW_ROUTE: u16 = libc::RTM_NEWROUTE;
const GET_ROUTE: u16 = libc::RTM_GETROUTE;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// `IFLA_INFO_SLAVE_KIND`, `IFLA_INFO_SLAVE_DATA`, `IFLA_BRPORT_MODE`, `IFLA_BRPORT_ISOLATED`.
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const BRIDGE_PORT_ISOLATED: u16 = 33;

/// Which link a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// By its number in the namespace.
    Index(u32),
    /// By its name.
    Name(&'a str),
}

/// What we want to know of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The number of the bridge that it is a port of; 0 for none.
    pub master: u32,
    /// `IFLA_IFALIAS`.
    pub alias: String,
    /// `bridge`, `veth` …
    pub kind: String,
    /// Whether it is up.
    pub up: bool,
    /// Its hardware address, as the kernel prints it.
    pub mac: String,
}

/// Asks for a new bridge. It has to have an address of its own: else it takes a port's, and changes it as ports come and go,
/// and what containers know of their gateway is wrong each time.
pub fn new_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Message {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    if mtu != 0 {
        link.attributes.push(LinkAttribute::Mtu(mtu));
    }
    request(NEW_LINK, CREATE, &link)
}

/// A pair of veths to be made: one a port of a bridge here, the other in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name here.
    pub name: &'a str,
    /// The bridge's number; 0 for none.
    pub master: u32,
    /// The name there.
    pub peer: &'a str,
    /// The hardware address there.
    pub peer_mac: [u8; 6],
    /// There.
    pub namespace: BorrowedFd<'a>,
    /// Both ends'; 0 is the default.
    pub mtu: u32,
}

/// Asks for a pair of veths.
pub fn new_veth(veth: &Veth<'_>) -> Message {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.peer.to_owned()),
        LinkAttribute::Address(veth.peer_mac.to_vec()),
        LinkAttribute::NetNsFd(veth.namespace.as_raw_fd()),
    ];
    let mut link = LinkMessage::default();
    if veth.mtu != 0 {
        peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
        link.attributes.push(LinkAttribute::Mtu(veth.mtu));
    }
    link.attributes.extend([
        LinkAttribute::IfName(veth.name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    if veth.master != 0 {
        link.attributes.push(LinkAttribute::Controller(veth.master));
    }
    request(NEW_LINK, CREATE, &link)
}

/// Asks for a link to be up.
pub fn up(which: Which<'_>) -> Message {
    change(which, |link| {
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
    })
}

/// Asks that a port belong to a bridge, carry an alias and be up. A bridge that is gone is an error, even for a port that is
/// nobody's meanwhile.
pub fn up_as_port(which: Which<'_>, master: u32, alias: &str) -> Message {
    change(which, |link| {
        link.attributes.push(LinkAttribute::Controller(master));
        link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
    })
}

/// Asks that a link carry an alias. The kernel takes this only once the link is there.
pub fn set_alias(which: Which<'_>, alias: &str) -> Message {
    change(which, |link| link.attributes.push(LinkAttribute::IfAlias(alias.to_owned())))
}

/// Asks that a link make itself no IPv6 address: a bridge's port must not listen to what a container says. The kernel
/// takes this only once the link is there.
pub fn no_ipv6_address(which: Which<'_>) -> Message {
    change(which, |link| {
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
            AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
        ])]));
    })
}

/// Asks for another hardware address. The link must be down for some drivers, not for veth.
pub fn set_mac(which: Which<'_>, mac: [u8; 6]) -> Message {
    change(which, |link| link.attributes.push(LinkAttribute::Address(mac.to_vec())))
}

/// Asks that a bridge's port send back where it came from what a published port turns around (that is needed where
/// br_netfilter translates inside the bridge), and, if `isolated`, exchange nothing with other isolated ports (Linux 4.18).
pub fn port_flags(which: Which<'_>, isolated: bool) -> Message {
    let flags = [(BRIDGE_PORT_HAIRPIN, true), (BRIDGE_PORT_ISOLATED, isolated)];
    let mut data = Vec::new();
    for (flag, _) in flags.into_iter().filter(|(_, on)| *on) {
        let attribute = DefaultNla::new(flag, vec![1]);
        let start = data.len();
        data.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut data[start..]);
    }
    change(which, |link| {
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Other(DefaultNla::new(INFO_PORT_KIND, b"bridge\0".to_vec())),
            LinkInfo::Other(DefaultNla::new(INFO_PORT_DATA, data)),
        ]));
    })
}

/// Asks for a link to go. One end of a veth pair takes the other with it.
pub fn delete(which: Which<'_>) -> Message {
    let Message { flags, payload, .. } = change(which, |_| ());
    Message { kind: DELETE_LINK, flags, payload }
}

/// Asks for an address on a link, with its broadcast address, as Docker has it.
pub fn add_address(index: u32, address: Ipv4Addr, subnet: Subnet) -> Message {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.prefix_length();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(subnet.broadcast()),
    ];
    request(NEW_ADDRESS, CREATE, &message)
}

/// Asks for an address to go.
#[cfg(test)]
pub fn delete_address(index: u32, address: Ipv4Addr, prefix_length: u8) -> Message {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_length;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(IpAddr::V4(address))];
    request(libc::RTM_DELADDR, 0, &message)
}

/// Asks for the default route.
pub fn add_default_route(gateway: Ipv4Addr) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    request(NEW_ROUTE, CREATE, &message)
}

/// Returns all links of the socket's namespace.
///
/// # Errors
/// What the kernel answers.
pub fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let answers = socket.dump(&request(GET_LINK, 0, &LinkMessage::default()))?;
    Ok(answers
        .iter()
        .filter(|(kind, _)| *kind == NEW_LINK)
        .filter_map(|(_, payload)| LinkMessage::parse(payload).ok())
        .map(|message| link_of(&message))
        .collect())
}

/// Finds a link by name.
///
/// # Errors
/// What the kernel answers; a missing link is `None`.
pub fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    Ok(links(socket)?.into_iter().find(|link| link.name == name))
}

/// Returns the IPv4 addresses in the socket's namespace: link, address, prefix length.
///
/// # Errors
/// What the kernel answers.
pub fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Ipv4Addr, u8)>> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let answers = socket.dump(&request(GET_ADDRESS, 0, &question))?;
    let messages = answers
        .iter()
        .filter(|(kind, _)| *kind == NEW_ADDRESS)
        .filter_map(|(_, payload)| AddressMessage::parse(payload).ok());
    Ok(messages
        .filter_map(|message| {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })?;
            Some((message.header.index, local, message.header.prefix_len))
        })
        .collect())
}

/// Returns where the main table's IPv4 routes lead, the default route left out, with the link they go out of.
///
/// # Errors
/// What the kernel answers.
pub fn routes(socket: &mut Socket) -> io::Result<Vec<(Subnet, u32)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let answers = socket.dump(&request(GET_ROUTE, 0, &question))?;
    let messages = answers
        .iter()
        .filter(|(kind, _)| *kind == NEW_ROUTE)
        .filter_map(|(_, payload)| RouteMessage::parse(payload).ok());
    Ok(messages
        .filter(|message| message.header.table == RouteHeader::RT_TABLE_MAIN)
        .filter_map(|message| {
            let to = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            })?;
            let out = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            let subnet = Subnet::containing(to, message.header.destination_prefix_length)?;
            Some((subnet, out.unwrap_or_default()))
        })
        .collect())
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Controller(index) => link.master = *index,
            LinkAttribute::Address(bytes) => {
                let parts: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                link.mac = parts.join(":");
            }
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

fn change(which: Which<'_>, with: impl FnOnce(&mut LinkMessage)) -> Message {
    let mut link = LinkMessage::default();
    match which {
        Which::Index(index) => link.header.index = index,
        Which::Name(name) => link.attributes.push(LinkAttribute::IfName(name.to_owned())),
    }
    with(&mut link);
    request(NEW_LINK, 0, &link)
}

fn request(kind: u16, flags: u16, body: &impl Emitable) -> Message {
    let mut payload = vec![0; body.buffer_len()];
    body.emit(&mut payload);
    Message { kind, flags, payload }
}
