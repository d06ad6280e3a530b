//! The catalogue: what is read at start, looked up, and changed.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard},
};

use cleat_proto::digest::{ChainId, Digest, ImageId};
use cleat_proto::kind::whole;
use serde::{Deserialize, Serialize};

use super::{
    Catalog, Error, Image, ImageConfig, ImageRef, Images, Inner, Layer, Reference, Use, config,
    index,
};
use crate::{
    content::Content,
    gc,
    metadata::{self, Database, Table, Transaction},
    snapshot::{self, Lease, Snapshots},
};

pub(super) const IMAGES: Table<ImageRecord> = Table::new("images");
pub(super) const REFERENCES: Table<ImageId> = Table::new("references");

/// The right to decide and to change the catalogue.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// What the database has of an image beside its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// The image that it was committed on.
    pub(super) parent: Option<ImageId>,
    /// Nanoseconds since the epoch; 0 is never.
    pub(super) tagged_at_nanos: i64,
    /// Its topmost layer: what must stay even while the configuration cannot be read.
    #[serde(default)]
    pub(super) top_layer: Option<ChainId>,
}

/// A layer that is unpacked and synced, and waits for its image's commit.
pub(super) struct NewLayer {
    pub(super) layer: snapshot::Layer,
    /// `None` for a layer whose files are those of another with the same diff id.
    pub(super) draft: Option<snapshot::Draft>,
}

/// An image about to be recorded: its configuration is a blob, its layers are on disk.
pub(super) struct NewImage {
    pub(super) id: ImageId,
    /// The configuration's blob, which whoever removes the same image may take away until the commit.
    pub(super) bytes: Vec<u8>,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<NewLayer>,
    pub(super) parent: Option<ImageId>,
    pub(super) references: Vec<Reference>,
    /// Its names count as given now; those of an archive do not.
    pub(super) tagged: bool,
    /// The index that its names stand for.
    pub(super) part: Option<index::Part>,
}

/// Images to be removed in one step.
pub(super) struct Doomed {
    pub(super) images: Vec<Arc<Image>>,
    /// Which image their names lead to from now on; without one they go.
    pub(super) heir: Option<ImageId>,
}

impl Images {
    /// Opens the catalogue. An image whose record, configuration or layers are damaged is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::Metadata`] if the database cannot be read.
    pub fn open(database: Database, content: Content, snapshots: Snapshots) -> Result<Self, Error> {
        let images = Self(Arc::new(Inner {
            database,
            content,
            snapshots,
            catalog: std::sync::RwLock::default(),
            transfers: super::pull::Transfers::default(),
            turn: std::sync::Mutex::default(),
        }));
        images.read_records()?;
        Ok(images)
    }

    fn read_records(&self) -> Result<(), Error> {
        let mut catalog = self.write();
        for (key, record) in self.0.database.list(IMAGES)? {
            let top_layer = record.as_ref().ok().and_then(|record| record.top_layer.clone());
            let image =
                record.map_err(Error::from).and_then(|record| self.assemble_record(&key, record));
            match image {
                Ok(image) => drop(catalog.images.insert(image.id.clone(), Arc::new(image))),
                Err(error) => {
                    tracing::warn!(image = %key, error = whole(&error), "an image is damaged");
                    let layers = self.chain_ids_of(&key).unwrap_or_default();
                    catalog.damaged.insert(key, layers.into_iter().chain(top_layer).collect());
                }
            }
        }
        self.restore_names(&mut catalog, None)?;
        self.read_indexes(&mut catalog)
    }

    /// Gives images the names that the database has for them: all, or one.
    pub(super) fn restore_names(
        &self,
        catalog: &mut Catalog,
        only: Option<&ImageId>,
    ) -> Result<(), Error> {
        for (key, id) in self.0.database.list(REFERENCES)? {
            let (Ok(id), Ok(reference)) = (id, Reference::parse(&key)) else {
                tracing::warn!(reference = %key, "a reference is damaged");
                continue;
            };
            if only.is_none_or(|only| *only == id) {
                catalog.refer(reference, id);
            }
        }
        if let Some(only) = only {
            catalog.damaged.remove(only.as_str());
        }
        Ok(())
    }

    pub(super) fn assemble_record(&self, key: &str, record: ImageRecord) -> Result<Image, Error> {
        let id: ImageId =
            key.parse().map_err(|_| Error::ConfigShape("its record's key is no digest"))?;
        let bytes = self.0.content.read(&Digest::from(&id), config::LIMIT)?;
        let config = ImageConfig::parse(&bytes)?;
        self.assemble(id, config, record)
    }

