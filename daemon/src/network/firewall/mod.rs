//! The firewall: one nftables table `inet cleat[-suffix]`, changed in transactions, and only where it differs.
//!
//! ```text
//! chain raw          prerouting, before conntrack: drops what comes for 127/8 from another interface than lo, and what comes
//!                    from outside for the address of a container
//! chain prerouting   dnat by the map: first the very address, then any address of this host
//! chain output       the same for the host's own clients, localhost included (the bridge has route_localnet)
//! chain postrouting  masquerades what leaves the bridge, and what a published port sends back onto it
//! chain forward      user rules, then: into the bridge only what is known or published; between containers if `icc`
//! chain user         empty; the administrator's own rules, never touched
//! ```
//! Policies are `accept` throughout: the table decides about the bridge and leaves the rest of the host alone. An accept
//! here does not overrule a drop in somebody else's table.

mod conntrack;
mod nftables;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
};

use cleat_sys::{
    Errno,
    netlink::{Family, Message, Socket},
};

use self::nftables::{
    self as n,
    Compare::{Equal, NotEqual},
    Expression, Hook,
};
use super::{
    port_mapping::{DatagramPort, Targets},
    subnet::Subnet,
};

const MAP: &str = "ports";
/// Names the map within a transaction.
const MAP_ID: u32 = 1;
const USER_CHAIN: &str = "user";

/// Where chains hook in: `NF_INET_*`.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// What the table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bridge.
    pub bridge: String,
    /// Its subnet.
    pub subnet: Subnet,
    /// Containers may talk to each other.
    pub icc: bool,
}

struct Chain {
    name: &'static str,
    hook: Hook,
    rules: Vec<Rule>,
}

/// One rule: its steps, one after the other.
type Rule = Vec<Expression>;

fn rule<const N: usize>(steps: [Rule; N]) -> Rule {
    steps.concat()
}

/// The whole of the table that does not depend on containers.
fn chains(settings: &Settings) -> Vec<Chain> {
    let chain = |name, kind, number, priority, rules| {
        let hook = Hook { kind, number, priority };
        Chain { name, hook, rules }
    };
    vec![
        chain("raw", "filter", PREROUTING, -300, no_way_round(settings)),
        chain("prerouting", "nat", PREROUTING, -100, translations()),
        chain("output", "nat", OUTPUT, -100, translations()),
        chain("postrouting", "nat", POSTROUTING, 100, masquerades(settings)),
        chain("forward", "filter", FORWARD, 0, passages(settings)),
    ]
}

/// What comes from outside for localhost, or for a container past its published ports.
fn no_way_round(settings: &Settings) -> Vec<Rule> {
    let Settings { bridge, subnet, .. } = settings;
    vec![
        rule([
            n::from_interface(NotEqual, "lo"),
            n::is_ipv4(),
            n::to_subnet(Subnet::LOOPBACK),
            n::drop(),
        ]),
        rule([
            n::from_interface(NotEqual, bridge),
            n::is_ipv4(),
            n::to_subnet(*subnet),
            n::to_this_host(NotEqual),
            n::drop(),
        ]),
    ]
}

/// Published ports: at the very address first, then at any of this host's.
fn translations() -> Vec<Rule> {
    vec![
        rule([n::is_ipv4(), n::translate(MAP, MAP_ID, false)]),
        rule([n::is_ipv4(), n::to_this_host(Equal), n::translate(MAP, MAP_ID, true)]),
    ]
}

fn masquerades(settings: &Settings) -> Vec<Rule> {
    let Settings { bridge, subnet, .. } = settings;
    vec![
        rule([
            n::to_interface(NotEqual, bridge),
            n::is_ipv4(),
            n::from_subnet(*subnet),
            n::masquerade(),
        ]),
        // The container would answer a neighbour directly, past the translation, and 127/8 not at all.
        rule([
            n::to_interface(Equal, bridge),
            n::is_ipv4(),
            n::from_subnet(*subnet),
            n::is_published(),
            n::masquerade(),
        ]),
        rule([
            n::to_interface(Equal, bridge),
            n::is_ipv4(),
            n::from_subnet(Subnet::LOOPBACK),
            n::masquerade(),
        ]),
    ]
}

