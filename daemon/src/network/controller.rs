//! [`Controller`]: the one owner of networks, addresses and published ports.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use cleat_proto::{
    docker::container::{EndpointSettings, PortMap},
    id::ContainerId,
    kind::Kind,
};

use serde::{Deserialize, Serialize};

use super::{
    Config,
    bridge::{Bridge, Connected, Endpoint, Refused, Survivor},
    files,
    port_mapping::{self, Bound, Defaults, Mapping, Port, Refusal, Request},
    subnet::Subnet,
};
use crate::metadata::{self, Database, Table};

/// Which kind of network a container asked for. (`container:x` has no sandbox of its own: the engine joins the other's.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The default bridge: `bridge` or `default`.
    Bridge,
    /// The host's namespace.
    Host,
    /// A new namespace with nothing but `lo`, made by the worker.
    None,
}

impl Mode {
    /// Reads `HostConfig.NetworkMode`, `container:…` excepted. Empty means the default.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`] for anything else: user-defined networks do not exist yet.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "default" | "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            other => Err(Error::NoSuchNetwork(other.to_owned())),
        }
    }

    /// The network's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "null",
        }
    }
}

/// What a container that starts wants of the network.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Who.
    pub container: ContainerId,
    /// Its name, for `network inspect`.
    pub name: String,
    /// What `/etc/hostname` says.
    pub hostname: String,
    /// `HostConfig`'s, may be empty.
    pub domainname: String,
    /// Where to.
    pub mode: Mode,
    /// The record's endpoints, by network name: what was asked for (a MAC address, aliases …).
    pub requested: BTreeMap<String, EndpointSettings>,
    /// `Config.ExposedPorts`' keys, `80/tcp`.
    pub exposed: Vec<String>,
    /// `HostConfig.PortBindings`.
    pub port_bindings: PortMap,
    /// `HostConfig.PublishAllPorts`.
    pub publish_all: bool,
    /// `Config.MacAddress` of old clients; empty for none.
    pub mac_address: String,
    /// `HostConfig.ExtraHosts`.
    pub extra_hosts: Vec<String>,
    /// `HostConfig.Dns`.
    pub dns: Vec<String>,
    /// `HostConfig.DnsSearch`.
    pub dns_search: Vec<String>,
    /// `HostConfig.DnsOptions`.
    pub dns_options: Vec<String>,
    /// Where `hosts`, `hostname` and `resolv.conf` are written: `ROOT/containers/<id>`, which exists.
    pub directory: PathBuf,
}

/// What it got. The namespace lives as long as somebody holds its descriptor: the shim, as fd 4.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace to join; `None` with [`Mode::Host`] and [`Mode::None`].
    pub netns: Option<OwnedFd>,
    /// 64 hex digits.
    pub sandbox_id: String,
    /// By network name, as inspect shows them: for `Record.networks`.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// As bound, for `Run.ports`; exposed ports that are not published have `None`.
    pub ports: PortMap,
    /// The published ports, with their sockets: the ports are taken for as long as somebody holds these.
    pub published: Vec<Published>,
}

/// A port of the host that is the container's.
#[derive(Debug)]
pub struct Published {
    /// The container's port.
    pub port: Port,
    /// Where the container serves it.
    pub address: Ipv4Addr,
    /// Bound at the host, and listening if its protocol has connections.
    pub socket: OwnedFd,
}

/// A container that lives while the daemon starts.
#[derive(Clone, Debug)]
pub struct Live {
    /// Who.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// The record's endpoints.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// The record's bound ports.
    pub ports: PortMap,
    /// A path to the namespace, such as `/proc/<shim pid>/fd/4`.
    pub netns: PathBuf,
}

/// A network, as `network inspect` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkInfo {
    /// 64 hex digits, stable.
    pub id: String,
    /// `bridge`, `host` or `none`.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: &'static str,
    /// Nanoseconds since the epoch.
    pub created_at_nanos: i64,
    /// Subnet and gateway, for `bridge`.
    pub ipam: Option<(String, String)>,
    /// `com.docker.network.…`
    pub options: BTreeMap<String, String>,
    /// Who is on it, with the name and the endpoint.
    pub containers: BTreeMap<ContainerId, (String, EndpointSettings)>,
}

