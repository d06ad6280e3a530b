//! [`Controller`]: the one owner of networks, addresses and published ports.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, path::PathBuf};

use cleat_proto::{
    docker::container::{EndpointSettings, PortMap},
    id::ContainerId,
    kind::Kind,
};

use super::Config;
use crate::metadata::{self, Database};

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
    /// Predefined networks cannot be changed so.
    #[error("{0}")]
    Forbidden(String),
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
            Self::Forbidden(_) => Kind::Forbidden,
            Self::NotImplemented(_) => Kind::NotImplemented,
            Self::Failed { .. } => Kind::Internal,
            Self::Database(error) => error.kind(),
        }
    }
}

/// The networks of one daemon. Clones share it.
#[derive(Clone, Debug)]
pub struct Controller {}

impl Controller {
    /// Reads what there is; the bridge and the table are made when the first container needs them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad configuration, [`Error::Failed`] if netlink does not answer.
    pub fn open(config: Config, database: &Database) -> Result<Self, Error> {
        let _ = (config, database);
        todo!("daemon/src/network")
    }

    /// Learns addresses and ports of the containers that live, removes what is ours and nobody's, and restores what is
    /// missing. Until it ran, nobody may attach.
    ///
    /// # Errors
    /// [`Error::Failed`]; then the controller still serves, and what failed is in the log.
    pub async fn restore(&self, live: Vec<Live>) -> Result<(), Error> {
        let _ = live;
        todo!("daemon/src/network")
    }

    /// Gives a container its namespace, address, ports and files. If it fails, nothing is left of it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InUse`] for a port, [`Error::Failed`].
    pub async fn attach(&self, attach: Attach) -> Result<Sandbox, Error> {
        let _ = attach;
        todo!("daemon/src/network")
    }

    /// Takes back a container's address and ports. The veth goes with the namespace, when the shim lets go of it. Idempotent.
    ///
    /// # Errors
    /// [`Error::Failed`] if the firewall cannot be changed; address and ports are free nevertheless.
    pub async fn detach(&self, container: &ContainerId) -> Result<(), Error> {
        let _ = container;
        todo!("daemon/src/network")
    }

    /// As [`Self::detach`], when nobody took the namespace (a start that failed): the veth is removed by hand as well.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub async fn undo_attach(&self, container: &ContainerId) -> Result<(), Error> {
        let _ = container;
        todo!("daemon/src/network")
    }

    /// Tells a container's new name, for `network inspect`.
    pub fn rename(&self, container: &ContainerId, name: &str) {
        let _ = (container, name);
        todo!("daemon/src/network")
    }

    /// Returns all networks, in no particular order.
    pub fn list(&self) -> Vec<NetworkInfo> {
        todo!("daemon/src/network")
    }

    /// Finds a network by id, name or id's prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`], [`Error::Invalid`] if the prefix is ambiguous.
    pub fn inspect(&self, reference: &str) -> Result<NetworkInfo, Error> {
        let _ = reference;
        todo!("daemon/src/network")
    }

    /// At a graceful end: removes bridge, table and the ready namespaces if no container uses them.
    pub async fn close(&self) {
        todo!("daemon/src/network")
    }
}