    fn chain_ids_of(&self, key: &str) -> Option<Vec<ChainId>> {
        let id: ImageId = key.parse().ok()?;
        let bytes = self.0.content.read(&Digest::from(&id), config::LIMIT).ok()?;
        Some(ImageConfig::parse(&bytes).ok()?.chain_ids())
    }

    /// Puts an image together from its parts, all of which are in the store.
    fn assemble(
        &self,
        id: ImageId,
        config: ImageConfig,
        record: ImageRecord,
    ) -> Result<Image, Error> {
        let mut layers = Vec::with_capacity(config.rootfs.diff_ids.len());
        for chain_id in config.chain_ids() {
            let found = self.0.snapshots.layer(&chain_id);
            let layer = found.ok_or(snapshot::Error::NoLayer(chain_id))?;
            layers.push(Layer {
                diff_id: layer.diff_id.clone(),
                chain_id: layer.chain_id.clone(),
                size: layer.size,
            });
        }
        Ok(Image {
            id,
            config: config.config,
            architecture: config.architecture,
            variant: config.variant,
            os: if config.os.is_empty() { "linux".into() } else { config.os },
            os_version: config.os_version,
            created: config.created,
            author: config.author,
            comment: config.comment,
            docker_version: config.docker_version,
            history: config.history,
            size: layers.iter().map(|layer| layer.size).sum(),
            layers,
            parent: record.parent,
            tagged_at_nanos: record.tagged_at_nanos,
            references: Vec::new(),
            held: Vec::new(),
        })
    }

    /// Returns the image that a user means: by name, whole id, or an id's beginning.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`].
    pub fn resolve(&self, text: &str) -> Result<Arc<Image>, Error> {
        let catalog = self.read();
        let reference = match ImageRef::parse(text)? {
            ImageRef::Id(id) => {
                let of_manifest = || catalog.by_manifest(&|digest| digest.as_str() == id.as_str());
                let found = catalog.images.get(&id).cloned().or_else(of_manifest);
                return found.ok_or_else(|| Error::NotFound(id.to_string()));
            }
            ImageRef::Named(reference) => reference,
        };
        let by_name = catalog.references.get(&reference.key());
        if let Some(image) = by_name.and_then(|(_, id)| catalog.images.get(id)) {
            return Ok(Arc::clone(image));
        }
        catalog.by_prefix(text).ok_or_else(|| Error::NotFound(reference.or_latest().familiar()))
    }

    /// Returns an image by its id.
    pub fn get(&self, id: &ImageId) -> Option<Arc<Image>> {
        self.read().images.get(id).cloned()
    }

