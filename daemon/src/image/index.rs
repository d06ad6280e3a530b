//! Indexes: what a reference stands for that has an image for each of several platforms.
//!
//! An index and its manifests are kept byte for byte, as records: what a registry calls them stays true. Which of its
//! images are here follows from the manifests that are. A reference to an index leads to one of them, that of this machine
//! if it is here; the others are held by the same names, go with the last of them, and are no images of their own to
//! `docker images`. What is no image (a build's attestation) is kept as its manifest and its blobs.
//!
//! ```text
//!  reference ─▶ index ─▶ manifest (linux/amd64) ─▶ image        reference ─▶ the image it leads to
//!                    ├─▶ manifest (linux/arm64) ─▶ image, held
//!                    ├─▶ manifest (linux/s390x)    not here
//!                    └─▶ manifest (unknown)     ─▶ blobs
//! ```
//! Source: OCI image-spec, image-index.md; the annotations of attestations are BuildKit's (docs/attestations).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use cleat_proto::{
    digest::{Digest, ImageId},
    docker::image::Descriptor,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Catalog, Error, Image, ImageRef, Images, Reference};
use crate::{
    metadata::{self, Table, Transaction},
    registry::{
        self, Found,
        manifest::{self, Platform},
    },
};

const INDEXES: Table<Document> = Table::new("indexes");
const MANIFESTS: Table<ManifestRecord> = Table::new("index-manifests");
/// Which references stand for an index, by [`Reference::key`].
const INDEXED: Table<Digest> = Table::new("reference-indexes");

/// The most that a blob has that is no layer, in bytes, and all that one manifest names.
pub(super) const BLOB_MAX: u64 = 32 << 20;

/// What BuildKit's attestations are annotated with.
const ATTESTS: &str = "vnd.docker.reference.digest";
const ATTESTATION: (&str, &str) = ("vnd.docker.reference.type", "attestation-manifest");

/// A manifest or an index, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) text: String,
}

impl Document {
    /// Takes what a registry or an archive has. `claimed` is what is said of it elsewhere; its own word counts more.
    pub(super) fn new(bytes: &[u8], claimed: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            #[serde(default)]
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let wrong = |why: String| registry::Error::Manifest(why);
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| wrong("invalid manifest: it is not UTF-8".into()))?;
        let typed: Typed = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("invalid manifest: {error}")))?;
        let is_known = |text: &String| manifest::ACCEPT.contains(&text.as_str());
        let media_type = typed.media_type.filter(is_known);
        let media_type = media_type.or_else(|| Some(claimed.to_owned()).filter(is_known));
        let media_type = media_type.unwrap_or_else(|| match typed.manifests {
            Some(_) => manifest::OCI_INDEX.to_owned(),
            None => manifest::OCI_MANIFEST.to_owned(),
        });
        Ok(Self { media_type, text })
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::from_sum(Sha256::digest(&self.text))
    }
}

/// A manifest that is here, with all that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    pub(super) document: Document,
    /// The image that it describes; `None` if it describes none.
    pub(super) image: Option<ImageId>,
    /// What it names, where that is no image.
    pub(super) blobs: Vec<(Digest, u64)>,
}

/// What an image is a part of, and what came with it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) index: Document,
    pub(super) manifests: Vec<ManifestRecord>,
    /// The blobs of those that are no images.
    pub(super) content: Vec<Vec<u8>>,
}

impl Part {
    /// Of one image in an index.
    pub(super) fn new(index: Document, manifest: Document, image: ImageId) -> Self {
        let manifest = ManifestRecord { document: manifest, image: Some(image), blobs: Vec::new() };
        Self { index, manifests: vec![manifest], content: Vec::new() }
    }
}

/// An index.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Its name.
    pub digest: Digest,
    /// Docker's or OCI's.
    pub media_type: String,
    /// Its length.
    pub size: u64,
    /// What it lists, in its order.
    pub entries: Vec<Descriptor>,
}

