//! `docker rename`.

use cleat_proto::kind::Kind;

use super::{Engine, Error, Result};
use crate::container::names::ContainerRef;

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// If the name is not allowed, in use, or the container's own.
    pub async fn rename(&self, reference: &ContainerRef, name: &str) -> Result<()> {
        let entry = self.entry(reference)?;
        let (engine, typed) = (self.clone(), name.to_owned());
        let named = std::sync::Arc::clone(&entry);
        entry.queue.run(async move { engine.rename_in_turn(&named, &typed).await }).await
    }

    async fn rename_in_turn(&self, entry: &super::Entry, typed: &str) -> Result<()> {
        if typed.is_empty() {
            return Err(Error::new(
                Kind::InvalidArgument,
                "Neither old nor new names may be empty",
            ));
        }
        let old = entry.view().record.name.clone();
        if typed.trim_start_matches('/') == old {
            return Err(Error::new(
                Kind::InvalidArgument,
                "Renaming a container with the same name as its current name",
            ));
        }
        let typed = format!("/{}", typed.strip_prefix('/').unwrap_or(typed));
        let reserved = self.index().names.reserve(&typed, &entry.id);
        let name = reserved.map_err(|error| {
            Error::with_source(error.kind(), "Error when allocating new name", error)
        })?;
        let chosen = name.clone();
        if let Err(error) = self.commit(entry, |record| record.name = chosen).await {
            self.index().names.release(&name, &entry.id);
            return Err(error);
        }
        self.index().names.release(&old, &entry.id);
        self.0.networks.rename(&entry.id, &name);
        let attributes = [("oldName".to_owned(), format!("/{old}"))].into();
        self.publish(&entry.view(), "rename", attributes);
        Ok(())
    }
}
