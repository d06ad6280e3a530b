//! The default bridge: the link, its addresses, and who is on it. All of it blocks for as long as the kernel takes; a call
//! comes in its turn.
//!
//! The bridge and the table are made when the first container needs them. A veth carries in its alias whose it is
//! (`cleat[-suffix]:<container id>`), so that a restart finds them again.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::Path,
};

use cleat_proto::id::ContainerId;
use cleat_sys::{
    netlink::{self, Family, Socket},
    netns,
};

use super::{
    Config, Error,
    firewall::{Firewall, Settings},
    ipam,
    link::{self, Which},
    pool::{self, Pool, Ready, Uplink},
    port_mapping::{self, Bound, Mapping, Ports, Refusal, Request, Targets},
    subnet::Subnet,
};

/// Who is on the bridge, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// What it publishes.
    pub mappings: Vec<Mapping>,
}

/// What a container that was connected got.
#[derive(Debug)]
pub struct Connected {
    /// The namespace.
    pub netns: OwnedFd,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// What it publishes, with the sockets that keep the ports.
    pub bound: Vec<Bound>,
}

/// A container that lives while the daemon starts.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Who.
    pub container: ContainerId,
    /// As recorded.
    pub endpoint: Endpoint,
    /// As recorded.
    pub mac: Option<[u8; 6]>,
    /// As recorded: the bridge's address when it was connected.
    pub gateway: Option<(Ipv4Addr, Subnet)>,
    /// Its namespace.
    pub netns: std::path::PathBuf,
}

/// Why a container was not connected.
#[derive(Debug)]
pub enum Refused {
    /// No address is left.
    NoAddress,
    /// A port cannot be had; the container's address is part of Docker's text.
    Port {
        /// What was asked for.
        request: Request,
        /// The container's address.
        address: Ipv4Addr,
        /// Why not.
        refusal: Refusal,
    },
    /// The kernel failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The bridge of one daemon.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    /// Begins the alias of every link that is ours.
    mark: String,
    mtu: u32,
    icc: bool,
    /// The user chose it; otherwise it may still move as long as nobody is on it.
    fixed: bool,
    gateway: Ipv4Addr,
    subnet: Subnet,
    host: Socket,
    firewall: Firewall,
    addresses: ipam::Pool,
    ports: Ports,
    /// `None` until the bridge and the table are known to be there.
    pool: Option<Pool>,
    endpoints: BTreeMap<ContainerId, Endpoint>,
    /// Each container's end on the host.
    links: HashMap<ContainerId, String>,
}

impl Bridge {
    /// Looks at what there is and decides on the subnet. Nothing is made.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad `bip`, [`Error::Failed`] if netlink does not answer.
    pub fn open(config: &Config, name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', ':']) {
            return Err(Error::Invalid(format!("invalid bridge name: {name:?}")));
        }
        let mark = match config.suffix.as_str() {
            "" => "cleat".to_owned(),
            suffix => format!("cleat-{suffix}"),
        };
        let mut host = Socket::open(Family::Route)
            .map_err(|errno| failed("cannot open netlink")(errno.into()))?;
        let fixed = config.bip.as_deref().map(parse_bip).transpose()?;
        let found = match fixed {
            Some(chosen) => chosen,
            None => choose(&mut host, name)?,
        };
        let (gateway, subnet) = found;
        Ok(Self {
            name: name.to_owned(),
            mtu: config.mtu,
            icc: config.icc,
            fixed: fixed.is_some(),
            gateway,
            subnet,
            host,
            firewall: Firewall::open(mark.clone()).map_err(failed("cannot open nf_tables"))?,
            mark,
            addresses: ipam::Pool::new(subnet, gateway),
            ports: Ports::default(),
            pool: None,
            endpoints: BTreeMap::new(),
            links: HashMap::new(),
        })
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The bridge's subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Who is connected.
    #[cfg(test)]
    pub fn endpoints(&self) -> &BTreeMap<ContainerId, Endpoint> {
        &self.endpoints
    }