impl Index {
    pub(super) fn parse(document: &Document) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Raw {
            manifests: Vec<Descriptor>,
        }
        // Once more by the one that knows what an index may not be.
        registry::manifest::parse(document.text.as_bytes(), &document.media_type)?;
        let raw: Raw = serde_json::from_str(&document.text)
            .map_err(|error| registry::Error::Manifest(format!("invalid manifest: {error}")))?;
        Ok(Self {
            digest: document.digest(),
            media_type: document.media_type.clone(),
            size: document.text.len() as u64,
            entries: raw.manifests,
        })
    }

    /// Returns its descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.size)
    }

    /// Returns the entries that a platform can run, the best first.
    pub(super) fn matching(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let entries: Vec<manifest::Descriptor> = self.entries.iter().map(plain).collect();
        let found = manifest::matching(&entries, wanted);
        let found = found.into_iter().filter_map(|one| self.entry(&one.digest));
        found.filter(|entry| is_image(entry)).collect()
    }

    pub(super) fn entry(&self, digest: &Digest) -> Option<&Descriptor> {
        self.entries.iter().find(|entry| entry.digest == *digest)
    }
}

fn plain(entry: &Descriptor) -> manifest::Descriptor {
    manifest::Descriptor {
        media_type: entry.media_type.clone(),
        size: entry.size,
        digest: entry.digest.clone(),
        urls: None,
        platform: entry.platform.clone(),
    }
}

/// Whether an entry of an index is an image, as far as the index says.
pub fn is_image(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    !unknown && attests(entry).is_none()
}

/// Returns what an entry of an index is an attestation for.
pub fn attests(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations.as_ref()?;
    let (key, value) = ATTESTATION;
    if annotations.get(key).is_none_or(|kind| kind != value) {
        return None;
    }
    Some(annotations.get(ATTESTS).map_or("", String::as_str))
}

/// Points an attestation to the new name of what it is for.
pub(super) fn attest(entry: &mut Descriptor, renamed: &BTreeMap<String, Digest>) {
    let of = entry.annotations.as_mut().and_then(|annotations| annotations.get_mut(ATTESTS));
    if let Some(of) = of
        && let Some(digest) = renamed.get(of)
    {
        *of = digest.to_string();
    }
}

/// A manifest of an index, and whether it is here.
#[derive(Clone, Debug)]
pub struct Member {
    /// As the index has it.
    pub entry: Descriptor,
    /// The image, if it is one and here.
    pub image: Option<Arc<Image>>,
    /// All that it names is here.
    pub available: bool,
    /// What its records and blobs take, without an image's layers, in bytes.
    pub content_bytes: u64,
}

impl Member {
    /// Returns which machine it is for.
    pub fn platform(&self) -> Platform {
        match (&self.entry.platform, &self.image) {
            (Some(platform), _) => platform.clone(),
            (None, Some(image)) => image.platform(),
            (None, None) => Platform::default(),
        }
    }
}

/// What `docker images` shows as one: an image, and those of other platforms that are held by the same names.
#[derive(Clone, Debug)]
pub struct Family {
    /// The one that the names lead to.
    pub image: Arc<Image>,
    /// What the names stand for, if that is more than the image.
    pub index: Option<Arc<Index>>,
    /// All images, that one first.
    pub images: Vec<Arc<Image>>,
}

/// A change to what references stand for, with all that follows from it.
#[derive(Default)]
pub(super) struct Change {
    put: Vec<(String, Digest)>,
    cut: Vec<String>,
    index: Option<(Arc<Index>, Document)>,
    manifests: Vec<(Digest, ManifestRecord)>,
    dead_indexes: Vec<Digest>,
    dead_manifests: Vec<Digest>,
    dead_blobs: Vec<Digest>,
}

impl Change {
    pub(super) fn write(&self, tx: &mut Transaction) -> Result<(), metadata::Error> {
        self.dead_indexes.iter().for_each(|digest| tx.delete(INDEXES, digest.as_str()));
        self.dead_manifests.iter().for_each(|digest| tx.delete(MANIFESTS, digest.as_str()));
        self.cut.iter().for_each(|key| tx.delete(INDEXED, key));
        if let Some((index, document)) = &self.index {
            tx.put(INDEXES, index.digest.as_str(), document)?;
        }
        for (digest, record) in &self.manifests {
            tx.put(MANIFESTS, digest.as_str(), record)?;
        }
        self.put.iter().try_for_each(|(key, digest)| tx.put(INDEXED, key, digest))
    }