/// Who may pass: the administrator decides first.
fn passages(settings: &Settings) -> Vec<Rule> {
    let Settings { bridge, icc, .. } = settings;
    let between = if *icc { n::accept() } else { n::drop() };
    vec![
        n::jump(USER_CHAIN),
        rule([n::to_interface(Equal, bridge), n::is_known(), n::accept()]),
        rule([n::to_interface(Equal, bridge), n::is_published(), n::accept()]),
        rule([n::from_interface(Equal, bridge), n::to_interface(Equal, bridge), between]),
        rule([n::from_interface(Equal, bridge), n::accept()]),
        rule([n::to_interface(Equal, bridge), n::drop()]),
    ]
}

/// What a rule is recognised by when it is read back.
fn mark(rule: &[Expression]) -> Vec<u8> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    rule.iter().for_each(|expression| hash.update(expression.as_bytes()));
    hash.finalize()[..16].to_vec()
}

type Elements = BTreeMap<[u8; 12], [u8; 8]>;

fn elements(targets: &Targets) -> Elements {
    targets
        .iter()
        .map(|((protocol, address, port), (to_address, to_port))| {
            let key = nftables::port_key(*protocol, *address, *port);
            (key, nftables::port_target(*to_address, *to_port))
        })
        .collect()
}

/// The table as the kernel has it: each rule's mark by chain, and the map's elements.
#[derive(Debug, Default, PartialEq, Eq)]
struct Present {
    rules: BTreeMap<String, Vec<Vec<u8>>>,
    elements: Elements,
}

/// Our table.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    table: String,
}

