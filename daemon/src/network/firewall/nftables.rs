//! nf_tables' netlink messages: only what our table needs. Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`.

use std::net::Ipv4Addr;

use cleat_sys::netlink::Message;

use super::super::subnet::Subnet;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_UNSPEC: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u32 = 2;
const NESTED: u16 = 0x8000;

/// `NFT_MSG_*`: the second byte of a message's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum Verb {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

impl Verb {
    /// Whether an answer is of this kind.
    pub fn is(self, kind: u16) -> bool {
        kind == SUBSYSTEM << 8 | self as u16
    }
}

/// Attributes, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends an attribute.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a C string.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Appends a number, big-endian as nf_tables wants it.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends attributes inside an attribute.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.nested(kind, &inner.0)
    }

    /// Appends an attribute that has others inside, as they came from the kernel.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &[u8]) -> Self {
        self.bytes(kind | NESTED, inner)
    }

    /// As the kernel gets them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Goes through the attributes in `bytes`: kind and value. A damaged rest is left out.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

/// Finds an attribute.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Finds an attribute that is a C string.
pub fn text_attribute(bytes: &[u8], wanted: u16) -> Option<&str> {
    let value = attribute(bytes, wanted)?;
    std::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value)).ok()
}

/// The attributes of an answer, behind its `nfgenmsg`.
pub fn body(payload: &[u8]) -> &[u8] {
    payload.get(4..).unwrap_or_default()
}

fn message(
    kind: u16,
    family: u8,
    resource: u16,
    flags: libc::c_int,
    attributes: &Attributes,
) -> Message {
    let mut payload = vec![family, 0];
    payload.extend_from_slice(&resource.to_be_bytes());
    payload.extend_from_slice(&attributes.0);
    Message { kind, flags: flags as u16, payload }
}

fn request(verb: Verb, flags: libc::c_int, attributes: &Attributes) -> Message {
    message(SUBSYSTEM << 8 | verb as u16, FAMILY_INET, 0, flags, attributes)
}

/// Opens a transaction.
pub fn begin() -> Message {
    message(BATCH_BEGIN, FAMILY_UNSPEC, SUBSYSTEM, 0, &Attributes::default())
}

/// Commits a transaction.
pub fn end() -> Message {
    message(BATCH_END, FAMILY_UNSPEC, SUBSYSTEM, 0, &Attributes::default())
}

/// Where a chain hooks in: `NFPROTO_INET`'s hooks, and the usual priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`.
    pub number: u32,
    /// Lower runs earlier.
    pub priority: i32,
}

/// Makes a table; one that is there is fine.
pub fn new_table(table: &str) -> Message {
    request(Verb::NewTable, libc::NLM_F_CREATE, &Attributes::default().text(1, table))
}

/// Deletes a table with all that is in it.
pub fn delete_table(table: &str) -> Message {
    request(Verb::DeleteTable, 0, &Attributes::default().text(1, table))
}

/// Makes a chain; one that is there is fine.
pub fn new_chain(table: &str, chain: &str, hook: Option<Hook>) -> Message {
    let mut attributes = Attributes::default().text(1, table).text(3, chain);
    if let Some(hook) = hook {
        let place =
            Attributes::default().number(1, hook.number).number(2, hook.priority.cast_unsigned());
        attributes = attributes.nest(4, &place).text(7, hook.kind);
    }
    request(Verb::NewChain, libc::NLM_F_CREATE, &attributes)
}

/// Deletes all rules of a chain.
pub fn flush_chain(table: &str, chain: &str) -> Message {
    request(Verb::DeleteRule, 0, &Attributes::default().text(1, table).text(2, chain))
}

/// Appends a rule; `mark` is ours to recognise it by.
pub fn new_rule(table: &str, chain: &str, expressions: &[Expression], mark: &[u8]) -> Message {
    let list = expressions
        .iter()
        .fold(Attributes::default(), |list, expression| list.nest(1, &expression.0));
    let attributes =
        Attributes::default().text(1, table).text(2, chain).nest(4, &list).bytes(7, mark);
    request(Verb::NewRule, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &attributes)
}

/// `ipv4_addr`, `inet_proto` and `inet_service` as nft(8) numbers its types; a concatenation takes six bits for each.
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;