    /// Returns the blobs that nothing needs any more.
    pub(super) fn apply(self, catalog: &mut Catalog) -> Vec<Digest> {
        self.cut.iter().for_each(|key| drop(catalog.indexed.remove(key)));
        self.dead_indexes.iter().for_each(|digest| drop(catalog.indexes.remove(digest)));
        self.dead_manifests.iter().for_each(|digest| drop(catalog.manifests.remove(digest)));
        if let Some((index, _)) = self.index {
            catalog.indexes.insert(index.digest.clone(), index);
        }
        for (digest, record) in self.manifests {
            catalog.manifests.insert(digest, Stored::from(&record));
        }
        catalog.indexed.extend(self.put);
        catalog.hold();
        self.dead_blobs
    }
}

/// What is kept in memory of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    image: Option<ImageId>,
    size: u64,
    blobs: Vec<(Digest, u64)>,
}

impl From<&ManifestRecord> for Stored {
    fn from(record: &ManifestRecord) -> Self {
        let (image, blobs) = (record.image.clone(), record.blobs.clone());
        Self { image, size: record.document.text.len() as u64, blobs }
    }
}

impl Catalog {
    /// Plans what becomes of indexes when `names` stand for what `part` is of, or for none, `cut` are gone, and so are `images`.
    pub(super) fn change(
        &self,
        names: &[String],
        part: Option<Part>,
        cut: &[String],
        images: &[ImageId],
    ) -> Result<Change, Error> {
        let mut change = Change::default();
        let cut = cut.iter().filter(|key| self.indexed.contains_key(*key));
        change.cut = cut.cloned().collect();
        let new = match part {
            Some(part) => {
                let index = Arc::new(Index::parse(&part.index)?);
                let put = names.iter().map(|key| (key.clone(), index.digest.clone()));
                change.put = put.collect();
                let manifests =
                    part.manifests.into_iter().map(|record| (record.document.digest(), record));
                change.manifests = manifests.collect();
                change.index = Some((Arc::clone(&index), part.index));
                Some(index)
            }
            None => {
                let moved = names.iter().filter(|key| self.indexed.contains_key(*key));
                change.cut.extend(moved.cloned());
                None
            }
        };
        if self.indexed.is_empty() && change.index.is_none() {
            return Ok(change);
        }
        self.find_dead(&mut change, new.as_ref(), images);
        Ok(change)
    }

    /// Plans that names stand for an index that is here.
    pub(super) fn change_to(&self, names: &[String], index: &Digest) -> Change {
        let put = names.iter().map(|key| (key.clone(), index.clone())).collect();
        let mut change = Change { put, ..Change::default() };
        self.find_dead(&mut change, None, &[]);
        change
    }

    fn find_dead(&self, change: &mut Change, new: Option<&Arc<Index>>, images: &[ImageId]) {
        let mut live: HashSet<&Digest> = change.put.iter().map(|(_, digest)| digest).collect();
        let is_kept = |key: &String| {
            !change.cut.contains(key) && change.put.iter().all(|(put, _)| put != key)
        };
        let kept = self.indexed.iter().filter(|(key, _)| is_kept(key));
        live.extend(kept.map(|(_, digest)| digest));
        let dead_indexes = self.indexes.keys().filter(|digest| !live.contains(digest)).cloned();
        let dead_indexes: Vec<Digest> = dead_indexes.collect();
        let indexes =
            self.indexes.iter().filter(|(digest, _)| live.contains(digest)).map(|(_, index)| index);
        let entries = indexes.chain(new).flat_map(|index| &index.entries);
        let listed: HashSet<&Digest> = entries.map(|entry| &entry.digest).collect();
        let is_dead = |(digest, stored): &(&Digest, &Stored)| {
            !listed.contains(digest)
                || stored.image.as_ref().is_some_and(|image| images.contains(image))
        };
        let (dead, kept): (Vec<_>, Vec<_>) = self.manifests.iter().partition(is_dead);
        let new_blobs = change.manifests.iter().flat_map(|(_, record)| &record.blobs);
        let blobs = kept.iter().flat_map(|(_, stored)| &stored.blobs).chain(new_blobs);
        let blobs: HashSet<&Digest> = blobs.map(|(digest, _)| digest).collect();
        let dead_blobs = dead.iter().flat_map(|(_, stored)| &stored.blobs);
        let dead_blobs = dead_blobs.map(|(digest, _)| digest).filter(|digest| {
            !blobs.contains(digest) && !self.images.contains_key(&ImageId::from((*digest).clone()))
        });
        let dead_blobs: HashSet<Digest> = dead_blobs.cloned().collect();
        let dead_manifests = dead.iter().map(|(digest, _)| (*digest).clone()).collect();
        change.dead_blobs = dead_blobs.into_iter().collect();
        change.dead_manifests = dead_manifests;
        change.dead_indexes = dead_indexes;
    }

