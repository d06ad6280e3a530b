//! The engine: one file per use case. It knows neither HTTP nor gRPC nor JSON.
//!
//! ```text
//!  Engine ── Index (names, entries) ── Entry ── Container (what readers see)
//!    │                                   └───── CommandQueue (those who change it, in turn)
//!    └── database · images · snapshots · volumes · networks · events · shims
//! ```
//! A container's record changes by a commit and then in memory, never the other way round. What its shim tells changes the
//! state at once, and the record at the end of a run.

mod archive;
mod attach;
pub mod check;
mod command_queue;
mod create;
mod defaults;
mod discard;
mod entry;
pub mod error;
mod exec;
mod exit;
pub mod fault;
mod health;
mod image;
mod image_gc;
mod index;
pub mod info;
mod log_orders;
mod log_tag;
pub mod logs;
mod network_events;
mod paths;
mod pause;
mod prune;
mod recover;
mod registry;
mod remove;
mod rename;
mod shm;
mod shut_down;
mod start;
pub mod stats;
mod stop;
pub mod top;
mod types;
mod update;
mod validate;
mod volume;
mod wait;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, atomic::AtomicBool},
};

use cleat_proto::id::ContainerId;

use crate::{
    config::Config,
    container::{
        Container, Record,
        names::{self, ContainerRef},
    },
    content::Content,
    event,
    image::Images,
    metadata::{self, Database, Table},
    network,
    registry::Registries,
    snapshot::Snapshots,
    task::{self, TaskDir, cgroup},
    volume::Volumes,
};

pub use archive::{CommitRequest, PathStat, PutOptions};
pub use error::Error;
pub use logs::{GrowingLog, LogReader};
pub use types::*;

use entry::Entry;
use index::Index;

/// What the engine answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The containers' records.
const CONTAINERS: Table<Record> = Table::new("containers");

/// Volumes that are made for a container whose record is not there yet, by the container's id: an intent, which the commit
/// of the record ends.
const CREATING: Table<Vec<String>> = Table::new("creating");

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    options: RwLock<Options>,
    database: Database,
    images: Images,
    volumes: Volumes,
    networks: network::Controller,
    events: event::Bus,
    index: RwLock<Index>,
    shims: task::launch::Shims,
    execs: exec::Execs,
    /// Asks for a look at what images are to go.
    collect: tokio::sync::Notify,
    host: Host,
    /// SIGTERM has come: what ends now is not restarted or removed by us.
    shutting_down: AtomicBool,
}

/// What the daemon was told, until it is told anew.
struct Options {
    config: Arc<Config>,
    registries: Registries,
}

impl Options {
    fn new(config: Config) -> Self {
        Self { registries: Registries::new(config.registries()), config: Arc::new(config) }
    }
}

/// What does not change while the daemon lives.
struct Host {
    /// The controllers are on cgroup v2 alone.
    unified_cgroups: bool,
    /// `(6, 18)`
    kernel: (u32, u32),
    /// What it can limit.
    limits: discard::Kernel,
}

impl Host {
    fn look() -> Self {
        let unified_cgroups = task::cgroup::is_unified();
        let limits = discard::Kernel::look(unified_cgroups);
        Self { unified_cgroups, kernel: kernel(), limits }
    }
}