/// Makes the map `protocol . address . port : address . port`; one that is there is fine. `id` names it within the transaction.
pub fn new_port_map(table: &str, map: &str, id: u32) -> Message {
    const MAP: u32 = 8;
    let attributes = Attributes::default()
        .text(1, table)
        .text(2, map)
        .number(3, MAP)
        .number(4, TYPE_PROTOCOL << 12 | TYPE_ADDRESS << 6 | TYPE_SERVICE)
        .number(5, 12)
        .number(6, TYPE_ADDRESS << 6 | TYPE_SERVICE)
        .number(7, 8)
        .number(10, id);
    request(Verb::NewSet, libc::NLM_F_CREATE, &attributes)
}

/// The key of one element: each field in 32 bits, as concatenations are kept.
pub fn port_key(protocol: u8, address: Ipv4Addr, port: u16) -> [u8; 12] {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    [protocol, 0, 0, 0, a, b, c, d, high, low, 0, 0]
}

/// The value of one element.
pub fn port_target(address: Ipv4Addr, port: u16) -> [u8; 8] {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}

/// Adds elements to a map.
pub fn new_elements<'e>(
    table: &str,
    map: &str,
    elements: impl IntoIterator<Item = (&'e [u8; 12], &'e [u8; 8])>,
) -> Message {
    let list = elements.into_iter().fold(Attributes::default(), |list, (key, value)| {
        list.nest(1, &Attributes::default().nest(1, &data(key)).nest(2, &data(value)))
    });
    let attributes = Attributes::default().text(1, table).text(2, map).nest(3, &list);
    request(Verb::NewElement, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &attributes)
}

/// Removes elements from a map. All must be there.
pub fn delete_elements<'e>(
    table: &str,
    map: &str,
    keys: impl IntoIterator<Item = &'e [u8; 12]>,
) -> Message {
    let list = keys.into_iter().fold(Attributes::default(), |list, key| {
        list.nest(1, &Attributes::default().nest(1, &data(key)))
    });
    let attributes = Attributes::default().text(1, table).text(2, map).nest(3, &list);
    request(Verb::DeleteElement, 0, &attributes)
}

/// Asks for all tables of the family.
pub fn get_tables() -> Message {
    request(Verb::GetTable, 0, &Attributes::default())
}

/// Asks for all chains of the family.
pub fn get_chains() -> Message {
    request(Verb::GetChain, 0, &Attributes::default())
}

/// Asks for the rules of a table.
pub fn get_rules(table: &str) -> Message {
    request(Verb::GetRule, 0, &Attributes::default().text(1, table))
}

/// Asks for the elements of a map.
pub fn get_elements(table: &str, map: &str) -> Message {
    request(Verb::GetElement, 0, &Attributes::default().text(1, table).text(2, map))
}

/// Reads the elements of an answer: key and value.
pub fn elements(payload: &[u8]) -> Vec<([u8; 12], [u8; 8])> {
    let list = attribute(body(payload), 3).unwrap_or_default();
    let value = |element, kind| attribute(attribute(element, kind)?, 1);
    attributes(list)
        .filter_map(|(_, element)| {
            Some((value(element, 1)?.try_into().ok()?, value(element, 2)?.try_into().ok()?))
        })
        .collect()
}

fn data(value: &[u8]) -> Attributes {
    Attributes::default().bytes(1, value)
}

/// One step of a rule. A rule goes on to its next step as long as the comparisons hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Attributes);

impl Expression {
    /// As the kernel gets it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }
}

/// The register of 16 bytes that most steps use, and the 32-bit ones that lie behind its first four bytes.
const REGISTER: u32 = 1;
const REGISTER_4: u32 = 9;
const REGISTER_8: u32 = 10;
const VERDICT_REGISTER: u32 = 0;

/// What is compared, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Compare {
    /// Goes on if equal.
    Equal = 0,
    /// Goes on unless equal.
    NotEqual = 1,
}

fn expression(name: &str, attributes: &Attributes) -> Expression {
    Expression(Attributes::default().text(1, name).nest(2, attributes))
}

fn meta(key: u32) -> Expression {
    expression("meta", &Attributes::default().number(2, key).number(1, REGISTER))
}

fn payload(base: u32, offset: u32, length: u32, register: u32) -> Expression {
    let attributes = Attributes::default().number(1, register).number(2, base);
    expression("payload", &attributes.number(3, offset).number(4, length))
}

fn compare(how: Compare, value: &[u8]) -> Expression {
    let attributes = Attributes::default().number(1, REGISTER).number(2, how as u32);
    expression("cmp", &attributes.nest(3, &data(value)))
}

fn mask(mask: [u8; 4]) -> Expression {
    let attributes = Attributes::default().number(1, REGISTER).number(2, REGISTER).number(3, 4);
    expression("bitwise", &attributes.nest(4, &data(&mask)).nest(5, &data(&[0; 4])))
}