    /// Returns which image a reference leads to that stands for an index: this machine's if it is here, else `latest`.
    pub(super) fn leading(&self, part: &Part, latest: &ImageId) -> Result<ImageId, Error> {
        let index = Index::parse(&part.index)?;
        let new: HashMap<Digest, &ImageId> = part
            .manifests
            .iter()
            .filter_map(|record| Some((record.document.digest(), record.image.as_ref()?)))
            .collect();
        let is_here = |id: &ImageId| id == latest || self.images.contains_key(id);
        let image = |entry: &Descriptor| {
            let stored = self.manifests.get(&entry.digest);
            let known = stored.and_then(|stored| stored.image.as_ref());
            let id = new.get(&entry.digest).copied().or(known)?;
            is_here(id).then(|| id.clone())
        };
        let best = index.matching(&Platform::host()).into_iter().find_map(image);
        Ok(best.unwrap_or_else(|| latest.clone()))
    }

    /// Returns the names that stand for an index.
    pub(super) fn names_of(&self, index: &Digest) -> Vec<Reference> {
        let names = self.indexed.iter().filter(|(_, digest)| *digest == index);
        names.filter_map(|(key, _)| Reference::parse(key).ok()).collect()
    }

    pub(super) fn members(&self, index: &Index) -> Vec<Member> {
        let member = |entry: &Descriptor| {
            let stored = self.manifests.get(&entry.digest);
            let id = stored.and_then(|stored| stored.image.as_ref());
            let image = id.and_then(|id| self.images.get(id)).cloned();
            let blobs = stored.map_or(0, |stored| {
                stored.size + stored.blobs.iter().map(|(_, size)| size).sum::<u64>()
            });
            Member {
                available: stored.is_some() && (id.is_none() || image.is_some()),
                content_bytes: blobs,
                entry: entry.clone(),
                image,
            }
        };
        index.entries.iter().map(member).collect()
    }

    /// Returns the images of an index that are here, each once.
    pub(super) fn images_of(&self, index: &Index) -> Vec<Arc<Image>> {
        let mut images: Vec<Arc<Image>> = Vec::new();
        let id = |entry: &Descriptor| self.manifests.get(&entry.digest)?.image.as_ref();
        let here = index.entries.iter().filter_map(|entry| self.images.get(id(entry)?));
        for image in here {
            if images.iter().all(|known| known.id != image.id) {
                images.push(Arc::clone(image));
            }
        }
        images
    }

    /// Notes in each image by which names it is held that lead to another.
    fn hold(&mut self) {
        if self.indexed.is_empty() && self.images.values().all(|image| image.held.is_empty()) {
            return;
        }
        let mut held: HashMap<ImageId, Vec<Reference>> = HashMap::new();
        for (key, digest) in &self.indexed {
            let Some(index) = self.indexes.get(digest) else { continue };
            let Ok(reference) = Reference::parse(key) else { continue };
            let leads = self.references.get(key).map(|(_, id)| id);
            for image in self.images_of(index) {
                if leads != Some(&image.id) {
                    held.entry(image.id.clone()).or_default().push(reference.clone());
                }
            }
        }
        for (id, image) in &mut self.images {
            let held = held.remove(id).unwrap_or_default();
            if image.held != held {
                Arc::make_mut(image).held = held;
            }
        }
    }