impl Engine {
    /// Opens the database and everything beside it, and finds out what happened while no daemon was there.
    ///
    /// # Errors
    /// If another daemon has the root, or the database cannot be read.
    pub async fn open(config: Config) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || Self::open_parts(config)).await;
        let engine = opened.map_err(Error::lost)??;
        engine.bury_shims();
        engine.recover().await?;
        engine.collect_execs();
        Ok(engine)
    }

    fn open_parts(config: Config) -> Result<Self> {
        paths::make_private(&config.root)?;
        paths::make_private(&config.state)?;
        let database = Database::open(&config.root.join("meta.redb"))?;
        let content = Content::open(&config.root.join("content"))?;
        let snapshots = Snapshots::open(&config.root.join("snapshots"), &database)?;
        let images = Images::open(database.clone(), content, snapshots)?;
        let volumes = Volumes::open(&config.root.join("volumes"), database.clone())?;
        let networks = network::Controller::open(config.network.clone(), &database)?;
        paths::make_private(&config.root.join("containers"))?;
        images.limit_transfers(config.max_downloads, config.max_uploads);
        Ok(Self(Arc::new(Inner {
            options: RwLock::new(Options::new(config)),
            database,
            images,
            volumes,
            networks,
            events: event::Bus::default(),
            index: RwLock::default(),
            shims: task::launch::Shims::default(),
            execs: exec::Execs::default(),
            collect: tokio::sync::Notify::new(),
            host: Host::look(),
            shutting_down: AtomicBool::new(false),
        })))
    }

    /// Returns what the daemon was told, as it stands now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.options().config)
    }

    fn registries(&self) -> Registries {
        self.options().registries.clone()
    }

    fn options(&self) -> RwLockReadGuard<'_, Options> {
        self.0.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what can change while the daemon runs, and says so.
    pub fn reload(&self, told: Config) {
        let mut options = self.0.options.write().unwrap_or_else(PoisonError::into_inner);
        *options = Options::new(options.config.reloaded(told));
        let config = Arc::clone(&options.config);
        drop(options);
        self.images().limit_transfers(config.max_downloads, config.max_uploads);
        self.0.collect.notify_one();
        self.say_reloaded(&config);
    }

    /// Returns where events are published and listened to.
    pub fn events(&self) -> &event::Bus {
        &self.0.events
    }

    /// Returns the images.
    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// Returns the filesystem states.
    pub fn snapshots(&self) -> &Snapshots {
        self.0.images.snapshots()
    }

    /// Returns the volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.0.volumes
    }

    /// Returns the networks.
    pub fn networks(&self) -> &network::Controller {
        &self.0.networks
    }

    /// Returns a container as it stands.
    ///
    /// # Errors
    /// `No such container: …`, or an ambiguous prefix.
    pub fn container(&self, reference: &ContainerRef) -> Result<Arc<Container>> {
        Ok(self.entry(reference)?.view())
    }

    /// Returns all containers as they stand, newest first.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let entries = self.entries();
        let mut all: Vec<_> = entries.iter().map(|entry| entry.view()).collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.record.created_at_nanos));
        all
    }

    /// Returns the task directory of a container: `STATE/tasks/cleat/<id>`.
    pub fn task_dir(&self, id: &ContainerId) -> TaskDir {
        TaskDir::new(&self.config().state, id)
    }

    /// Returns `ROOT/containers/<id>`.
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config().root.join("containers").join(id.as_str())
    }

    /// Returns where a container's log is.
    pub fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }

    /// Returns the cgroup that a container is to have, as the runtime is told.
    fn cgroups_path(&self, record: &Record) -> String {
        self.config().cgroups.path(&record.host_config.cgroup_parent, &record.id)
    }

    /// Returns a container's cgroup, below each hierarchy's mount: that of its task, which may be older than what the daemon
    /// was told of drivers and parents.
    pub fn cgroup_path(&self, record: &Record) -> String {
        let told = self.task_dir(&record.id).cgroups_path();
        cgroup::directory(&told.unwrap_or_else(|| self.cgroups_path(record)))
    }

    /// Publishes an event about a container: its labels, its name and its image, and what the action adds.
    pub(crate) fn publish(&self, container: &Container, action: &str, more: Attributes) {
        let record = &container.record;
        self.publish_at(record, action, more, event::now_nanos());
    }

    fn publish_at(&self, record: &Record, action: &str, more: Attributes, at_nanos: i64) {
        let mut attributes: BTreeMap<String, String> =
            record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more);
        self.0.events.publish(event::Event {
            kind: event::Kind::Container,
            action: action.to_owned(),
            id: record.id.as_str().to_owned(),
            attributes,
            at_nanos,
        });
    }

    fn entry(&self, reference: &ContainerRef) -> Result<Arc<Entry>> {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        index.entry(reference)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        index.entries().cloned().collect()
    }

    fn index(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a container's record: on disk, and then for readers.
    async fn commit(
        &self,
        entry: &Entry,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<Arc<Record>> {
        let _one_at_a_time = entry.commit.lock().await;
        let view = entry.view();
        if view.gone {
            // Its record must not come back.
            return Err(names::Error::NotFound(entry.id.to_string()).into());
        }
        let mut record = Record::clone(&view.record);
        change(&mut record);
        let record = Arc::new(record);
        let stored = Arc::clone(&record);
        self.0
            .database
            .write(move |tx| {
                tx.put(CONTAINERS, stored.id.as_str(), &stored)?;
                Ok::<_, metadata::Error>(())
            })
            .await?;
        entry.change(|container| container.record = Arc::clone(&record));
        Ok(record)
    }

    /// Buries shims as they end, for as long as the engine lives.
    fn bury_shims(&self) {
        let weak = Arc::downgrade(&self.0);
        let child = tokio::signal::unix::SignalKind::child();
        let Ok(mut children) = tokio::signal::unix::signal(child) else { return };
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                let Some(inner) = weak.upgrade() else { return };
                inner.shims.bury();
            }
        });
    }
}

fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
