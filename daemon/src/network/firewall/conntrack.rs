//! What the kernel remembers of flows: conntrack, of which we forget some. Source: `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::Ipv4Addr;

use cleat_sys::netlink::Message;

use super::{
    super::port_mapping::DatagramPort,
    nftables::{Attributes, attribute, body},
};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

/// `CTA_*`.
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// `CTA_TUPLE_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_V4_DST`.
const IPV4_DESTINATION: u16 = 2;
/// `CTA_PROTO_*`.
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

const UDP: u8 = libc::IPPROTO_UDP as u8;

fn message(kind: u16, attributes: &Attributes) -> Message {
    let payload = [&[libc::AF_INET as u8, 0, 0, 0], attributes.as_bytes()].concat();
    Message { kind, flags: 0, payload }
}

/// Asks for the UDP flows to a port. Kernels before 5.8 do not know the filter and tell of all flows.
pub fn flows_to(port: u16) -> Message {
    /// `CTA_FILTER_ORIG_FLAGS`, and in it `CTA_FILTER_F_CTA_PROTO_NUM` and `…_PROTO_DST_PORT`: what of the tuple is compared.
    const ORIGINAL_FLAGS: u16 = 1;
    const PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;
    let protocol = Attributes::default()
        .bytes(PROTOCOL_NUMBER, &[UDP])
        .bytes(DESTINATION_PORT, &port.to_be_bytes());
    let tuple = Attributes::default().nest(TUPLE_PROTOCOL, &protocol);
    let filter = Attributes::default().bytes(ORIGINAL_FLAGS, &PROTOCOL_AND_PORT.to_ne_bytes());
    let attributes = Attributes::default().nest(TUPLE_ORIGINAL, &tuple).nest(FILTER, &filter);
    message(GET, &attributes)
}

/// Makes of one answer the message that forgets the flow, if it is one of datagrams to `port` of this host.
pub fn forget(answer: &[u8], port: DatagramPort, own: &[Ipv4Addr]) -> Option<Message> {
    let answer = body(answer);
    let tuple = attribute(answer, TUPLE_ORIGINAL)?;
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    let number = *attribute(protocol, PROTOCOL_NUMBER)?.first()?;
    let to_port = u16::from_be_bytes(attribute(protocol, DESTINATION_PORT)?.try_into().ok()?);
    let to = attribute(attribute(tuple, TUPLE_IP)?, IPV4_DESTINATION)?;
    let to = Ipv4Addr::from(<[u8; 4]>::try_from(to).ok()?);
    // A flow that only passes through to the same port elsewhere is nobody's business here.
    let is_here = if port.0.is_unspecified() { own.contains(&to) } else { port.0 == to };
    if (number, to_port) != (UDP, port.1) || !is_here {
        return None;
    }
    let mut attributes = Attributes::default().nested(TUPLE_ORIGINAL, tuple);
    if let Some(id) = attribute(answer, ID) {
        attributes = attributes.bytes(ID, id);
    }
    Some(message(DELETE, &attributes))
}
