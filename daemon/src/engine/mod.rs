//! The engine: one file per use case. It knows neither HTTP nor gRPC nor JSON.

pub mod error;
pub mod info;
mod types;

use std::{os::fd::OwnedFd, sync::Arc};

use cleat_proto::id::{ContainerId, ExecId};

use crate::{
    config::Config,
    container::{Container, names::ContainerRef},
    event,
    metadata::Database,
};

pub use error::Error;
pub use types::*;

/// What the engine answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    database: Database,
    events: event::Bus,
}

/// A wait that is armed: whatever happens from now on counts.
pub struct Waiting {}

impl Waiting {
    /// Waits for the end.
    pub async fn outcome(self) -> WaitOutcome {
        todo!()
    }
}

/// A client that may be joined to a container's streams: everything was checked, the response head can be sent.
pub struct Attachment {
    engine: Engine,
    id: ContainerId,
    /// With a terminal the stream is raw, without one it is framed.
    pub tty: bool,
}

impl Attachment {
    /// Hands the client's connection, after the response head, to the shim, or keeps it until the container is started. `early` is
    /// what the client sent behind its request.
    ///
    /// # Errors
    /// If the shim does not take it.
    pub async fn join(self, _client: OwnedFd, _early: Vec<u8>) -> Result<()> {
        todo!()
    }
}

impl Engine {
    /// Opens the database and everything beside it, and finds out what happened while no daemon was there.
    ///
    /// # Errors
    /// If another daemon has the root, or the database cannot be read.
    pub async fn open(_config: Config) -> Result<Self> {
        todo!()
    }

    /// Returns what the daemon was told.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns the database, for the parts that keep their own tables in it.
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// Returns where events are published and listened to.
    pub fn events(&self) -> &event::Bus {
        &self.0.events
    }

    /// Returns a container as it stands.
    ///
    /// # Errors
    /// `No such container: …`, or an ambiguous prefix.
    pub fn container(&self, _reference: &ContainerRef) -> Result<Arc<Container>> {
        todo!()
    }

    /// Returns all containers as they stand, newest first.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        todo!()
    }

    /// Makes a container.
    pub async fn create(&self, _request: CreateRequest) -> Result<Created> {
        todo!()
    }

    /// Starts a container; `Kind::AlreadySo` if it runs.
    pub async fn start(&self, _reference: &ContainerRef) -> Result<()> {
        todo!()
    }

    /// Stops a container; `Kind::AlreadySo` if it does not run.
    pub async fn stop(&self, _reference: &ContainerRef, _options: StopOptions) -> Result<()> {
        todo!()
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(&self, _reference: &ContainerRef, _options: StopOptions) -> Result<()> {
        todo!()
    }

    /// Sends a signal to the first process.
    pub async fn kill(&self, _reference: &ContainerRef, _signal: i32) -> Result<()> {
        todo!()
    }

    /// Removes a container.
    pub async fn remove(&self, _reference: &ContainerRef, _options: RemoveOptions) -> Result<()> {
        todo!()
    }

    /// Gives a container another name.
    pub async fn rename(&self, _reference: &ContainerRef, _name: &str) -> Result<()> {
        todo!()
    }

    /// Freezes a container.
    pub async fn pause(&self, _reference: &ContainerRef) -> Result<()> {
        todo!()
    }

    /// Thaws a container.
    pub async fn unpause(&self, _reference: &ContainerRef) -> Result<()> {
        todo!()
    }

    /// Changes resources and the restart policy; returns warnings.
    pub async fn update(
        &self,
        _reference: &ContainerRef,
        _request: UpdateRequest,
    ) -> Result<Vec<String>> {
        todo!()
    }

    /// Arms a wait: the response head may be sent as soon as this returns.
    pub fn wait(&self, _reference: &ContainerRef, _condition: WaitCondition) -> Result<Waiting> {
        todo!()
    }

    /// Changes the size of the container's terminal, if it has one.
    pub async fn resize(&self, _reference: &ContainerRef, _height: u32, _width: u32) -> Result<()> {
        todo!()
    }

    /// Checks that a client may attach.
    pub fn attach(&self, _reference: &ContainerRef, _options: AttachOptions) -> Result<Attachment> {
        todo!()
    }

    /// Records a process to be added.
    pub fn exec_create(&self, _reference: &ContainerRef, _config: ExecConfig) -> Result<ExecId> {
        todo!()
    }

    /// Checks that an exec can be started, before the response head is sent; the exec counts as started from here on.
    pub fn exec_prepare(&self, _id: &str, _start: ExecStart) -> Result<ExecLaunch> {
        todo!()
    }

    /// Changes the size of an exec's terminal.
    pub async fn exec_resize(&self, _id: &str, _height: u32, _width: u32) -> Result<()> {
        todo!()
    }

    /// Returns an exec as it stands.
    pub fn exec_inspect(&self, _id: &str) -> Result<Exec> {
        todo!()
    }

    /// Removes every stopped container that `wanted` picks.
    pub async fn prune_containers(
        &self,
        _wanted: impl Fn(&Container) -> bool + Send,
    ) -> Result<Pruned> {
        todo!()
    }

    /// Leaves (or with `--stop-containers` stops) the containers and ends what listens: SIGTERM.
    pub async fn shut_down(&self) {
        todo!()
    }
}

/// An exec that is about to run.
pub struct ExecLaunch {
    engine: Engine,
    id: ExecId,
    /// With a terminal the stream is raw, without one it is framed.
    pub tty: bool,
}

impl ExecLaunch {
    /// Runs it. An attached one gets the client's connection (after the response head) and what the client sent early; the shim
    /// alone speaks to the client from then on. Without a client it is detached.
    ///
    /// # Errors
    /// What the runtime says. If a client was given, its connection has been told as well (a stream of text) and closed.
    pub async fn run(self, _client: Option<(OwnedFd, Vec<u8>)>) -> Result<()> {
        todo!()
    }
}