    /// The indexes that an image belongs to, that of its own names first.
    fn indexes_of(&self, image: &Image) -> Vec<Arc<Index>> {
        let mut found: Vec<Arc<Index>> = Vec::new();
        for reference in image.references.iter().chain(&image.held) {
            let index = self.indexed.get(&reference.key()).and_then(|key| self.indexes.get(key));
            if let Some(index) = index
                && found.iter().all(|known| known.digest != index.digest)
            {
                found.push(Arc::clone(index));
            }
        }
        found
    }

    fn family(&self, image: &Arc<Image>) -> Family {
        let mut images = vec![Arc::clone(image)];
        let indexes: Vec<Arc<Index>> = self.indexes_of(image);
        for other in indexes.iter().flat_map(|index| self.images_of(index)) {
            if images.iter().all(|known| known.id != other.id) {
                images.push(other);
            }
        }
        Family { image: Arc::clone(image), index: indexes.into_iter().next(), images }
    }

    /// The image whose manifest has this digest, or that an index of this digest leads to.
    pub(super) fn by_manifest(&self, is_meant: &dyn Fn(&Digest) -> bool) -> Option<Arc<Image>> {
        let indexes = self.indexed.iter().filter(|(_, digest)| is_meant(digest));
        let of_index = indexes.filter_map(|(key, _)| Some(&self.references.get(key)?.1));
        let stored = self.manifests.iter().filter(|(digest, _)| is_meant(digest));
        let mut ids = stored.filter_map(|(_, stored)| stored.image.as_ref()).chain(of_index);
        let first = ids.next()?;
        if ids.any(|other| other != first) {
            return None;
        }
        self.images.get(first).cloned()
    }
}

impl Images {
    /// Reads what references stand for. What is damaged is as if it were not there.
    pub(super) fn read_indexes(&self, catalog: &mut Catalog) -> Result<(), Error> {
        for (key, document) in self.0.database.list(INDEXES)? {
            match document.map_err(Error::from).and_then(|document| Index::parse(&document)) {
                Ok(index) if index.digest.as_str() == key => {
                    catalog.indexes.insert(index.digest.clone(), Arc::new(index));
                }
                Ok(_) => tracing::warn!(index = %key, "an index is damaged"),
                Err(error) => {
                    let error = cleat_proto::kind::whole(&error);
                    tracing::warn!(index = %key, error, "an index is damaged");
                }
            }
        }
        for (key, record) in self.0.database.list(MANIFESTS)? {
            let (Ok(digest), Ok(record)) = (key.parse::<Digest>(), record) else {
                tracing::warn!(manifest = %key, "a manifest is damaged");
                continue;
            };
            catalog.manifests.insert(digest, Stored::from(&record));
        }
        for (key, digest) in self.0.database.list(INDEXED)? {
            if let Ok(digest) = digest
                && catalog.indexes.contains_key(&digest)
            {
                catalog.indexed.insert(key, digest);
            }
        }
        catalog.hold();
        Ok(())
    }

    /// Returns the blobs that manifests need.
    pub(super) fn manifest_blobs(&self) -> HashSet<Digest> {
        let catalog = self.read();
        let blobs = catalog.manifests.values().flat_map(|stored| &stored.blobs);
        blobs.map(|(digest, _)| digest.clone()).collect()
    }

    /// Returns an index, byte for byte.
    pub(super) fn index_document(&self, digest: &Digest) -> Result<Option<Document>, Error> {
        Ok(self.0.database.get(INDEXES, digest.as_str())?)
    }

    /// Returns an image's manifest of an index, byte for byte and as it is read.
    pub(super) fn image_manifest(
        &self,
        digest: &Digest,
    ) -> Result<Option<(Document, manifest::Manifest)>, Error> {
        let Some(record) = self.manifest_record(digest)? else { return Ok(None) };
        let document = record.document;
        match manifest::parse(document.text.as_bytes(), &document.media_type)? {
            manifest::Document::Manifest(manifest) => Ok(Some((document, manifest))),
            manifest::Document::Index(_) => Ok(None),
        }
    }

    /// Returns a manifest with what it names.
    pub(super) fn manifest_record(&self, digest: &Digest) -> Result<Option<ManifestRecord>, Error> {
        Ok(self.0.database.get(MANIFESTS, digest.as_str())?)
    }

