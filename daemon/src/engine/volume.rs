//! Volumes: create, remove, prune; and the events about their use.

use cleat_proto::kind::Kind;

use super::{Engine, Error, Result};
use crate::{
    container::{Record, mount_point::Source},
    event::{self, Event},
    volume::{New, Volume},
};

/// What a prune of volumes took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// Their names.
    pub deleted: Vec<String>,
    /// What their files held.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Makes a volume, or returns the one of that name.
    ///
    /// # Errors
    /// Docker's words for a bad name, driver or option.
    pub async fn create_volume(&self, new: New) -> Result<Volume> {
        let (volume, is_new) = self.volumes().create(new).await?;
        if is_new {
            self.publish_volume(&volume, "create");
        }
        Ok(volume)
    }

    /// Removes a volume that nobody uses.
    ///
    /// # Errors
    /// `NotFound` unless forced, `Conflict` while it is in use.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let known = self.volumes().get(name);
        self.volumes().remove(name, force).await?;
        if let Ok(volume) = known {
            self.publish_volume(&volume, "destroy");
        }
        Ok(())
    }

    /// Removes the volumes that nobody uses and `wanted` picks.
    ///
    /// # Errors
    /// None so far: what cannot be removed stays.
    pub async fn prune_volumes(
        &self,
        wanted: impl Fn(&Volume) -> bool + Send,
    ) -> Result<PrunedVolumes> {
        let mut pruned = PrunedVolumes::default();
        for (volume, users) in self.volumes().list() {
            if !users.is_empty() || !wanted(&volume) {
                continue;
            }
            let size = self.volume_size(&volume.name).await;
            match self.remove_volume(&volume.name, false).await {
                Ok(()) => {
                    pruned.deleted.push(volume.name);
                    pruned.reclaimed_bytes += size;
                }
                // Somebody uses it by now, or took it away.
                Err(error) => {
                    tracing::debug!(volume = volume.name, error = error.whole(), "not pruned")
                }
            }
        }
        let reclaimed = [("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())].into();
        self.events().publish(Event::now(event::Kind::Volume, "prune", "", reclaimed));
        Ok(pruned)
    }

    /// Returns how many bytes a volume's files hold.
    pub async fn volume_size(&self, name: &str) -> u64 {
        let (volumes, name) = (self.volumes().clone(), name.to_owned());
        tokio::task::spawn_blocking(move || volumes.usage(&name)).await.unwrap_or_default()
    }

    /// Copies what the image has at a volume's place into the volume, if that is empty.
    pub(super) fn fill_volumes(&self, record: &Record) -> Result<()> {
        use crate::volume::{Content, copy_up};
        use std::os::fd::AsFd as _;
        let mut root = None;
        for mount in &record.mounts {
            let Source::Volume { name, no_copy: false, .. } = &mount.source else { continue };
            let Content::Directory(target) = self.volumes().content(name)? else { continue };
            let failed = |error| {
                let text = format!("failed to populate volume {name}");
                Error::with_source(Kind::Internal, text, error)
            };
            let _turn = self.volumes().filling();
            if !copy_up::needs_filling(&target).map_err(failed)? {
                continue;
            }
            let root = match &root {
                Some(root) => root,
                None => {
                    let top = super::create::top_layer(record)?;
                    root.insert(self.snapshots().open_root(&record.id, top.as_ref())?)
                }
            };
            let from = std::path::Path::new(&mount.destination);
            let step = || super::fault::point("create.amid-copy");
            copy_up::copy_up(root.as_fd(), from, &target, &step).map_err(failed)?;
        }
        Ok(())
    }

    /// Tells that a container's volumes are mounted.
    pub(super) fn publish_mounts(&self, record: &Record) {
        for mount in &record.mounts {
            let Source::Volume { name, driver, .. } = &mount.source else { continue };
            let attributes = [
                ("container", record.id.to_string()),
                ("destination", mount.destination.clone()),
                ("driver", driver.clone()),
                ("propagation", mount.propagation.clone()),
                ("read/write", mount.rw.to_string()),
            ];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
            self.events().publish(Event::now(event::Kind::Volume, "mount", name, attributes));
        }
    }

    /// Tells that a container's volumes are mounted no more.
    pub(super) fn publish_unmounts(&self, record: &Record) {
        for mount in &record.mounts {
            let Source::Volume { name, driver, .. } = &mount.source else { continue };
            let attributes = [("container", record.id.to_string()), ("driver", driver.clone())];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
            self.events().publish(Event::now(event::Kind::Volume, "unmount", name, attributes));
        }
    }

    /// Tells that a volume was made or removed.
    pub(super) fn publish_volume(&self, volume: &Volume, action: &str) {
        let attributes = [("driver".to_owned(), volume.driver.clone())].into();
        self.events().publish(Event::now(event::Kind::Volume, action, &volume.name, attributes));
    }
}