    /// Whether our table is there.
    #[cfg(test)]
    pub fn has_table(&mut self) -> bool {
        self.firewall.exists()
    }

    /// Connects a container. If it fails, nothing is left of it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn connect(
        &mut self,
        container: &ContainerId,
        mac: Option<[u8; 6]>,
        requests: &[Request],
    ) -> Result<Connected, Refused> {
        self.ensure()?;
        let address = self.addresses.take_any().ok_or(Refused::NoAddress)?;
        let connected = self.connect_at(container, address, mac, requests);
        if connected.is_err() {
            self.ports.free(container);
            self.addresses.free(address);
        }
        connected
    }

    fn connect_at(
        &mut self,
        container: &ContainerId,
        address: Ipv4Addr,
        mac: Option<[u8; 6]>,
        requests: &[Request],
    ) -> Result<Connected, Refused> {
        let bound = self.allocate(container, address, requests)?;
        let mappings: Vec<Mapping> = bound.iter().map(|bound| bound.mapping).collect();
        let connect = failed("cannot connect the container to the bridge");
        let mac = mac.map_or_else(pool::random_mac, Ok).map_err(&connect)?;
        let (netns, link) = match self.plug(container, address, mac) {
            // Somebody may have removed the bridge under us: make it again, once.
            Err(_) => {
                self.pool = None;
                self.ensure()?;
                self.plug(container, address, mac)
            }
            plugged => plugged,
        }
        .map_err(&connect)?;
        let mut targets = Targets::new();
        port_mapping::add_targets(&mut targets, address, &mappings);
        let endpoint = Endpoint { address, mappings: mappings.clone() };
        self.endpoints.insert(container.clone(), endpoint);
        self.links.insert(container.clone(), link);
        let published = match self.firewall.add(&targets) {
            // Somebody flushed the ruleset, or left an element of the same key.
            Err(_) => self.reconcile_firewall(),
            Ok(()) => Ok(()),
        };
        if let Err(error) = published {
            self.unplug(container);
            self.endpoints.remove(container);
            return Err(failed("cannot publish the container's ports")(error).into());
        }
        self.forget_flows(&mappings);
        Ok(Connected { netns, address, mac, bound })
    }

    fn allocate(
        &mut self,
        container: &ContainerId,
        address: Ipv4Addr,
        requests: &[Request],
    ) -> Result<Vec<Bound>, Refused> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let ephemeral = port_mapping::ephemeral_range();
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let bound = self.ports.allocate(container, request, ephemeral, &port_mapping::bind);
            all.extend(bound.map_err(|refusal| {
                let request = request.clone();
                Refused::Port { request, address, refusal }
            })?);
        }
        Ok(all)
    }

    /// Gives a ready namespace its address and its place on the bridge.
    fn plug(
        &mut self,
        container: &ContainerId,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> io::Result<(OwnedFd, String)> {
        let pool = self.pool.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let bridge = pool.uplink().bridge;
        let mut ready = pool.take()?;
        let alias = self.alias(container);
        let outside = link::up_as_port(Which::Name(&ready.name), bridge, &alias);
        let plugged = self
            .host
            .transact(&[outside])
            .and_then(|()| ready.inside.transact(&self.inner_requests(&ready, address, mac)));
        match plugged {
            Ok(()) => Ok((ready.netns, ready.name)),
            Err(error) => {
                pool::discard(&mut self.host, &ready);
                Err(error.into())
            }
        }
    }

    fn inner_requests(
        &self,
        ready: &Ready,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> [netlink::Message; 4] {
        let which = Which::Index(ready.index);
        [
            link::set_mac(which, mac),
            link::add_address(ready.index, address, self.subnet),
            link::up(which),
            link::add_default_route(self.gateway),
        ]
    }

    /// Takes back what a container has, its veth excepted: that goes with the namespace. Idempotent.
    ///
    /// # Errors
    /// [`Error::Failed`] if the firewall cannot be changed.
    pub fn disconnect(&mut self, container: &ContainerId) -> Result<(), Error> {
        if let Some(link) = self.links.remove(container) {
            // It is nobody's from now on: a restart of the container has a link of its own.
            let gone = link::set_alias(Which::Name(&link), &format!("{}:gone", self.mark));
            let _ = self.host.transact(&[gone]);
        }
        let withdrawn = self.withdraw(container);
        if let Some(endpoint) = self.endpoints.remove(container) {
            self.addresses.free(endpoint.address);
        }
        withdrawn
    }

    /// Takes back a container's ports. Idempotent.
    ///
    /// # Errors
    /// [`Error::Failed`] if the firewall cannot be changed.
    pub fn withdraw(&mut self, container: &ContainerId) -> Result<(), Error> {
        let Some(endpoint) = self.endpoints.get_mut(container) else { return Ok(()) };
        let mappings = std::mem::take(&mut endpoint.mappings);
        let mut targets = Targets::new();
        port_mapping::add_targets(&mut targets, endpoint.address, &mappings);
        self.ports.free(container);
        if targets.is_empty() {
            return Ok(());
        }
        let removed = self.firewall.remove(&targets);
        self.forget_flows(&mappings);
        removed.map_err(failed("cannot withdraw the container's ports"))
    }

    /// Has the kernel decide anew where the datagrams go of clients that speak to these ports already: it remembers that for as
    /// long as they go on.
    fn forget_flows(&mut self, mappings: &[Mapping]) {
        let ports = port_mapping::datagram_ports(mappings);
        if ports.is_empty() {
            return;
        }
        let forgotten = link::addresses(&mut self.host).and_then(|addresses| {
            let own: Vec<Ipv4Addr> = addresses.iter().map(|(_, address, _)| *address).collect();
            self.firewall.forget_flows(&ports, &own)
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "cannot forget the flows of a published port");
        }
    }

    /// Removes a container's veth by hand, for a namespace that nobody took.
    pub fn unplug(&mut self, container: &ContainerId) {
        if let Some(link) = self.links.remove(container)
            && let Err(error) = self.host.transact(&[link::delete(Which::Name(&link))])
        {
            tracing::warn!(%container, link, %error, "cannot remove the container's link");
        }
    }

    /// Learns who is there, removes what is ours and nobody's, and restores what is missing.
    ///
    /// # Errors
    /// [`Error::Failed`]; as much as possible is done nevertheless.
    pub fn restore(&mut self, survivors: &[Survivor]) -> Result<(), Error> {
        if let Some((gateway, subnet)) = survivors.iter().find_map(|survivor| survivor.gateway) {
            self.move_to(gateway, subnet);
        }
        for Survivor { container, endpoint, .. } in survivors {
            self.addresses.take(endpoint.address);
            endpoint.mappings.iter().for_each(|mapping| self.ports.take(container, *mapping));
            self.endpoints.insert(container.clone(), endpoint.clone());
        }
        let links = link::links(&mut self.host).map_err(failed("cannot list the links"))?;
        let prefix = format!("{}:", self.mark);
        for link in links.iter().filter(|link| link.kind == "veth") {
            let Some(owner) = link.alias.strip_prefix(&prefix) else { continue };
            match survivors.iter().find(|survivor| survivor.container.as_str() == owner) {
                Some(survivor) => {
                    self.links.insert(survivor.container.clone(), link.name.clone());
                }
                // It may be going by itself, with the namespace at its other end.
                None => drop(self.host.transact(&[link::delete(Which::Index(link.index))])),
            }
        }
        if survivors.is_empty() {
            // A table that is there may still lead ports to where nobody is.
            return self.firewall.forget_elements().map_err(failed("cannot clear the firewall"));
        }
        self.ensure()?;
        let bridge = self.pool.as_ref().map(|pool| pool.uplink().bridge).unwrap_or_default();
        for survivor in survivors {
            let link =
                links.iter().find(|link| Some(&link.name) == self.links.get(&survivor.container));
            let mended = match link {
                Some(link) if link.master == bridge && link.up => Ok(()),
                Some(link) => self
                    .host
                    .transact(&[link::up_as_port(
                        Which::Index(link.index),
                        bridge,
                        &self.alias(&survivor.container),
                    )])
                    .map_err(io::Error::from),
                None => self.replug(survivor),
            };
            if let Err(error) = mended {
                tracing::error!(container = %survivor.container, %error, "cannot restore the container's network");
            }
        }
        Ok(())
    }

    /// Makes a veth for a container that lost its own.
    fn replug(&mut self, survivor: &Survivor) -> io::Result<()> {
        let pool = self.pool.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let uplink = pool.uplink().clone();
        let netns = netns::open(&survivor.netns)?;
        let mut inside = netns::enter_with(&netns, || Socket::open(Family::Route))??;
        let name = pool::link_name()?;
        let alias = self.alias(&survivor.container);
        let mac = survivor.mac.map_or_else(pool::random_mac, Ok)?;
        let index =
            pool::connect(&mut self.host, &mut inside, &netns, &name, &alias, mac, &uplink)?;
        self.links.insert(survivor.container.clone(), name.clone());
        let ready = Ready { netns, inside, index, name };
        let requests = self.inner_requests(&ready, survivor.endpoint.address, mac);
        let Ready { mut inside, name, .. } = ready;
        inside.transact(&requests)?;
        Ok(self.host.transact(&[link::up(Which::Name(&name))])?)
    }

    /// Removes bridge, table and ready namespaces if nobody is on the bridge; else only the latter.
    ///
    /// # Errors
    /// [`Error::Failed`]; as much as possible is done nevertheless.
    pub fn close(&mut self) -> Result<(), Error> {
        if let Some(pool) = self.pool.take() {
            for ready in pool.close() {
                pool::discard(&mut self.host, &ready);
            }
        }
        if !self.endpoints.is_empty() {
            return Ok(());
        }
        let links = link::links(&mut self.host).map_err(failed("cannot list the links"))?;
        let prefix = format!("{}:", self.mark);
        let ours = links.iter().filter(|link| link.alias.starts_with(&prefix));
        // The bridge last: what is a port of it goes first.
        let (bridges, ports): (Vec<_>, Vec<_>) = ours.partition(|link| link.kind == "bridge");
        for link in ports.into_iter().chain(bridges) {
            match self.host.transact(&[link::delete(Which::Index(link.index))]) {
                Err(error) if !error.is_gone() => {
                    tracing::warn!(link = link.name, %error, "cannot remove a link");
                }
                _ => {}
            }
        }
        self.firewall.close().map_err(failed("cannot remove the firewall table"))
    }

    /// Makes sure of bridge, address, settings, table and pool.
    fn ensure(&mut self) -> Result<(), Error> {
        if self.pool.is_some() {
            return Ok(());
        }
        let index = self.ensure_link()?;
        self.apply_settings().map_err(failed("cannot set the bridge up"))?;
        self.reconcile_firewall().map_err(failed("cannot set the firewall up"))?;
        let uplink = Uplink {
            bridge: index,
            mtu: self.mtu,
            isolated: !self.icc && !filters_bridges(),
            alias: format!("{}:ready", self.mark),
        };
        self.pool = Some(Pool::open(uplink).map_err(failed("cannot start the namespace pool"))?);
        Ok(())
    }

    fn ensure_link(&mut self) -> Result<u32, Error> {
        let name = self.name.clone();
        let make = |source: io::Error| failed(&format!("cannot make the bridge {name}"))(source);
        let found = link::find(&mut self.host, &name).map_err(make)?;
        if !self.fixed && self.endpoints.is_empty() {
            // Since the start somebody may have taken the subnet, or given the bridge an address.
            let (gateway, subnet) = choose(&mut self.host, &name)?;
            self.move_to(gateway, subnet);
        }
        let link = match found {
            Some(link) if link.kind != "bridge" => {
                return Err(Error::Invalid(format!("{name} is a {}, not a bridge", link.kind)));
            }
            Some(link) => link,
            None => {
                let alias = format!("{}:bridge", self.mark);
                self.host
                    .transact(&[
                        link::new_bridge(&name, pool::random_mac().map_err(make)?, self.mtu),
                        link::set_alias(Which::Name(&name), &alias),
                    ])
                    .map_err(|error| make(error.into()))?;
                let made = link::find(&mut self.host, &name).map_err(make)?;
                made.ok_or_else(|| make(io::ErrorKind::NotFound.into()))?
            }
        };
        let addresses = link::addresses(&mut self.host).map_err(make)?;
        let wanted = (link.index, self.gateway, self.subnet.prefix_length());
        let mut requests = vec![link::up(Which::Index(link.index))];
        if !addresses.contains(&wanted) {
            requests.push(link::add_address(link.index, self.gateway, self.subnet));
        }
        self.host.transact(&requests).map_err(|error| make(error.into()))?;
        Ok(link.index)
    }

    /// Forwarding; localhost's way to published ports; and no router advertisements from containers (CVE-2020-13401).
    fn apply_settings(&self) -> io::Result<()> {
        let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
        if fs::read_to_string(forward)?.trim() != "1" {
            fs::write(forward, "1")?;
        }
        fs::write(format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.name), "1")?;
        let accept_ra = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", self.name);
        match fs::write(accept_ra, "0") {
            // A kernel without IPv6 accepts nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn reconcile_firewall(&mut self) -> io::Result<()> {
        let settings = Settings { bridge: self.name.clone(), subnet: self.subnet, icc: self.icc };
        let mut targets = Targets::new();
        for endpoint in self.endpoints.values() {
            port_mapping::add_targets(&mut targets, endpoint.address, &endpoint.mappings);
        }
        self.firewall.reconcile(&settings, &targets).map(drop)
    }

    fn move_to(&mut self, gateway: Ipv4Addr, subnet: Subnet) {
        if (gateway, subnet) != (self.gateway, self.subnet) {
            (self.gateway, self.subnet) = (gateway, subnet);
            self.addresses = ipam::Pool::new(subnet, gateway);
        }
    }

    fn alias(&self, container: &ContainerId) -> String {
        format!("{}:{container}", self.mark)
    }
}

/// The address the bridge has, or the first one of a default pool that the host does not use.
fn choose(host: &mut Socket, name: &str) -> Result<(Ipv4Addr, Subnet), Error> {
    let ask = |source| failed("cannot read the host's addresses")(source);
    let index = link::find(host, name).map_err(ask)?.map(|link| link.index);
    let addresses = link::addresses(host).map_err(ask)?;
    let own = addresses.iter().find(|(link, ..)| Some(*link) == index);
    if let Some((_, address, length)) = own
        && let Some(subnet) = Subnet::containing(*address, *length)
    {
        return Ok((*address, subnet));
    }
    let routes = link::routes(host).map_err(ask)?;
    let used: Vec<Subnet> = addresses
        .iter()
        .filter_map(|(_, address, length)| Subnet::containing(*address, *length))
        .chain(routes.into_iter().map(|(subnet, _)| subnet))
        .collect();
    let none = || {
        Error::InUse("could not find an available, non-overlapping IPv4 address pool".to_owned())
    };
    let subnet = ipam::choose_pool(&used).ok_or_else(none)?;
    Ok((subnet.nth(1).ok_or_else(none)?, subnet))
}

/// Whether br_netfilter shows the firewall what passes between ports. Then the forward chain keeps neighbours apart, and
/// isolated ports would keep them from each other's published ports as well.
fn filters_bridges() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|text| text.trim() == "1")
}

fn parse_bip(text: &str) -> Result<(Ipv4Addr, Subnet), Error> {
    Subnet::parse(text)
        .filter(|(address, subnet)| {
            subnet.prefix_length() <= 30
                && *address != subnet.base()
                && *address != subnet.broadcast()
        })
        .ok_or_else(|| Error::Invalid(format!("invalid bridge address (bip): {text:?}")))
}

fn failed(what: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Failed { what: what.to_owned(), source }
}