/// What can go wrong with a network. Texts are Docker's where clients know them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such network.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The port, the address or the name is taken.
    #[error("{0}")]
    InUse(String),
    /// A later release's.
    #[error("{0}")]
    NotImplemented(String),
    /// The kernel, or a file, failed.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] metadata::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchNetwork(_) => Kind::NotFound,
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::InUse(_) => Kind::Internal,
            Self::NotImplemented(_) => Kind::NotImplemented,
            Self::Failed { .. } => Kind::Internal,
            Self::Database(error) => error.kind(),
        }
    }
}

/// The networks of one daemon. Clones share it.
#[derive(Clone, Debug)]
pub struct Controller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// Where published ports listen unless they say.
    default_host_ip: IpAddr,
    /// In the order in which Docker lists them.
    networks: Vec<Known>,
    /// `None` with `--bridge none`.
    bridge: Option<Mutex<Bridge>>,
    /// Who is on which network, for inspect.
    members: Mutex<BTreeMap<ContainerId, Member>>,
}

/// A network, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    id: String,
    created_at_nanos: i64,
}

const NETWORKS: Table<Stored> = Table::new("networks");

#[derive(Debug)]
struct Known {
    mode: Mode,
    stored: Stored,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    mode: Mode,
    endpoint: EndpointSettings,
}

impl Controller {
    /// Reads what there is; the bridge and the table are made when the first container needs them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad configuration, [`Error::Failed`] if netlink does not answer.
    pub fn open(config: Config, database: &Database) -> Result<Self, Error> {
        let default_host_ip = match config.default_host_ip.as_str() {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            text => {
                text.parse().map_err(|_| Error::Invalid(format!("invalid default IP: {text:?}")))?
            }
        };
        files::check_dns(&config.dns)?;
        let bridge = config.bridge.as_deref().filter(|name| *name != "none");
        let bridge = bridge.map(|name| Bridge::open(&config, name)).transpose()?;
        let modes = match &bridge {
            Some(_) => vec![Mode::None, Mode::Host, Mode::Bridge],
            None => vec![Mode::None, Mode::Host],
        };
        let networks = modes
            .into_iter()
            .map(|mode| Ok(Known { mode, stored: stored(database, mode)? }))
            .collect::<Result<_, Error>>()?;
        Ok(Self(Arc::new(Inner {
            config,
            default_host_ip,
            networks,
            bridge: bridge.map(Mutex::new),
            members: Mutex::default(),
        })))
    }

    /// Learns addresses and ports of the containers that live, removes what is ours and nobody's, and restores what is
    /// missing. Until it ran, nobody may attach.
    ///
    /// # Errors
    /// [`Error::Failed`]; then the controller still serves, and what failed is in the log.
    pub async fn restore(&self, live: Vec<Live>) -> Result<(), Error> {
        self.run(move |this| this.restore_blocking(live)).await
    }

    /// Gives a container its namespace, address, ports and files. If it fails, nothing is left of it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InUse`] for a port, [`Error::Failed`].
    pub async fn attach(&self, attach: Attach) -> Result<Sandbox, Error> {
        self.run(move |this| this.attach_blocking(&attach)).await
    }

    /// Takes back a container's address and ports, and says whether it had any network. The veth goes with the namespace, when
    /// the shim lets go of it. Idempotent.
    ///
    /// # Errors
    /// [`Error::Failed`] if the firewall cannot be changed; address and ports are free nevertheless.
    pub async fn detach(&self, container: &ContainerId) -> Result<bool, Error> {
        let container = container.clone();
        self.run(move |this| this.detach_blocking(&container, false)).await
    }

