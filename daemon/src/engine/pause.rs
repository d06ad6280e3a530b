//! `docker pause`, `docker unpause`, and the size of a terminal.

use std::sync::Arc;

use cleat_proto::kind::Kind;

use super::{Engine, Entry, Error, Result};
use crate::{
    container::{
        Health, State,
        names::ContainerRef,
        state::{Command, Refusal},
    },
    task::Client,
};

impl Engine {
    /// Freezes a container.
    ///
    /// # Errors
    /// If it does not run, or is frozen already.
    pub async fn pause(&self, reference: &ContainerRef) -> Result<()> {
        let entry = self.entry(reference)?;
        let (engine, paused) = (self.clone(), Arc::clone(&entry));
        entry.queue.run(async move { engine.pause_in_turn(&paused).await }).await
    }

    async fn pause_in_turn(&self, entry: &Entry) -> Result<()> {
        entry.view().state.decide(Command::Pause).map_err(|why| refusal(entry, why))?;
        let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
        client.pause().await.map_err(|error| {
            let text = format!("cannot pause container {}", entry.id);
            Error::with_source(error.kind(), text, error)
        })?;
        // Whoever is first, we or the journal, tells about it.
        let told = entry.change(|container| match container.state {
            State::Running { pid } => {
                container.state = State::Paused { pid };
                container.run.health.iter_mut().for_each(Health::suspend);
                true
            }
            _ => false,
        });
        if told {
            self.publish(&entry.view(), "pause", Default::default());
        }
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// If it is not frozen.
    pub async fn unpause(&self, reference: &ContainerRef) -> Result<()> {
        let entry = self.entry(reference)?;
        let (engine, paused) = (self.clone(), Arc::clone(&entry));
        entry.queue.run(async move { engine.unpause_in_turn(&paused).await }).await
    }

    async fn unpause_in_turn(&self, entry: &Entry) -> Result<()> {
        entry.view().state.decide(Command::Resume).map_err(|why| refusal(entry, why))?;
        let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
        client.resume().await.map_err(|error| {
            let text = format!("Cannot unpause container {}", entry.id);
            Error::with_source(error.kind(), text, error)
        })?;
        let told = entry.change(|container| match container.state {
            State::Paused { pid } => {
                container.state = State::Running { pid };
                true
            }
            _ => false,
        });
        if told {
            self.publish(&entry.view(), "unpause", Default::default());
        }
        Ok(())
    }

    /// Changes the size of the container's terminal, if it has one.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resize(&self, reference: &ContainerRef, height: u32, width: u32) -> Result<()> {
        let entry = self.entry(reference)?;
        entry.settled().await.state.decide(Command::Resize).map_err(|why| refusal(&entry, why))?;
        // Without a terminal there is nothing to be resized, and Docker says nothing.
        if entry.view().record.config.tty {
            let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
            client.resize("", height, width).await?;
        }
        let attributes =
            [("height", height), ("width", width)].map(|(key, n)| (key.to_owned(), n.to_string()));
        self.publish(&entry.view(), "resize", attributes.into());
        Ok(())
    }
}

/// Puts a refusal into Docker's words.
pub(super) fn refusal(entry: &Entry, why: Refusal) -> Error {
    let id = &entry.id;
    let (kind, text) = match why {
        Refusal::AlreadySo => (Kind::AlreadySo, format!("container {id} is so already")),
        Refusal::NotRunning => (Kind::Conflict, format!("container {id} is not running")),
        Refusal::Paused => {
            (Kind::Conflict, format!("Container {id} is paused, unpause the container before exec"))
        }
        Refusal::NotPaused => (Kind::Internal, format!("Container {id} is not paused")),
        Refusal::AlreadyPaused => (Kind::Conflict, format!("Container {id} is already paused")),
        Refusal::Restarting => (
            Kind::Conflict,
            format!("Container {id} is restarting, wait until the container is running"),
        ),
        Refusal::Running => (Kind::Conflict, format!("container {id} is running")),
        Refusal::BeingRemoved => {
            (Kind::Conflict, format!("removal of container {id} is already in progress"))
        }
    };
    Error::new(kind, text)
}
