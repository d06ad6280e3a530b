//! `docker rm`: the intent is one commit, after which the container is gone for everybody; then steps that can be done again.

use std::sync::Arc;

use cleat_proto::kind::Kind;

use super::{CONTAINERS, Engine, Entry, Error, RemoveOptions, Result, fault, paths, stop::NOW};
use crate::{
    container::{
        Phase, Record, State,
        mount_point::Source,
        names::ContainerRef,
        state::{Action, Command, Refusal},
    },
    image::Use,
};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// If it runs and removal is not forced.
    pub async fn remove(&self, reference: &ContainerRef, options: RemoveOptions) -> Result<()> {
        let entry = self.entry(reference)?;
        if options.link {
            // There are no links, so whatever was named is the container's own name.
            return Err(Error::new(
                Kind::Internal,
                "Conflict, cannot remove the default link name of the container",
            ));
        }
        let name = reference.0.clone();
        let (engine, removed, called) = (self.clone(), Arc::clone(&entry), name.clone());
        // A kill does not queue, so that what hangs in the queue cannot save what is to be removed.
        if options.force && entry.view().state.is_running() {
            let (engine, entry) = (self.clone(), Arc::clone(&entry));
            let stopped = tokio::spawn(async move { engine.stop_task(&entry, NOW).await });
            stopped.await.map_err(Error::lost)?.map_err(|error| {
                let text = format!("cannot remove container \"{name}\": could not kill container");
                Error::with_source(error.kind(), text, error)
            })?;
        }
        if !options.force {
            self.hear_of_end(&entry).await;
        }
        entry
            .queue
            .run(async move { engine.remove_in_turn(&removed, &called, options).await })
            .await
    }

    async fn remove_in_turn(
        &self,
        entry: &Arc<Entry>,
        name: &str,
        options: RemoveOptions,
    ) -> Result<()> {
        let view = entry.view();
        if view.gone {
            // Its own auto-remove was first.
            return Ok(());
        }
        let command = Command::Remove { force: options.force };
        let action = view.state.decide(command).map_err(|why| refusal(name, why))?;
        if action == Action::StopAndDelete {
            self.stop_task(entry, NOW).await?;
        }
        if entry.view().gone {
            return Ok(());
        }
        if entry.take_remains() {
            self.tear_down(entry).await;
        }
        self.intend_removal(entry, options.volumes).await?;
        self.remove_whole(entry, options.volumes).await.map_err(|error| {
            let text = format!("cannot remove container \"{name}\"");
            Error::with_source(error.kind(), text, error)
        })
    }

    async fn intend_removal(&self, entry: &Entry, volumes: bool) -> Result<()> {
        fault::point("remove.before-intent");
        self.commit(entry, |record| record.phase = Phase::Removing { volumes }).await?;
        entry.change(|container| container.state = State::Removing);
        fault::point("remove.after-intent");
        Ok(())
    }

    /// Removes a container whose start failed and that wanted to be removed at its end.
    pub(super) async fn auto_remove(&self, entry: &Arc<Entry>) -> Result<()> {
        self.intend_removal(entry, true).await?;
        self.remove_whole(entry, true).await
    }

    /// The steps of a removal whose intent is on disk. Each is fine with finding nothing.
    ///
    /// # Errors
    /// If a step fails: the container is `Dead` then, and its removal can be tried again.
    pub(super) async fn remove_whole(&self, entry: &Arc<Entry>, volumes: bool) -> Result<()> {
        let record = Arc::clone(&entry.view().record);
        drop(entry.take_early());
        let (engine, files) = (self.clone(), Arc::clone(&record));
        let removed = tokio::task::spawn_blocking(move || engine.remove_files(&files)).await;
        if let Err(error) = removed.map_err(Error::lost).flatten() {
            entry.change(|container| container.state = State::Dead);
            return Err(error);
        }
        self.0.volumes.release(&record.id);
        if volumes {
            self.remove_anonymous_volumes(&record).await;
        }
        fault::point("remove.after-volumes");
        self.index().remove(&record.id, &record.name);
        self.forget_execs(entry);
        entry.change(|container| {
            container.state = State::Removing;
            container.gone = true;
        });
        self.publish(&entry.view(), "destroy", Default::default());
        self.forget(record);
        Ok(())
    }

    fn remove_files(&self, record: &Record) -> Result<()> {
        self.snapshots().remove(&record.id)?;
        fault::point("remove.after-snapshot");
        self.unshare_shm(&record.id);
        paths::remove(&self.container_dir(&record.id))?;
        fault::point("remove.after-directory");
        Ok(())
    }

    async fn remove_anonymous_volumes(&self, record: &Record) {
        for mount in &record.mounts {
            let Source::Volume { name, .. } = &mount.source else { continue };
            let anonymous = self.0.volumes.get(name).is_ok_and(|volume| volume.is_anonymous());
            if !anonymous {
                continue;
            }
            if let Err(error) = self.remove_volume(name, false).await {
                let error = error.whole();
                tracing::debug!(container = %record.id, volume = name, error, "a volume stays");
            }
        }
    }

    /// Deletes the record. Nobody waits for it: the intent is on disk, and recovery would do the same.
    fn forget(&self, record: Arc<Record>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let gone = Arc::clone(&record);
            let deleted = engine.0.database.write(move |tx| {
                tx.delete(CONTAINERS, gone.id.as_str());
                super::create::note_image_uses(tx, &gone)
            });
            if let Err(error) = deleted.await {
                tracing::error!(container = %record.id, %error, "cannot delete a record");
            }
            fault::point("remove.after-commit");
            engine.sweep_image_of(&record).await;
        });
    }

    /// Removes the layers of an image that is gone, if this container was the last that stood on them.
    async fn sweep_image_of(&self, record: &Record) {
        let Ok(id) = record.image_id.parse() else { return };
        if self.0.images.get(&id).is_some() {
            return;
        }
        let engine = self.clone();
        let swept = tokio::task::spawn_blocking(move || {
            engine.0.images.sweep(&|| engine.image_uses()).map_err(Error::from)
        });
        if let Err(error) = swept.await.map_err(Error::lost).flatten() {
            tracing::error!(error = error.whole(), "cannot remove layers that nothing refers to");
        }
    }

    /// Returns which container stands on which image.
    pub(crate) fn image_uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for view in self.entries().iter().map(|entry| entry.view()) {
            let mut add = |image: &String, top: &Option<String>| {
                uses.push(Use {
                    container: view.record.id.to_string(),
                    image: image.clone(),
                    top_layer: top.as_ref().and_then(|top| top.parse().ok()),
                    running: view.state.is_running(),
                });
            };
            add(&view.record.image_id, &view.record.top_layer);
            for mount in &view.record.mounts {
                if let Source::Image { id, top_layer, .. } = &mount.source {
                    add(id, top_layer);
                }
            }
        }
        uses
    }
}

fn refusal(name: &str, why: Refusal) -> Error {
    let conflict = |text: &str| {
        Error::new(Kind::Conflict, format!("cannot remove container \"{name}\": {text}"))
    };
    match why {
        Refusal::Paused => conflict("container is paused and must be unpaused first"),
        Refusal::BeingRemoved => Error::new(
            Kind::Conflict,
            format!("removal of container {name} is already in progress"),
        ),
        _ => conflict("container is running: stop the container before removing or force remove"),
    }
}