    /// Returns all images, in no order.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.read().images.values().cloned().collect()
    }

    /// Returns how many images there are, those of several platforms as one.
    pub fn count(&self) -> usize {
        self.read().images.values().filter(|image| !image.is_only_held()).count()
    }

    /// Returns the layers' store.
    pub fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    /// Returns the blobs' store.
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    /// Keeps an image's layers until the lease is dropped, even if the image is removed meanwhile: for the time between the look at
    /// an image and the record of a container that stands on it. `None` for an image without layers.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it has been removed since that look.
    pub fn lease(&self, image: &Image) -> Result<Option<Lease>, Error> {
        let _turn = self.turn();
        if self.get(&image.id).is_none() {
            return Err(Error::NotFound(image.id.to_string()));
        }
        Ok(image.top_layer().map(|top| self.0.snapshots.lease(top)))
    }

    /// Records an image with its layers and names in one commit, and makes it visible. Names move to it from other images.
    pub(super) fn commit(&self, new: NewImage) -> Result<Arc<Image>, Error> {
        let turn = self.turn();
        let id = new.id.clone();
        let made = self.commit_in_turn(&turn, new);
        if let Err(error) = &made {
            let is_settled = !matches!(error, Error::Metadata(metadata::Error::Unsettled(_)));
            if is_settled && matches!(self.0.database.get(IMAGES, id.as_str()), Ok(None)) {
                self.0.content.remove(&Digest::from(&id))?;
            }
        }
        made
    }

    fn commit_in_turn(&self, _turn: &Turn<'_>, mut new: NewImage) -> Result<Arc<Image>, Error> {
        let id = new.id.clone();
        self.0.content.put(&new.bytes)?;
        let content = new.part.as_mut().map(|part| std::mem::take(&mut part.content));
        let content = content.unwrap_or_default();
        content.iter().try_for_each(|bytes| self.0.content.put(bytes).map(drop))?;
        let fresh = self.fresh(&new.config.chain_ids(), new.layers)?;
        let known = self.get(&id);
        // Also of one that could not be shown so far.
        let before = self.0.database.get(IMAGES, id.as_str()).ok().flatten();
        let record = ImageRecord {
            parent: before.as_ref().map_or(new.parent, |before| before.parent.clone()),
            tagged_at_nanos: if new.tagged {
                crate::event::now_nanos()
            } else {
                before.as_ref().map_or(0, |before| before.tagged_at_nanos)
            },
            top_layer: new.config.chain_ids().pop(),
        };
        let layers: Vec<snapshot::Layer> = fresh.iter().map(|new| new.layer.clone()).collect();
        let (names, leads, change) = self.plan_names(&id, new.references, new.part)?;
        let (keys, leading) = (index::keys(&names), leads.clone());
        let stored = (id.clone(), record.clone());
        let written = self.0.database.write_blocking(move |tx| {
            layers.iter().try_for_each(|layer| Snapshots::put(tx, layer))?;
            tx.put(IMAGES, stored.0.as_str(), &stored.1)?;
            Self::note_use(tx, stored.0.as_str())?;
            keys.iter().try_for_each(|key| tx.put(REFERENCES, key, &leading))?;
            change.write(tx)?;
            Ok::<_, metadata::Error>(change)
        });
        let change = match written {
            Ok(change) => change,
            Err(error) => {
                self.drop_content(&content, &error)?;
                if matches!(error, metadata::Error::Unsettled(_)) {
                    // The records may be there: what they mean is left to the next start.
                    fresh.into_iter().filter_map(|new| new.draft).for_each(snapshot::Draft::leave);
                }
                return Err(error.into());
            }
        };
        for NewLayer { layer, draft } in fresh {
            self.0.snapshots.adopt(layer, draft);
        }
        let mut image = self.assemble(id.clone(), new.config, record)?;
        let mut catalog = self.write();
        if let Some(known) = &known {
            image.references.clone_from(&known.references);
        }
        catalog.images.insert(id.clone(), Arc::new(image));
        for reference in names {
            catalog.refer(reference, leads.clone());
        }
        if catalog.damaged.contains_key(id.as_str()) {
            self.restore_names(&mut catalog, Some(&id))?;
        }
        let dead = change.apply(&mut catalog);
        let image = Arc::clone(&catalog.images[&id]);
        drop(catalog);
        dead.iter().try_for_each(|digest| self.0.content.remove(digest))?;
        Ok(image)
    }

    /// Leaves out layers that another import has brought in meanwhile, and makes sure that those without files of their own have
    /// some, and that all of the `wanted` are there.
    fn fresh(&self, wanted: &[ChainId], layers: Vec<NewLayer>) -> Result<Vec<NewLayer>, Error> {
        let snapshots = &self.0.snapshots;
        let is_new = |new: &NewLayer| snapshots.layer(&new.layer.chain_id).is_none();
        let mut fresh: Vec<NewLayer> = layers.into_iter().filter(is_new).collect();
        let is_there = |id: &ChainId| {
            fresh.iter().any(|new| new.layer.chain_id == *id) || snapshots.layer(id).is_some()
        };
        if let Some(missing) = wanted.iter().find(|id| !is_there(id)) {
            return Err(snapshot::Error::NoLayer(missing.clone()).into());
        }
        let mut numbers: HashSet<u64> =
            snapshots.layers().iter().map(|layer| layer.number).collect();
        numbers.extend(fresh.iter().filter(|new| new.draft.is_some()).map(|new| new.layer.number));
        for new in fresh.iter_mut().filter(|new| new.draft.is_none()) {
            if !numbers.contains(&new.layer.number) {
                let twin = snapshots.any_with(&new.layer.diff_id);
                let twin =
                    twin.ok_or_else(|| snapshot::Error::NoLayer(new.layer.chain_id.clone()))?;
                new.layer.number = twin.number;
            }
        }
        Ok(fresh)
    }

    /// Returns the image that has a name.
    pub(super) fn owner(&self, reference: &Reference) -> Option<ImageId> {
        self.read().references.get(&reference.key()).map(|(_, id)| id.clone())
    }

    /// Finds a layer and keeps it and all below it.
    pub(super) fn lease_layer(
        &self,
        wanted: impl Fn(&snapshot::Layer) -> bool,
    ) -> Option<(Arc<snapshot::Layer>, Lease)> {
        // Not between somebody's decision to remove it and the removal.
        let _turn = self.turn();
        let layer = self.0.snapshots.layers().into_iter().find(|layer| wanted(layer))?;
        let lease = self.0.snapshots.lease(&layer.chain_id);
        Some((layer, lease))
    }

    /// Gives an image one more name; another image that had it loses it. Returns that one.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the image is gone, [`Error::Metadata`].
    pub fn tag(&self, id: &ImageId, reference: Reference) -> Result<Option<ImageId>, Error> {
        self.tag_in(id, reference, None)
    }

    /// The same; the name stands for an index that has the image, if one is given.
    ///
    /// # Errors
    /// The same.
    pub fn tag_in(
        &self,
        id: &ImageId,
        reference: Reference,
        index: Option<&Digest>,
    ) -> Result<Option<ImageId>, Error> {
        let _turn = self.turn();
        let image = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        let key = reference.key();
        let (before, change) = {
            let (catalog, name) = (self.read(), std::slice::from_ref(&key));
            let before = catalog.references.get(&key).map(|(_, id)| id.clone());
            let change = match index.filter(|index| catalog.indexes.contains_key(*index)) {
                Some(index) => catalog.change_to(name, index),
                None => catalog.change(name, None, &[], &[])?,
            };
            (before, change)
        };
        let now = crate::event::now_nanos();
        let record = ImageRecord {
            parent: image.parent.clone(),
            tagged_at_nanos: now,
            top_layer: image.top_layer().cloned(),
        };
        let stored = id.clone();
        let change = self.0.database.write_blocking(move |tx| {
            tx.put(IMAGES, stored.as_str(), &record)?;
            Self::note_use(tx, stored.as_str())?;
            tx.put(REFERENCES, &key, &stored)?;
            change.write(tx)?;
            Ok::<_, metadata::Error>(change)
        })?;
        let mut catalog = self.write();
        let mut image = Image::clone(&image);
        image.tagged_at_nanos = now;
        catalog.images.insert(id.clone(), Arc::new(image));
        catalog.refer(reference, id.clone());
        let dead = change.apply(&mut catalog);
        drop(catalog);
        dead.iter().try_for_each(|digest| self.0.content.remove(digest))?;
        Ok(before.filter(|before| before != id))
    }

    /// Takes names away.
    pub(super) fn untag(&self, _turn: &Turn<'_>, references: &[Reference]) -> Result<(), Error> {
        let keys: Vec<String> = references.iter().map(Reference::key).collect();
        let change = self.read().change(&[], None, &keys, &[])?;
        let change = self.0.database.write_blocking(move |tx| {
            keys.iter().for_each(|key| tx.delete(REFERENCES, key));
            change.write(tx)?;
            Ok::<_, metadata::Error>(change)
        })?;
        let mut catalog = self.write();
        references.iter().for_each(|reference| catalog.unrefer(reference));
        let dead = change.apply(&mut catalog);
        drop(catalog);
        Ok(dead.iter().try_for_each(|digest| self.0.content.remove(digest))?)
    }

    /// Removes images' records and their names, and every layer that nothing refers to any more. Returns those, the topmost first.
    pub(super) fn delete(
        &self,
        _turn: &Turn<'_>,
        doomed: Doomed,
        uses: &dyn Fn() -> Vec<Use>,
    ) -> Result<Vec<ChainId>, Error> {
        let is_doomed = |id: &ImageId| doomed.images.iter().any(|image| image.id == *id);
        let rest: Vec<Arc<Image>> =
            self.list().into_iter().filter(|other| !is_doomed(&other.id)).collect();
        let garbage = self.garbage(&rest, uses);
        let names: Vec<Reference> =
            doomed.images.iter().flat_map(|image| image.references.clone()).collect();
        let ids: Vec<ImageId> = doomed.images.iter().map(|image| image.id.clone()).collect();
        let keys = index::keys(&names);
        let cut = if doomed.heir.is_some() { &[][..] } else { &keys[..] };
        let change = self.read().change(&[], None, cut, &ids)?;
        let (gone, layers, heir) = (ids.clone(), garbage.clone(), doomed.heir.clone());
        let change = self.0.database.write_blocking(move |tx: &mut Transaction| {
            for id in &gone {
                tx.delete(IMAGES, id.as_str());
                Self::forget_use(tx, id.as_str());
            }
            for key in &keys {
                match &heir {
                    Some(heir) => tx.put(REFERENCES, key, heir)?,
                    None => tx.delete(REFERENCES, key),
                }
            }
            layers.iter().for_each(|layer| Snapshots::forget(tx, layer));
            change.write(tx)?;
            Ok::<_, metadata::Error>(change)
        })?;
        let mut catalog = self.write();
        for name in names {
            match &doomed.heir {
                Some(heir) => catalog.refer(name, heir.clone()),
                None => catalog.unrefer(&name),
            }
        }
        ids.iter().for_each(|id| drop(catalog.images.remove(id)));
        let mut dead = change.apply(&mut catalog);
        drop(catalog);
        self.0.snapshots.discard(&garbage)?;
        dead.extend(ids.iter().map(Digest::from));
        dead.iter().try_for_each(|digest| self.0.content.remove(digest))?;
        Ok(garbage)
    }

    /// Removes layers and blobs that nothing refers to: after the removal of a container whose image is gone, and at start.
    ///
    /// # Errors
    /// [`Error::Metadata`], [`Error::Snapshot`], [`Error::Content`].
    pub fn sweep(&self, uses: &dyn Fn() -> Vec<Use>) -> Result<(), Error> {
        let _turn = self.turn();
        let garbage = self.garbage(&self.list(), uses);
        if garbage.is_empty() {
            return Ok(());
        }
        let layers = garbage.clone();
        self.0.database.write_blocking(move |tx: &mut Transaction| {
            layers.iter().for_each(|layer| Snapshots::forget(tx, layer));
            Ok::<_, metadata::Error>(())
        })?;
        Ok(self.0.snapshots.discard(&garbage)?)
    }

    /// Removes blobs that no image's record names. What an import stores before its record may go as well: the commit stores it
    /// again.
    ///
    /// # Errors
    /// [`Error::Content`], [`Error::Metadata`].
    pub fn sweep_blobs(&self) -> Result<(), Error> {
        let _turn = self.turn();
        let records = self.0.database.list(IMAGES)?;
        let named: HashSet<String> = records.into_iter().map(|(key, _)| key).collect();
        let needed = self.manifest_blobs();
        for digest in self.0.content.list()? {
            if !named.contains(digest.as_str()) && !needed.contains(&digest) {
                self.0.content.remove(&digest)?;
            }
        }
        self.sweep_uses(&named)?;
        Ok(self.sweep_known_blobs()?)
    }

    fn garbage(&self, images: &[Arc<Image>], uses: &dyn Fn() -> Vec<Use>) -> Vec<ChainId> {
        let mut roots: HashSet<ChainId> = self.0.snapshots.leased().into_iter().collect();
        roots.extend(self.read().damaged.values().flatten().cloned());
        roots.extend(images.iter().filter_map(|image| image.top_layer().cloned()));
        // After the leases: a container's record is there before the lease of who makes it ends.
        roots.extend(uses().into_iter().filter_map(|user| user.top_layer));
        gc::unreferenced(&self.0.snapshots.layers(), &roots)
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.0.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.0.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Points a name to an image, away from another one if need be.
    pub(super) fn refer(&mut self, reference: Reference, id: ImageId) {
        self.unrefer(&reference);
        let Some(image) = self.images.get_mut(&id) else { return };
        let image = Arc::make_mut(image);
        image.references.push(reference.clone());
        image.references.sort_by_cached_key(Reference::to_string);
        self.references.insert(reference.key(), (reference, id));
    }

    pub(super) fn unrefer(&mut self, reference: &Reference) {
        let Some((_, id)) = self.references.remove(&reference.key()) else { return };
        if let Some(image) = self.images.get_mut(&id) {
            let key = reference.key();
            Arc::make_mut(image).references.retain(|other| other.key() != key);
        }
    }

    /// Returns the one image whose id begins with `text`.
    fn by_prefix(&self, text: &str) -> Option<Arc<Image>> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty()
            || !prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(prefix));
        let Some(first) = found.next() else {
            return self.by_manifest(&|digest| digest.hex().starts_with(prefix));
        };
        found.next().is_none().then(|| Arc::clone(first))
    }
}