    /// Returns what a push of a name brings: the image that it leads to alone, or all of its index.
    ///
    /// Source: moby, daemon/containerd/image_push.go: the index if all of it is here, else the one image that is here or that is
    /// for this machine.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it could be several.
    pub fn pushed(
        &self,
        reference: &Reference,
        image: &Arc<Image>,
    ) -> Result<(Arc<Image>, Option<Arc<Index>>), Error> {
        let Some(index) = self.index_of(&reference.to_string()) else {
            return Ok((Arc::clone(image), None));
        };
        let members = self.members(&index);
        if members.iter().all(|member| member.available) {
            return Ok((Arc::clone(image), Some(index)));
        }
        let is_one = self.read().images_of(&index).len() == 1;
        if is_one || manifest::runs(&image.platform(), &Platform::host()) {
            return Ok((Arc::clone(image), None));
        }
        Err(Error::Conflict(
            "multiple matching manifests found but no specific platform requested".into(),
        ))
    }

    /// Returns what `docker images` shows as one with an image.
    pub fn family(&self, image: &Arc<Image>) -> Family {
        self.read().family(image)
    }

    /// Returns all images, those of several platforms as one, in no order.
    pub fn families(&self) -> Vec<Family> {
        let catalog = self.read();
        let shown = catalog.images.values().filter(|image| !image.is_only_held());
        shown.map(|image| catalog.family(image)).collect()
    }

    /// Whether a name stands for an index.
    pub(super) fn is_indexed(&self, name: &Reference) -> bool {
        self.read().indexed.contains_key(&name.key())
    }

    /// Returns what an index lists.
    pub fn members(&self, index: &Index) -> Vec<Member> {
        self.read().members(index)
    }

    /// Returns the index that a user's text stands for.
    pub fn index_of(&self, text: &str) -> Option<Arc<Index>> {
        let catalog = self.read();
        if let Ok(ImageRef::Named(reference)) = ImageRef::parse(text)
            && let Some(digest) = catalog.indexed.get(&reference.key())
        {
            return catalog.indexes.get(digest).cloned();
        }
        drop(catalog);
        let image = self.resolve(text).ok()?;
        let catalog = self.read();
        // An id alone: whatever its own names stand for.
        let mut own = image.references.iter().filter_map(|name| catalog.indexed.get(&name.key()));
        catalog.indexes.get(own.next()?).cloned()
    }

    /// Returns a manifest that describes an image.
    pub(super) fn manifest_of(&self, image: &ImageId) -> Option<Descriptor> {
        let catalog = self.read();
        let mut found = catalog.manifests.iter();
        let (digest, _) = found.find(|(_, stored)| stored.image.as_ref() == Some(image))?;
        catalog.indexes.values().find_map(|index| index.entry(digest)).cloned()
    }

