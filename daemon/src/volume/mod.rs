//! Volumes of the local driver: `ROOT/volumes/<name>/_data`, and their records in the database.
//!
//! Who uses a volume is said by the containers' records; this module keeps a map derived from them, so that a removal
//! and a new user cannot cross. Nothing of a volume is ever mounted on the host: what a volume's options ask for
//! (`type=nfs` …) becomes a mount of the container's.

pub mod copy_up;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use cleat_proto::{id::ContainerId, kind::Kind};
use serde::{Deserialize, Serialize};

use crate::metadata::{self, Database};

/// The label that tells an anonymous volume from a named one.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume that somebody wants: made if there is none of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Empty: 64 hex digits are chosen, and the volume is anonymous.
    pub name: String,
    /// Empty: `local`.
    pub driver: String,
    /// `type`, `device`, `o`.
    pub options: Option<BTreeMap<String, String>>,
    /// The user's.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A volume, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// `local`.
    pub driver: String,
    /// Nanoseconds since the epoch.
    pub created_at_nanos: i64,
    /// `None` is shown as `null`.
    pub labels: Option<BTreeMap<String, String>>,
    /// `None` is shown as `null`.
    pub options: Option<BTreeMap<String, String>>,
    /// It is being removed: recovery goes on with it.
    #[serde(default)]
    pub removing: bool,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
    }
}

/// What is to be mounted where a container wants a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory of the host.
    Directory(PathBuf),
    /// A filesystem to mount in the container (`type`, `device`, `o` of the volume).
    Filesystem {
        /// `tmpfs`, `nfs`, `ext4` …
        kind: String,
        /// As mount(2)'s source.
        device: String,
        /// Split at commas.
        options: Vec<String>,
    },
}

/// What can go wrong with a volume. Texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// A bad name, driver or option.
    #[error("{0}")]
    Invalid(String),
    /// No such driver.
    #[error("{0}")]
    NoSuchDriver(String),
    /// In use, or there with another driver.
    #[error("{0}")]
    Conflict(String),
    /// A file operation failed.
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
            Self::NoSuchVolume(_) | Self::NoSuchDriver(_) => Kind::NotFound,
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::Conflict(_) => Kind::Conflict,
            Self::Failed { .. } => Kind::Internal,
            Self::Database(error) => error.kind(),
        }
    }
}

/// The volumes of one daemon. Clones share it.
#[derive(Clone, Debug)]
pub struct Volumes {}

impl Volumes {
    /// Opens `ROOT/volumes`, and finishes removals that were cut short.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Database`].
    pub fn open(root: &Path, database: Database) -> Result<Self, Error> {
        let _ = (root, database);
        todo!("daemon/src/volume")
    }

    /// Learns at a start who uses what, from the containers' records.
    pub fn restore(&self, users: impl IntoIterator<Item = (ContainerId, Vec<String>)>) {
        let _ = users.into_iter().count();
        todo!("daemon/src/volume")
    }

    /// Makes a volume, or returns the one that has the name already. The flag says whether it is new.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoSuchDriver`], [`Error::Conflict`] for another driver's.
    pub async fn create(&self, new: New) -> Result<(Volume, bool), Error> {
        let _ = new;
        todo!("daemon/src/volume")
    }

    /// Makes the volumes that a new container wants and notes it as their user, until [`Self::release`]. On failure
    /// nothing is left: neither users nor volumes that were new. Returns which of them are new.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn acquire(
        &self,
        container: &ContainerId,
        wanted: Vec<New>,
    ) -> Result<Vec<Volume>, Error> {
        let _ = (container, wanted);
        todo!("daemon/src/volume")
    }

    /// The container is gone, or its create failed. Its volumes stay (see [`Self::remove`]).
    pub fn release(&self, container: &ContainerId) {
        let _ = container;
        todo!("daemon/src/volume")
    }

    /// Returns a volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`].
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        let _ = name;
        todo!("daemon/src/volume")
    }

    /// Returns all volumes, by name, each with the containers that use it.
    pub fn list(&self) -> Vec<(Volume, Vec<ContainerId>)> {
        todo!("daemon/src/volume")
    }

    /// Removes a volume that nobody uses. Its bytes go in the background.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`] unless forced, [`Error::Conflict`] while it is in use.
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let _ = (name, force);
        todo!("daemon/src/volume")
    }

    /// Returns where the volume's files are (or would be, for one with a filesystem of its own): `Mountpoint`.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        let _ = name;
        todo!("daemon/src/volume")
    }

    /// Returns what a container has to mount to see the volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`].
    pub fn content(&self, name: &str) -> Result<Content, Error> {
        let _ = name;
        todo!("daemon/src/volume")
    }
}