impl Firewall {
    /// Opens a socket in the calling thread's namespace. Nothing is changed.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn open(table: String) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(Family::Netfilter)?, table })
    }

    /// Makes the table what it should be, in one transaction, if it is not so already; says whether it was changed.
    ///
    /// # Errors
    /// What the kernel answers; then nothing has changed.
    pub fn reconcile(&mut self, settings: &Settings, targets: &Targets) -> io::Result<bool> {
        let present = self.read()?;
        let chains = chains(settings);
        let mut changes = Vec::new();
        if !present.as_ref().is_some_and(|present| has_rules(present, &chains)) {
            changes = self.rules(&chains);
        }
        let present = present.unwrap_or_default();
        let wanted = elements(targets);
        self.change_elements(&mut changes, &present.elements, &wanted);
        self.commit(&changes)?;
        Ok(!changes.is_empty())
    }

    /// Adds what a container publishes.
    ///
    /// # Errors
    /// What the kernel answers; `ENOENT` if the table is gone.
    pub fn add(&mut self, targets: &Targets) -> io::Result<()> {
        let wanted = elements(targets);
        let changes: Vec<_> =
            chunks(&wanted).map(|some| nftables::new_elements(&self.table, MAP, some)).collect();
        self.commit(&changes)
    }

    /// Removes what a container published.
    ///
    /// # Errors
    /// What the kernel answers; an element or a table that is gone is none.
    pub fn remove(&mut self, targets: &Targets) -> io::Result<()> {
        let keys = elements(targets);
        let all: Vec<_> = keys.keys().collect();
        let whole: Vec<_> = all
            .chunks(CHUNK)
            .map(|some| nftables::delete_elements(&self.table, MAP, some.iter().copied()))
            .collect();
        match self.commit(&whole) {
            Err(error) if is_gone(&error) => {}
            other => return other,
        }
        // One of them was missing, and that undid the rest: take them one by one.
        for key in all {
            match self.commit(&[nftables::delete_elements(&self.table, MAP, [key])]) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Has conntrack forget the UDP flows to `ports`; `own` are the host's addresses.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn forget_flows(&mut self, ports: &[DatagramPort], own: &[Ipv4Addr]) -> io::Result<()> {
        for port in ports {
            let flows = self.socket.dump(&conntrack::flows_to(port.1))?;
            for (_, flow) in flows {
                let Some(forget) = conntrack::forget(&flow, *port, own) else { continue };
                match self.socket.transact(&[forget]) {
                    // It was over meanwhile.
                    Err(error) if !error.is_gone() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Deletes the table; the administrator's rules, if there are any, keep it and alone remain.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(present) = self.read()? else { return Ok(()) };
        if present.rules.get(USER_CHAIN).is_none_or(Vec::is_empty) {
            return self.commit(&[nftables::delete_table(&self.table)]);
        }
        let ours = present.rules.keys().filter(|chain| *chain != USER_CHAIN);
        let mut changes: Vec<_> =
            ours.map(|chain| nftables::flush_chain(&self.table, chain)).collect();
        self.change_elements(&mut changes, &present.elements, &Elements::new());
        self.commit(&changes)
    }

    /// Whether the table is there.
    #[cfg(test)]
    pub fn exists(&mut self) -> bool {
        self.read().unwrap().is_some()
    }

    /// Empties the map, if there is one.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn forget_elements(&mut self) -> io::Result<()> {
        let Some(present) = self.read()? else { return Ok(()) };
        let mut changes = Vec::new();
        self.change_elements(&mut changes, &present.elements, &Elements::new());
        self.commit(&changes)
    }

    fn rules(&self, chains: &[Chain]) -> Vec<Message> {
        let mut changes = vec![
            nftables::new_table(&self.table),
            nftables::new_port_map(&self.table, MAP, MAP_ID),
            nftables::new_chain(&self.table, USER_CHAIN, None),
        ];
        for chain in chains {
            changes.push(nftables::new_chain(&self.table, chain.name, Some(chain.hook)));
            changes.push(nftables::flush_chain(&self.table, chain.name));
        }
        for chain in chains {
            let rules = chain
                .rules
                .iter()
                .map(|rule| nftables::new_rule(&self.table, chain.name, rule, &mark(rule)));
            changes.extend(rules);
        }
        changes
    }

    fn change_elements(&self, changes: &mut Vec<Message>, present: &Elements, wanted: &Elements) {
        let old: Vec<_> =
            present.iter().filter(|(key, value)| wanted.get(*key) != Some(*value)).collect();
        let new: Elements = wanted
            .iter()
            .filter(|(key, value)| present.get(*key) != Some(*value))
            .map(|(key, value)| (*key, *value))
            .collect();
        for some in old.chunks(CHUNK) {
            let keys = some.iter().map(|(key, _)| *key);
            changes.push(nftables::delete_elements(&self.table, MAP, keys));
        }
        changes.extend(chunks(&new).map(|some| nftables::new_elements(&self.table, MAP, some)));
    }

    /// Reads the table back; `None` if there is none.
    fn read(&mut self) -> io::Result<Option<Present>> {
        let tables = self.socket.dump(&nftables::get_tables())?;
        let is_ours = |payload: &[u8]| {
            nftables::text_attribute(nftables::body(payload), 1) == Some(self.table.as_str())
        };
        if !tables.iter().any(|(_, payload)| is_ours(payload)) {
            return Ok(None);
        }
        let mut present = Present::default();
        for (_, payload) in self.socket.dump(&nftables::get_chains())? {
            if is_ours(&payload)
                && let Some(chain) = nftables::text_attribute(nftables::body(&payload), 3)
            {
                present.rules.entry(chain.to_owned()).or_default();
            }
        }
        for (kind, payload) in self.socket.dump(&nftables::get_rules(&self.table))? {
            let body = nftables::body(&payload);
            if nftables::Verb::NewRule.is(kind)
                && is_ours(&payload)
                && let Some(chain) = nftables::text_attribute(body, 2)
            {
                let mark = nftables::attribute(body, 7).unwrap_or_default().to_vec();
                present.rules.entry(chain.to_owned()).or_default().push(mark);
            }
        }
        match self.socket.dump(&nftables::get_elements(&self.table, MAP)) {
            Ok(answers) => {
                let all = answers.iter().flat_map(|(_, payload)| nftables::elements(payload));
                present.elements.extend(all);
            }
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Some(present))
    }

    fn commit(&mut self, changes: &[Message]) -> io::Result<()> {
        let (begin, end) = (nftables::begin(), nftables::end());
        Ok(self.socket.transact_atomically(&begin, changes, &end)?)
    }
}

/// An attribute's length has 16 bits; an element takes about 60 bytes.
const CHUNK: usize = 500;

type Element<'e> = (&'e [u8; 12], &'e [u8; 8]);

fn chunks(elements: &Elements) -> impl Iterator<Item = Vec<Element<'_>>> {
    let mut rest = elements.iter();
    std::iter::from_fn(move || {
        let some: Vec<_> = rest.by_ref().take(CHUNK).collect();
        (!some.is_empty()).then_some(some)
    })
}

fn is_gone(error: &io::Error) -> bool {
    // Of the numbers that nf_tables uses, ENOENT alone is of this kind.
    error.kind() == io::ErrorKind::NotFound
}

fn has_rules(present: &Present, chains: &[Chain]) -> bool {
    let known: BTreeSet<&str> = chains.iter().map(|chain| chain.name).chain([USER_CHAIN]).collect();
    present.rules.keys().all(|name| known.contains(name.as_str()))
        && present.rules.contains_key(USER_CHAIN)
        && chains.iter().all(|chain| {
            let marks: Vec<_> = chain.rules.iter().map(|rule| mark(rule)).collect();
            present.rules.get(chain.name) == Some(&marks)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_sys::netns;
    use std::net::Ipv4Addr;

    fn settings(icc: bool) -> Settings {
        let subnet = Subnet::parse("172.17.0.1/16").unwrap().1;
        Settings { bridge: "cleat0".into(), subnet, icc }
    }

    fn targets(ports: impl IntoIterator<Item = u16>) -> Targets {
        let to = Ipv4Addr::new(172, 17, 0, 2);
        ports.into_iter().map(|port| ((6, Ipv4Addr::UNSPECIFIED, port), (to, 80))).collect()
    }

    /// Runs in a network namespace of its own.
    fn alone(test: impl FnOnce(&mut Firewall) + Send) {
        netns::create_with(|| test(&mut Firewall::open("cleat-test".into()).unwrap())).unwrap();
    }

    #[test]
    fn a_table_that_is_right_is_left_alone() {
        alone(|firewall| {
            assert!(firewall.reconcile(&settings(true), &targets([80, 81])).unwrap());
            assert!(!firewall.reconcile(&settings(true), &targets([80, 81])).unwrap());
            let present = firewall.read().unwrap().unwrap();
            assert_eq!(present.elements, elements(&targets([80, 81])));
        });
    }

    #[test]
    fn what_differs_is_mended() {
        alone(|firewall| {
            firewall.reconcile(&settings(true), &targets([80, 81])).unwrap();
            assert!(firewall.reconcile(&settings(false), &targets([81, 82])).unwrap());
            let flush = nftables::flush_chain("cleat-test", "forward");
            firewall.commit(&[flush]).unwrap();
            assert!(firewall.reconcile(&settings(false), &targets([81, 82])).unwrap());
            assert!(!firewall.reconcile(&settings(false), &targets([81, 82])).unwrap());
            firewall.close().unwrap();
            assert_eq!(firewall.read().unwrap(), None);
            firewall.close().unwrap();
        });
    }

    #[test]
    fn elements_come_and_go_by_themselves() {
        alone(|firewall| {
            firewall.reconcile(&settings(true), &Targets::new()).unwrap();
            firewall.add(&targets(1..=1200)).unwrap();
            firewall.remove(&targets([1, 2])).unwrap();
            // Some of these are gone already.
            firewall.remove(&targets(1..=1100)).unwrap();
            let present = firewall.read().unwrap().unwrap();
            assert_eq!(present.elements, elements(&targets(1101..=1200)));
        });
    }

    #[test]
    fn the_administrators_rules_survive() {
        alone(|firewall| {
            firewall.reconcile(&settings(true), &targets([80])).unwrap();
            let own = nftables::new_rule("cleat-test", USER_CHAIN, &nftables::drop(), b"mine");
            firewall.commit(&[own]).unwrap();
            firewall.reconcile(&settings(false), &targets([80])).unwrap();
            firewall.close().unwrap();
            let left = firewall.read().unwrap().unwrap();
            assert_eq!(left.rules[USER_CHAIN], [b"mine".to_vec()]);
            assert_eq!(left.rules.values().flatten().count(), 1);
            assert!(left.elements.is_empty());
        });
    }
}
