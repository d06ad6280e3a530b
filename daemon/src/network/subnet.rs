//! An IPv4 subnet: pure arithmetic.

use std::{fmt, net::Ipv4Addr};

/// A network address and its prefix length; no host bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix_length: u8,
}

impl Subnet {
    /// 127.0.0.0/8.
    pub const LOOPBACK: Self = Self { base: 127 << 24, prefix_length: 8 };

    /// Returns the subnet of that size in which `address` lies; `None` for a prefix longer than 32 bits.
    pub fn containing(address: Ipv4Addr, prefix_length: u8) -> Option<Self> {
        let mask = mask(prefix_length)?;
        Some(Self { base: u32::from(address) & mask, prefix_length })
    }

    /// Reads `address/length` into the address and its subnet.
    pub fn parse(text: &str) -> Option<(Ipv4Addr, Self)> {
        let (address, length) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        // `u8::from_str` takes a sign and leading zeroes; an address does not.
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some((address, Self::containing(address, length.parse().ok()?)?))
    }

    /// The length of the prefix, in bits.
    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }

    /// The first address: the network itself.
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// The last address.
    pub fn broadcast(self) -> Ipv4Addr {
        (self.base + (self.len() - 1) as u32).into()
    }

    /// How many addresses it has.
    pub fn len(self) -> u64 {
        1 << (32 - self.prefix_length)
    }

    /// The address `offset` places after the first; `None` beyond the last.
    pub fn nth(self, offset: u64) -> Option<Ipv4Addr> {
        (offset < self.len()).then(|| (self.base + offset as u32).into())
    }

    /// How far an address is from the first; `None` if it is not in the subnet.
    pub fn offset(self, address: Ipv4Addr) -> Option<u64> {
        self.contains(address).then(|| u64::from(u32::from(address) - self.base))
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::containing(address, self.prefix_length) == Some(self)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base()) || other.contains(self.base())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix_length)
    }
}

fn mask(prefix_length: u8) -> Option<u32> {
    match prefix_length {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix_length)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap().1
    }

    #[test]
    fn an_address_with_a_length_names_its_subnet() {
        let (address, subnet) = Subnet::parse("172.17.0.1/16").unwrap();
        assert_eq!(
            (address.to_string(), subnet.to_string()),
            ("172.17.0.1".into(), "172.17.0.0/16".into())
        );
        assert_eq!(subnet.broadcast().to_string(), "172.17.255.255");
        assert_eq!(subnet.nth(65535), Some(subnet.broadcast()));
        assert_eq!(subnet.nth(65536), None);
    }

    #[test]
    fn what_is_not_a_subnet_is_not_read() {
        for wrong in ["", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/+1", "1.2.3/8", "::1/64"] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn subnets_overlap_when_one_lies_in_the_other() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.1.0.0/16")));
        assert!(subnet("10.1.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.1.0.0/16").overlaps(subnet("10.2.0.0/16")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.2.0.0/16")));
    }
}
