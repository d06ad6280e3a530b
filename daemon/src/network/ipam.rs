//! Addresses of one pool. Which are taken is derived from the containers' records at every start; nothing of it is stored.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::subnet::Subnet;

/// Docker's pools for the default bridge when nobody names one, in its order (`172.17.0.0/16` … `192.168.240.0/20`).
pub fn default_pools() -> impl Iterator<Item = Subnet> {
    let large = (17..32).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    large.chain(small).filter_map(|(base, length)| Subnet::containing(base, length))
}

/// Returns the first default pool that overlaps none of `used` (the host's routes and addresses).
pub fn choose_pool(used: &[Subnet]) -> Option<Subnet> {
    default_pools().find(|pool| !used.iter().any(|other| pool.overlaps(*other)))
}

/// The addresses of a subnet, and which of them are taken. The first and the last are nobody's.
#[derive(Clone, Debug)]
pub struct Pool {
    subnet: Subnet,
    taken: BTreeSet<u64>,
    /// Where the search goes on: an address that was freed is not given out again until the others were.
    next: u64,
}

impl Pool {
    /// Makes a pool of which the gateway's address is taken.
    pub fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        let mut pool = Self { subnet, taken: BTreeSet::new(), next: 1 };
        pool.take(gateway);
        pool
    }

    /// Takes a certain address; `false` if it is taken already or not in the pool.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        self.subnet.offset(address).is_some_and(|offset| self.taken.insert(offset))
    }

    /// Takes any free address.
    pub fn take_any(&mut self) -> Option<Ipv4Addr> {
        let last = self.subnet.len().checked_sub(1)?;
        let is_free = |offset: &u64| !self.taken.contains(offset);
        let found = (self.next..last).chain(1..self.next.min(last)).find(is_free)?;
        self.taken.insert(found);
        self.next = found + 1;
        self.subnet.nth(found)
    }

    /// Gives an address back.
    pub fn free(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.subnet.offset(address) {
            self.taken.remove(&offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(text: &str) -> Pool {
        let (gateway, subnet) = Subnet::parse(text).unwrap();
        Pool::new(subnet, gateway)
    }

    #[test]
    fn an_address_that_was_freed_is_not_the_next_one() {
        let mut pool = pool("10.0.0.1/29");
        let taken: Vec<_> = (0..3).map(|_| pool.take_any().unwrap().octets()[3]).collect();
        assert_eq!(taken, [2, 3, 4]);
        pool.free(Ipv4Addr::new(10, 0, 0, 3));
        let taken: Vec<_> = (0..3).filter_map(|_| pool.take_any()).map(|a| a.octets()[3]).collect();
        assert_eq!(taken, [5, 6, 3]);
        assert_eq!(pool.take_any(), None);
    }

    #[test]
    fn a_gateway_in_the_middle_is_left_out() {
        let mut pool = pool("10.0.0.2/30");
        assert_eq!(pool.take_any(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(pool.take_any(), None);
    }

    #[test]
    fn a_subnet_without_room_gives_nothing() {
        assert_eq!(pool("10.0.0.1/32").take_any(), None);
        assert_eq!(pool("10.0.0.1/31").take_any(), None);
    }

    #[test]
    fn the_pools_are_dockers_and_used_ones_are_skipped() {
        let all: Vec<_> = default_pools().map(|pool| pool.to_string()).collect();
        assert_eq!(
            (all.len(), &*all[0], &*all[14], &*all[15], &*all[30]),
            (31, "172.17.0.0/16", "172.31.0.0/16", "192.168.0.0/20", "192.168.240.0/20")
        );
        let used = Subnet::parse("172.17.3.0/24").unwrap().1;
        assert_eq!(choose_pool(&[used]).unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(choose_pool(&[Subnet::parse("0.0.0.0/0").unwrap().1]), None);
    }
}