    /// Returns the image that a user means, of the wanted platform if one is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`]; [`Error::OtherPlatform`], [`Error::NoPlatform`].
    pub fn resolve_for(
        &self,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<Arc<Image>, Error> {
        let image = self.resolve(text)?;
        let Some(wanted) = platform else { return Ok(image) };
        let index = self.index_of(text);
        if let Some(index) = &index {
            let members = self.members(index);
            let best = index.matching(wanted).into_iter().find_map(|entry| {
                let member = members.iter().find(|member| member.entry.digest == entry.digest)?;
                member.image.clone()
            });
            if let Some(image) = best {
                return Ok(image);
            }
        }
        if manifest::runs(&image.platform(), wanted) {
            return Ok(image);
        }
        let name = familiar(text);
        if index.is_some_and(|index| self.read().images_of(&index).len() > 1) {
            return Err(Error::NoPlatform { name, wanted: wanted.to_string() });
        }
        Err(Error::OtherPlatform {
            name,
            has: image.platform().to_string(),
            wanted: wanted.to_string(),
        })
    }

    /// Gives an image that is here names, as a part of an index. Returns whether anything is new. Blocks.
    pub(super) fn name_in(
        &self,
        id: &ImageId,
        names: Vec<Reference>,
        mut part: Part,
    ) -> Result<bool, Error> {
        let _turn = self.turn();
        let image = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        let content = std::mem::take(&mut part.content);
        let (names, leads, change) = self.plan_names(id, names, Some(part))?;
        let is_known = {
            let catalog = self.read();
            let same = |name: &Reference| {
                catalog.references.get(&name.key()).is_some_and(|(_, id)| *id == leads)
            };
            let stands =
                |(key, digest): &(String, Digest)| catalog.indexed.get(key) == Some(digest);
            let has = |(digest, record): &(Digest, ManifestRecord)| {
                let stored = catalog.manifests.get(digest);
                stored.is_some_and(|stored| stored.image == record.image)
            };
            names.iter().all(same)
                && change.put.iter().all(stands)
                && change.manifests.iter().all(has)
        };
        if is_known {
            self.touch(id.as_str());
            return Ok(false);
        }
        let now = crate::event::now_nanos();
        let record = super::store::ImageRecord {
            parent: image.parent.clone(),
            tagged_at_nanos: now,
            top_layer: image.top_layer().cloned(),
        };
        let (keys, stored, leading) = (keys(&names), id.clone(), leads.clone());
        content.iter().try_for_each(|bytes| self.content().put(bytes).map(drop))?;
        let written = self.0.database.write_blocking(move |tx| {
            tx.put(super::store::IMAGES, stored.as_str(), &record)?;
            Self::note_use(tx, stored.as_str())?;
            let put = |key: &String| tx.put(super::store::REFERENCES, key, &leading);
            keys.iter().try_for_each(put)?;
            change.write(tx)?;
            Ok::<_, metadata::Error>(change)
        });
        let change = match written {
            Ok(change) => change,
            Err(error) => {
                self.drop_content(&content, &error)?;
                return Err(error.into());
            }
        };
        let mut catalog = self.write();
        if let Some(image) = catalog.images.get_mut(id) {
            Arc::make_mut(image).tagged_at_nanos = now;
        }
        for name in names {
            catalog.refer(name, leads.clone());
        }
        let dead = change.apply(&mut catalog);
        drop(catalog);
        dead.iter().try_for_each(|digest| self.content().remove(digest))?;
        Ok(true)
    }

    /// Removes blobs again that a commit did not come to need.
    pub(super) fn drop_content(
        &self,
        content: &[Vec<u8>],
        error: &metadata::Error,
    ) -> Result<(), Error> {
        if matches!(error, metadata::Error::Unsettled(_)) {
            return Ok(());
        }
        let needed = self.manifest_blobs();
        for digest in content.iter().map(|bytes| Digest::from_sum(Sha256::digest(bytes))) {
            let is_image = self.get(&ImageId::from(digest.clone())).is_some();
            if !is_image && !needed.contains(&digest) {
                self.content().remove(&digest)?;
            }
        }
        Ok(())
    }

    /// Finds out which names lead where once an image gets names, and what becomes of indexes.
    pub(super) fn plan_names(
        &self,
        id: &ImageId,
        mut names: Vec<Reference>,
        part: Option<Part>,
    ) -> Result<(Vec<Reference>, ImageId, Change), Error> {
        let catalog = self.read();
        let mut leads = id.clone();
        if let Some(part) = &part {
            leads = catalog.leading(part, id)?;
            for other in catalog.names_of(&part.index.digest()) {
                if names.iter().all(|name| name.key() != other.key()) {
                    names.push(other);
                }
            }
        }
        let change = catalog.change(&keys(&names), part, &[], &[])?;
        Ok((names, leads, change))
    }
}

pub(super) fn keys(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::key).collect()
}

/// What was typed; a name in full as users write it.
fn familiar(text: &str) -> String {
    match ImageRef::parse(text) {
        Ok(ImageRef::Named(reference)) if reference.to_string() == text => reference.familiar(),
        _ => text.to_owned(),
    }
}

/// A manifest of an index as it was fetched.
pub(super) fn fetched(found: &Found, claimed: &str) -> Result<Document, Error> {
    let claimed = if claimed.is_empty() { &found.media_type } else { claimed };
    Document::new(&found.bytes, claimed)
}