    /// Takes back a container's ports alone: nobody leads there any more. Idempotent.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub async fn withdraw(&self, container: &ContainerId) -> Result<(), Error> {
        let container = container.clone();
        self.run(move |this| match &this.0.bridge {
            Some(bridge) => lock(bridge).withdraw(&container),
            None => Ok(()),
        })
        .await
    }

    /// As [`Self::detach`], when nobody took the namespace (a start that failed): the veth is removed by hand as well.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub async fn undo_attach(&self, container: &ContainerId) -> Result<(), Error> {
        let container = container.clone();
        self.run(move |this| this.detach_blocking(&container, true)).await.map(drop)
    }

    /// Tells a container's new name, for `network inspect`.
    pub fn rename(&self, container: &ContainerId, name: &str) {
        if let Some(member) = lock(&self.0.members).get_mut(container) {
            name.clone_into(&mut member.name);
        }
    }

    /// Returns all networks, in Docker's order.
    pub fn list(&self) -> Vec<NetworkInfo> {
        self.0.networks.iter().map(|known| self.info(known)).collect()
    }

    /// Finds a network by id, name or id's prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`], [`Error::Invalid`] if the prefix is ambiguous.
    pub fn inspect(&self, reference: &str) -> Result<NetworkInfo, Error> {
        let all = &self.0.networks;
        let exact = all
            .iter()
            .find(|known| known.stored.id == reference)
            .or_else(|| all.iter().find(|known| known.mode.name() == reference));
        if let Some(known) = exact {
            return Ok(self.info(known));
        }
        let mut matching = all
            .iter()
            .filter(|known| !reference.is_empty() && known.stored.id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(known), None) => Ok(self.info(known)),
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "network {reference} is ambiguous (2 matches found based on ID prefix)"
            ))),
            (None, _) => Err(Error::NoSuchNetwork(reference.to_owned())),
        }
    }

    /// At a graceful end: removes bridge, table and the ready namespaces if no container uses them.
    pub async fn close(&self) {
        let closed = self
            .run(|this| match &this.0.bridge {
                Some(bridge) => lock(bridge).close(),
                None => Ok(()),
            })
            .await;
        if let Err(error) = closed {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot close the network");
        }
    }

    /// Netlink answers in microseconds, but a namespace that has to be made first takes a millisecond.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || work(&this)).await {
            Ok(result) => result,
            Err(error) => Err(Error::Failed {
                what: "the network controller failed".to_owned(),
                source: io::Error::other(error.to_string()),
            }),
        }
    }

    fn restore_blocking(&self, live: Vec<Live>) -> Result<(), Error> {
        let mut survivors = Vec::new();
        for one in live {
            for (network, endpoint) in one.endpoints {
                let Ok(mode) = Mode::parse(&network) else { continue };
                if mode == Mode::Bridge {
                    survivors.extend(survivor(&one.container, &endpoint, &one.ports, &one.netns));
                }
                let member = Member { name: one.name.clone(), mode, endpoint };
                lock(&self.0.members).insert(one.container.clone(), member);
            }
        }
        match &self.0.bridge {
            Some(bridge) => lock(bridge).restore(&survivors),
            None => Ok(()),
        }
    }

    fn attach_blocking(&self, attach: &Attach) -> Result<Sandbox, Error> {
        let known = self.0.networks.iter().find(|known| known.mode == attach.mode);
        let known = known.ok_or_else(|| Error::NoSuchNetwork(attach.mode.name().to_owned()))?;
        let mut endpoint = self.requested(attach);
        endpoint.network_id.clone_from(&known.stored.id);
        endpoint.endpoint_id = random_id()?;
        let mut sandbox = Sandbox {
            netns: None,
            sandbox_id: random_id()?,
            endpoints: BTreeMap::new(),
            ports: PortMap::new(),
            published: Vec::new(),
        };
        let mut address = None;
        if attach.mode == Mode::Bridge {
            let connected = self.connect(attach, &endpoint)?;
            address = Some(connected.address);
            endpoint.mac_address = mac_text(connected.mac);
            endpoint.ip_address = connected.address.to_string();
            let mappings: Vec<Mapping> =
                connected.bound.iter().map(|bound| bound.mapping).collect();
            sandbox.ports = port_mapping::shown(&attach.exposed, &mappings);
            let address = connected.address;
            let publish = |bound: Bound| Published {
                port: bound.mapping.port,
                address,
                socket: bound.socket,
            };
            sandbox.published = connected.bound.into_iter().map(publish).collect();
            sandbox.netns = Some(connected.netns);
            let (gateway, subnet) =
                self.bridge_address().unwrap_or((connected.address, Subnet::LOOPBACK));
            endpoint.gateway = gateway.to_string();
            endpoint.ip_prefix_len = subnet.prefix_length().into();
        }
        if let Err(error) = self.write_files(attach, address) {
            self.detach_blocking(&attach.container, true)?;
            return Err(error);
        }
        let member =
            Member { name: attach.name.clone(), mode: attach.mode, endpoint: endpoint.clone() };
        lock(&self.0.members).insert(attach.container.clone(), member);
        sandbox.endpoints.insert(attach.mode.name().to_owned(), endpoint);
        Ok(sandbox)
    }

    /// What was asked for of the one network there is, whatever name it went by.
    fn requested(&self, attach: &Attach) -> EndpointSettings {
        let name = attach.mode.name();
        let found = attach.requested.get(name).or_else(|| attach.requested.values().next());
        let mut endpoint = found.cloned().unwrap_or_default();
        if !attach.mac_address.is_empty() {
            endpoint.mac_address.clone_from(&attach.mac_address);
        }
        endpoint
    }

    fn connect(&self, attach: &Attach, endpoint: &EndpointSettings) -> Result<Connected, Error> {
        let Some(bridge) = &self.0.bridge else {
            return Err(Error::NoSuchNetwork(Mode::Bridge.name().to_owned()));
        };
        let programming = |text: String| {
            format!(
                "driver failed programming external connectivity on endpoint {} ({}): {text}",
                attach.name, endpoint.endpoint_id
            )
        };
        let mac = match endpoint.mac_address.as_str() {
            "" => None,
            text => Some(parse_mac(text)?),
        };
        let publishes = attach.publish_all || !attach.port_bindings.is_empty();
        let ipv6 = publishes && port_mapping::has_ipv6();
        let defaults = Defaults { host_ip: self.0.default_host_ip, ipv6 };
        let requests = port_mapping::requests(
            &attach.exposed,
            &attach.port_bindings,
            attach.publish_all,
            defaults,
        )
        .map_err(|error| match error {
            Error::Invalid(text) => Error::Invalid(programming(text)),
            other => other,
        })?;
        lock(bridge).connect(&attach.container, mac, &requests).map_err(|refused| match refused {
            Refused::NoAddress => Error::InUse(format!(
                "no available IPv4 addresses on this network's address pools: bridge ({})",
                endpoint.network_id
            )),
            Refused::Port { request, address, refusal } => {
                Error::InUse(programming(refusal_text(&request, address, &refusal)))
            }
            Refused::Failed(error) => error,
        })
    }

    fn write_files(&self, attach: &Attach, address: Option<Ipv4Addr>) -> Result<(), Error> {
        // A container's own words come before the daemon's.
        let or_daemons = |own: &[String], daemons: &[String]| {
            if own.is_empty() { daemons.to_vec() } else { own.to_vec() }
        };
        let config = &self.0.config;
        let input = files::Input {
            hostname: &attach.hostname,
            domainname: &attach.domainname,
            address,
            extra_hosts: &attach.extra_hosts,
            host_gateway: self.bridge_address().map(|(gateway, _)| gateway),
            host_network: attach.mode == Mode::Host,
            dns: &or_daemons(&attach.dns, &config.dns),
            dns_search: &or_daemons(&attach.dns_search, &config.dns_search),
            dns_options: &or_daemons(&attach.dns_options, &config.dns_opts),
        };
        files::write_all(&input, &attach.directory)
    }

    fn detach_blocking(&self, container: &ContainerId, by_hand: bool) -> Result<bool, Error> {
        let was_attached = lock(&self.0.members).remove(container).is_some();
        let Some(bridge) = &self.0.bridge else { return Ok(was_attached) };
        let mut bridge = lock(bridge);
        if by_hand {
            bridge.unplug(container);
        }
        bridge.disconnect(container).map(|()| was_attached)
    }

    fn bridge_address(&self) -> Option<(Ipv4Addr, Subnet)> {
        let bridge = lock(self.0.bridge.as_ref()?);
        Some((bridge.gateway(), bridge.subnet()))
    }

    fn info(&self, known: &Known) -> NetworkInfo {
        let containers = lock(&self.0.members)
            .iter()
            .filter(|(_, member)| member.mode == known.mode)
            .map(|(id, member)| (id.clone(), (member.name.clone(), member.endpoint.clone())))
            .collect();
        let address = self.bridge_address().filter(|_| known.mode == Mode::Bridge);
        NetworkInfo {
            id: known.stored.id.clone(),
            name: known.mode.name().to_owned(),
            driver: known.mode.driver(),
            created_at_nanos: known.stored.created_at_nanos,
            ipam: address.map(|(gateway, subnet)| (subnet.to_string(), gateway.to_string())),
            options: if known.mode == Mode::Bridge { self.options() } else { BTreeMap::new() },
            containers,
        }
    }

    fn options(&self) -> BTreeMap<String, String> {
        let config = &self.0.config;
        let mtu = if config.mtu == 0 { 1500 } else { config.mtu };
        [
            ("bridge.default_bridge", "true".to_owned()),
            ("bridge.enable_icc", config.icc.to_string()),
            ("bridge.enable_ip_masquerade", "true".to_owned()),
            ("bridge.host_binding_ipv4", self.0.default_host_ip.to_string()),
            ("bridge.name", config.bridge.clone().unwrap_or_default()),
            ("driver.mtu", mtu.to_string()),
        ]
        .map(|(key, value)| (format!("com.docker.network.{key}"), value))
        .into()
    }
}

