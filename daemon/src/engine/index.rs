//! All containers in memory: by id, and by whatever a user may call them.

use std::{collections::HashMap, sync::Arc};

use cleat_proto::id::ContainerId;

use super::{Result, entry::Entry};
use crate::container::names::{self, ContainerRef, Names};

/// The containers that readers can see. Names are given away before that, see [`Names`].
#[derive(Default)]
pub(crate) struct Index {
    pub names: Names,
    entries: HashMap<ContainerId, Arc<Entry>>,
}

impl Index {
    /// Finds a container.
    pub fn entry(&self, reference: &ContainerRef) -> Result<Arc<Entry>> {
        let id = self.names.resolve(reference)?;
        let missing = || names::Error::NotFound(reference.0.clone());
        Ok(self.entries.get(&id).cloned().ok_or_else(missing)?)
    }

    /// Finds a container by its whole id.
    pub fn get(&self, id: &ContainerId) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Makes a container visible; its name is reserved already.
    pub fn add(&mut self, entry: Arc<Entry>) {
        self.names.add(entry.id.clone());
        self.entries.insert(entry.id.clone(), entry);
    }

    /// Forgets a container and its name.
    pub fn remove(&mut self, id: &ContainerId, name: &str) {
        self.names.release(name, id);
        self.names.remove(id);
        self.entries.remove(id);
    }

    /// Returns all of them.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }
}