/// `meta nfproto ipv4`: what follows may look at IPv4 fields.
pub fn is_ipv4() -> Vec<Expression> {
    vec![meta(15), compare(Compare::Equal, &[FAMILY_IPV4 as u8])]
}

fn interface(key: u32, how: Compare, name: &str) -> Vec<Expression> {
    let mut padded = [0; 16];
    for (place, byte) in padded.iter_mut().zip(name.bytes().take(15)) {
        *place = byte;
    }
    vec![meta(key), compare(how, &padded)]
}

/// `iifname`.
pub fn from_interface(how: Compare, name: &str) -> Vec<Expression> {
    interface(6, how, name)
}

/// `oifname`.
pub fn to_interface(how: Compare, name: &str) -> Vec<Expression> {
    interface(7, how, name)
}

fn address(offset: u32, subnet: Subnet) -> Vec<Expression> {
    let bits = u32::MAX.checked_shl(32 - u32::from(subnet.prefix_length())).unwrap_or(0);
    vec![
        payload(1, offset, 4, REGISTER),
        mask(bits.to_be_bytes()),
        compare(Compare::Equal, &subnet.base().octets()),
    ]
}

/// `ip saddr`, after [`is_ipv4`].
pub fn from_subnet(subnet: Subnet) -> Vec<Expression> {
    address(12, subnet)
}

/// `ip daddr`, after [`is_ipv4`].
pub fn to_subnet(subnet: Subnet) -> Vec<Expression> {
    address(16, subnet)
}

/// `fib daddr type local`, or not.
pub fn to_this_host(how: Compare) -> Vec<Expression> {
    const ADDRESS_TYPE: u32 = 3;
    const BY_DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let attributes = Attributes::default().number(1, REGISTER);
    vec![
        expression("fib", &attributes.number(2, ADDRESS_TYPE).number(3, BY_DESTINATION)),
        compare(how, &LOCAL.to_ne_bytes()),
    ]
}

fn conntrack(key: u32, bits: u32) -> Vec<Expression> {
    vec![
        expression("ct", &Attributes::default().number(2, key).number(1, REGISTER)),
        mask(bits.to_ne_bytes()),
        compare(Compare::NotEqual, &[0; 4]),
    ]
}

/// `ct state established,related`.
pub fn is_known() -> Vec<Expression> {
    conntrack(0, 2 | 4)
}

/// `ct status dnat`: a published port leads here.
pub fn is_published() -> Vec<Expression> {
    const DESTINATION_NAT: u32 = 1 << 5;
    conntrack(2, DESTINATION_NAT)
}

/// `dnat ip to meta l4proto . ip daddr . th dport map @…`, after [`is_ipv4`]; with `anywhere`, 0.0.0.0 stands for the address.
pub fn translate(map: &str, id: u32, anywhere: bool) -> Vec<Expression> {
    let l4_protocol = expression("meta", &Attributes::default().number(2, 16).number(1, REGISTER));
    let address = if anywhere {
        let attributes = Attributes::default().number(1, REGISTER_4).nest(2, &data(&[0; 4]));
        expression("immediate", &attributes)
    } else {
        payload(1, 16, 4, REGISTER_4)
    };
    let lookup = Attributes::default().text(1, map).number(2, REGISTER).number(3, REGISTER);
    let nat = Attributes::default().number(1, 1).number(2, FAMILY_IPV4).number(3, REGISTER);
    vec![
        l4_protocol,
        address,
        payload(2, 2, 2, REGISTER_8),
        expression("lookup", &lookup.number(4, id)),
        expression("nat", &nat.number(5, REGISTER_4)),
    ]
}

/// `masquerade`.
pub fn masquerade() -> Vec<Expression> {
    vec![expression("masq", &Attributes::default())]
}

fn verdict(attributes: &Attributes) -> Vec<Expression> {
    let data = Attributes::default().nest(2, attributes);
    vec![expression("immediate", &Attributes::default().number(1, VERDICT_REGISTER).nest(2, &data))]
}

/// `accept`.
pub fn accept() -> Vec<Expression> {
    verdict(&Attributes::default().number(1, 1))
}

/// `drop`.
pub fn drop() -> Vec<Expression> {
    verdict(&Attributes::default().number(1, 0))
}

/// `jump`.
pub fn jump(chain: &str) -> Vec<Expression> {
    const JUMP: i32 = -3;
    verdict(&Attributes::default().number(1, JUMP.cast_unsigned()).text(2, chain))
}