/// Reads a predefined network's record, or makes it: its id is for good.
fn stored(database: &Database, mode: Mode) -> Result<Stored, Error> {
    if let Some(stored) = database.get(NETWORKS, mode.name())? {
        return Ok(stored);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at_nanos = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let stored = Stored { id: random_id()?, created_at_nanos };
    let new = stored.clone();
    database.write_blocking(move |tx| tx.put(NETWORKS, mode.name(), &new))?;
    Ok(stored)
}

fn survivor(
    container: &ContainerId,
    endpoint: &EndpointSettings,
    ports: &PortMap,
    netns: &Path,
) -> Option<Survivor> {
    let address: Ipv4Addr = endpoint.ip_address.parse().ok()?;
    let gateway = endpoint.gateway.parse().ok().and_then(|gateway: Ipv4Addr| {
        let length = u8::try_from(endpoint.ip_prefix_len).ok()?;
        Some((gateway, Subnet::containing(gateway, length)?))
    });
    Some(Survivor {
        container: container.clone(),
        endpoint: Endpoint { address, mappings: port_mapping::recorded(ports) },
        mac: parse_mac(&endpoint.mac_address).ok(),
        gateway,
        netns: netns.to_owned(),
    })
}

fn refusal_text(request: &Request, address: Ipv4Addr, refusal: &Refusal) -> String {
    match refusal {
        Refusal::Allocated { host_ip, host_port } => {
            format!("Bind for {host_ip}:{host_port} failed: port is already allocated")
        }
        Refusal::Bind { host_ip, host_port, source } => {
            let why = match source.raw_os_error() {
                Some(libc::EADDRINUSE) => "address already in use".to_owned(),
                Some(libc::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
                Some(libc::EPROTONOSUPPORT) => "protocol not supported".to_owned(),
                Some(libc::EACCES) => "permission denied".to_owned(),
                _ => source.to_string(),
            };
            let (at, port) = (SocketAddr::from((*host_ip, *host_port)), request.port.text());
            format!("failed to bind host port for {at}:{address}:{port}: {why}")
        }
        Refusal::Exhausted => "all ports are allocated".to_owned(),
    }
}

/// Reads a hardware address, six hex bytes between colons or dashes.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words.
pub fn parse_mac(text: &str) -> Result<[u8; 6], Error> {
    let invalid = || Error::Invalid(format!("invalid MAC address: {text}"));
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.contains('+'));
        let part = part.ok_or_else(invalid)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
    }
    if parts.next().is_some() { Err(invalid()) } else { Ok(mac) }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Failed {
        what: "no random numbers".to_owned(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
