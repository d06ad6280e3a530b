//! Images: import, tag, remove, prune, with their events. What an image is and how it is kept is `image/`'s.

use std::{collections::BTreeMap, sync::Arc};

use super::{Engine, Error, Result};
use crate::{
    archive::chunks::{self, Received},
    event::{Event, Kind},
    image::{Image, Import, Loaded, Reference, RemoveOptions, Removed},
    registry::manifest::Platform,
};

impl Engine {
    /// Makes an image of a tar.
    ///
    /// # Errors
    /// If the tar is none, or a change makes no sense; nothing is left then.
    pub async fn import_image(&self, tar: Received, import: Import) -> Result<Arc<Image>> {
        let name = import.reference.as_ref().map(Reference::familiar);
        let image = self.blocking(move |engine| Ok(engine.images().import(tar, import)?)).await?;
        if let Some(name) = name {
            self.publish_image(&image, "tag", &name);
        }
        self.publish_image(&image, "import", image.id.as_str());
        Ok(image)
    }

    /// Loads all images of an archive; `tell` hears of each step.
    ///
    /// # Errors
    /// If the archive is none, or an image of it is not what it says.
    pub async fn load_images(
        &self,
        archive: Received,
        platform: Option<Platform>,
        mut tell: impl FnMut(Loaded) + Send + 'static,
    ) -> Result<()> {
        self.blocking(move |engine| {
            let loaded = engine.images().load(archive, platform.as_ref(), &mut tell)?;
            for image in loaded {
                engine.publish_image(&image, "load", image.id.as_str());
            }
            Ok(())
        })
        .await
    }

    /// Finds the images to be saved, and writes their archive as the answer is read.
    ///
    /// # Errors
    /// `No such image: …`
    pub fn save_images(
        &self,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>> {
        let selection = self.images().select(names, platform)?;
        let (writer, receiver) = chunks::body();
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = engine.images().save(&selection, writer) {
                let error = Error::from(error);
                tracing::warn!(error = error.whole(), "a save did not come to its end");
            }
            for image in selection.images() {
                engine.publish_image(image, "save", image.id.as_str());
            }
        });
        Ok(receiver)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `No such image: …`
    pub async fn tag_image(&self, text: &str, reference: Reference) -> Result<()> {
        let image = self.images().resolve(text)?;
        let index = self.images().index_of(text).map(|index| index.digest.clone());
        let (id, name) = (image.id.clone(), reference.familiar());
        let tagged = self
            .blocking(move |engine| Ok(engine.images().tag_in(&id, reference, index.as_ref())?));
        tagged.await?;
        self.publish_image(&image, "tag", &name);
        Ok(())
    }

    /// Removes a name, or an image.
    ///
    /// # Errors
    /// `No such image: …`, or a conflict with containers, other names or children.
    pub async fn remove_image(&self, text: &str, options: RemoveOptions) -> Result<Vec<Removed>> {
        let image = self.images().resolve(text)?;
        let reference = Reference::parse(text).map(Reference::or_latest);
        let by_name = reference.is_ok_and(|reference| image.references.contains(&reference));
        let text = text.to_owned();
        let removed = self.blocking(move |engine| {
            Ok(engine.images().remove(&text, options, &|| engine.image_uses())?)
        });
        let removed = removed.await?;
        self.publish_removed(&[image], &removed, by_name);
        Ok(removed)
    }

    /// Removes some of the platforms that a name stands for.
    ///
    /// # Errors
    /// As [`Self::remove_image`]; if it has no such platform.
    pub async fn remove_platforms(
        &self,
        text: &str,
        platforms: Vec<Platform>,
        options: RemoveOptions,
    ) -> Result<Vec<Removed>> {
        let image = self.images().resolve(text)?;
        let text = text.to_owned();
        let removed = self.blocking(move |engine| {
            let mut removed = Vec::new();
            for platform in platforms {
                let uses = || engine.image_uses();
                let gone = engine.images().remove_platform(&text, &platform, options, &uses);
                if engine.images().index_of(&text).is_none() {
                    removed.extend(gone?);
                    continue;
                }
                removed.extend(gone.map_err(|error| {
                    let kind = error.kind();
                    let id = &image.id;
                    let what = format!("failed to delete platform {platform} for image {id}");
                    Error::with_source(kind, what, error)
                })?);
            }
            Ok((image, removed))
        });
        let (image, removed) = removed.await?;
        self.publish_removed(&[image], &removed, false);
        Ok(removed)
    }

    /// Removes the images that `wanted` picks and no container uses. Returns what went, and how many bytes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prune_images(
        &self,
        wanted: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<(Vec<Removed>, u64)> {
        let before = self.images().list();
        let (removed, bytes) = self
            .blocking(move |engine| Ok(engine.images().prune(&wanted, &|| engine.image_uses())?))
            .await?;
        self.publish_removed(&before, &removed, true);
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
        self.events().publish(Event::now(Kind::Image, "prune", "", reclaimed));
        Ok((removed, bytes))
    }

    /// Publishes what a removal did; `before` are the images as they were. As with dockerd nothing is said of a digest that goes with
    /// the last tag of its repository, if that was named, and an image that is gone has no labels.
    pub(super) fn publish_removed(
        &self,
        before: &[Arc<Image>],
        removed: &[Removed],
        by_name: bool,
    ) {
        let mut last_tag: Option<&Reference> = None;
        for one in removed {
            match one {
                Removed::Name(id, reference) => {
                    let with_tag = by_name
                        && reference.tag.is_none()
                        && last_tag.is_some_and(|tag| tag.name == reference.name);
                    if with_tag {
                        continue;
                    }
                    last_tag = Some(reference).filter(|reference| reference.tag.is_some());
                    match before.iter().find(|image| image.id == *id) {
                        Some(image) => self.publish_image(image, "untag", id.as_str()),
                        None => self.publish_image_id(id.as_str(), "untag", BTreeMap::new()),
                    }
                }
                Removed::Image(id) => self.publish_image_id(id.as_str(), "delete", BTreeMap::new()),
                Removed::Layer(_) | Removed::Manifest(_) => {}
            }
        }
    }

    /// Publishes an event about an image: its labels and its name.
    pub(super) fn publish_image(&self, image: &Image, action: &str, name: &str) {
        let mut attributes = image.config.labels.clone().unwrap_or_default();
        attributes.insert("name".into(), name.to_owned());
        self.events().publish(Event::now(Kind::Image, action, image.id.as_str(), attributes));
    }

    fn publish_image_id(&self, id: &str, action: &str, mut attributes: BTreeMap<String, String>) {
        attributes.insert("name".into(), id.to_owned());
        self.events().publish(Event::now(Kind::Image, action, id, attributes));
    }

    /// Runs what blocks in a thread for that. It goes on to its end even if the caller goes away.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || work(&engine)).await.map_err(Error::lost)?
    }
}
