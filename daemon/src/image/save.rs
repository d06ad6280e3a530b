//! `docker save`: images as one tar that is both docker's own archive (`manifest.json`) and an OCI layout (`index.json`).
//!
//! A layer's tar is made again from its files (see [`crate::archive::recipe`]) while it is sent, and hashed in passing: if
//! what came out is not what the image names, the stream ends broken, not whole.

mod v1;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
};

use cleat_proto::{digest::Digest, docker::image};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    Error, Image, Images, Index, Reference, config,
    index::{self, BLOB_MAX},
    reference::ImageRef,
    unpack::RECIPE,
};
use crate::{
    archive::{self, chunks::BodyWriter, pack::Packer, recipe},
    registry::manifest::Platform,
    snapshot::{self, Lease},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MODE: u32 = 0o644;

/// Images to be saved, held until they are.
pub struct Selection {
    images: Vec<Selected>,
    _leases: Vec<Lease>,
}

/// One image to be saved.
struct Selected {
    image: Arc<Image>,
    references: Vec<Reference>,
    /// What has it and others, where all of them are wanted.
    index: Option<Arc<Index>>,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// `index.json`, or an index among the blobs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument<T> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<T>,
}

/// One image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<String, Descriptor>,
}

impl Selection {
    /// Returns which images they are.
    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.iter().map(|selected| &selected.image)
    }
}

impl Images {
    /// Finds the images that names mean: a bare repository is all of its tags, an id has no name in the archive. Without a
    /// platform a name means all platforms that are here.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`], [`Error::NoTarget`].
    pub fn select(
        &self,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<Selection, Error> {
        let mut images: Vec<Selected> = Vec::new();
        let mut add = |image: Arc<Image>, reference: Option<Reference>| {
            let known = |known: &Selected| known.image.id == image.id;
            let at = images.iter().position(known).unwrap_or_else(|| {
                let (index, references) = (None, Vec::new());
                images.push(Selected { image, references, index });
                images.len() - 1
            });
            images[at].references.extend(reference);
        };
        for name in names {
            match ImageRef::parse(name)? {
                ImageRef::Named(reference)
                    if reference.tag.is_none() && reference.digest.is_none() =>
                {
                    let all = self.tags_of(&reference);
                    if all.is_empty() {
                        add(self.resolve(name)?, None);
                    }
                    all.into_iter().for_each(|(image, reference)| add(image, Some(reference)));
                }
                ImageRef::Named(reference) => {
                    let image = self.resolve(name)?;
                    let known = image.references.iter().any(|other| other.key() == reference.key());
                    add(
                        image,
                        Some(reference).filter(|reference| known && reference.digest.is_none()),
                    );
                }
                ImageRef::Id(_) => add(self.resolve(name)?, None),
            }
        }
        let mut leases = Vec::new();
        for selected in &mut images {
            match platform {
                Some(platform) => self.narrow(selected, platform)?,
                None => selected.index = self.several(&selected.image),
            }
            leases.extend(self.lease(&selected.image)?);
            let index = selected.index.iter();
            let members = index.flat_map(|index| self.members(index));
            let others = members.filter_map(|member| member.image);
            for image in others {
                leases.extend(self.lease(&image)?);
            }
        }
        Ok(Selection { images, _leases: leases })
    }

    /// Takes the wanted platform instead of the one that a name leads to.
    fn narrow(&self, selected: &mut Selected, platform: &Platform) -> Result<(), Error> {
        let found = self.resolve_for(selected.image.id.as_str(), Some(platform));
        selected.image = found.map_err(|_| Error::NoTarget(platform.to_string()))?;
        Ok(())
    }

    /// Returns an image's index if more of it is here than the image.
    fn several(&self, image: &Arc<Image>) -> Option<Arc<Index>> {
        let index = self.family(image).index.filter(|_| !image.references.is_empty())?;
        let here = self.members(&index).into_iter().filter(|member| member.available);
        (here.count() > 1).then_some(index)
    }

    fn tags_of(&self, repository: &Reference) -> Vec<(Arc<Image>, Reference)> {
        let mut all: Vec<(Arc<Image>, Reference)> = Vec::new();
        for image in self.list() {
            let mine = |reference: &&Reference| {
                reference.name == repository.name && reference.digest.is_none()
            };
            let found: Vec<Reference> = image.references.iter().filter(mine).cloned().collect();
            all.extend(found.into_iter().map(|reference| (Arc::clone(&image), reference)));
        }
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }

    /// Writes the archive. Blocks.
    ///
    /// # Errors
    /// [`Error`]; the archive is broken then, and its reader is told.
    pub fn save(&self, selection: &Selection, output: BodyWriter) -> Result<(), Error> {
        let mut packer = Packer::new(output);
        let saved = self.save_to(selection, &mut packer);
        let (output, error) = match saved {
            Ok(()) => match packer.finish_or_give_back() {
                Ok(_) => return Ok(()),
                Err((output, error)) => (output, Error::from(error)),
            },
            Err(error) => (packer.into_output(), error),
        };
        output.fail(io::Error::other(error.to_string()));
        Err(error)
    }

    fn save_to(&self, selection: &Selection, packer: &mut Packer<BodyWriter>) -> Result<(), Error> {
        packer.directory(b"blobs", 0)?;
        packer.directory(b"blobs/sha256", 0)?;
        let mut written: HashSet<String> = HashSet::new();
        let (mut manifests, mut items) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for Selected { image, references, index } in &selection.images {
            let written_image = self.image(image, &mut written, packer)?;
            items.push(item(image, references, &written_image.layers));
            for reference in references {
                let top = image.layers.last().map(|layer| layer.diff_id.hex().to_owned());
                let tag = reference.tag.clone().unwrap_or_default();
                let tags = repositories.entry(reference.name.familiar()).or_default();
                tags.insert(tag, top.unwrap_or_default());
            }
            let (media_type, digest, size) = match index {
                None => (MANIFEST, written_image.digest, written_image.size),
                Some(index) => {
                    let (digest, size) = self.index(index, &mut written, packer)?;
                    (INDEX, digest, size)
                }
            };
            manifests.extend(named(media_type, &digest, size, references));
        }
        let index = IndexDocument { schema_version: 2, media_type: INDEX, manifests };
        packer.bytes(b"index.json", MODE, 0, &json(&index)?)?;
        packer.bytes(b"manifest.json", MODE, 0, &line(&items)?)?;
        packer.bytes(b"oci-layout", MODE, 0, b"{\"imageLayoutVersion\": \"1.0.0\"}")?;
        if !repositories.is_empty() {
            packer.bytes(b"repositories", MODE, 0, &line(&repositories)?)?;
        }
        Ok(())
    }

    /// Writes all that is here of an index, and an index of that: layers in an archive are not compressed, so that every manifest
    /// has another name in it.
    fn index(
        &self,
        index: &Index,
        written: &mut HashSet<String>,
        packer: &mut Packer<BodyWriter>,
    ) -> Result<(String, u64), Error> {
        let members = self.members(index);
        let mut renamed: BTreeMap<String, Digest> = BTreeMap::new();
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for member in &members {
            let Some(image) = &member.image else { continue };
            let there = self.image(image, written, packer)?;
            let digest = there.digest.parse().map_err(|_| Error::ConfigShape("no digest"))?;
            sizes.insert(member.entry.digest.to_string(), there.size);
            renamed.insert(member.entry.digest.to_string(), digest);
        }
        let mut manifests: Vec<image::Descriptor> = Vec::new();
        for member in members.into_iter().filter(|member| member.available) {
            let mut entry = member.entry;
            if let Some((digest, size)) =
                renamed.get(entry.digest.as_str()).zip(sizes.get(entry.digest.as_str()))
            {
                entry.media_type = MANIFEST.to_owned();
                entry.digest = digest.clone();
                entry.size = *size;
            } else {
                let Some(record) = self.manifest_record(&entry.digest)? else { continue };
                for (digest, _) in &record.blobs {
                    if written.insert(digest.to_string()) {
                        let bytes = self.content().read(digest, BLOB_MAX)?;
                        packer.bytes(&blob(digest.as_str()), MODE, 0, &bytes)?;
                    }
                }
                if written.insert(entry.digest.to_string()) {
                    let bytes = record.document.text.as_bytes();
                    packer.bytes(&blob(entry.digest.as_str()), MODE, 0, bytes)?;
                }
                index::attest(&mut entry, &renamed);
            }
            manifests.push(entry);
        }
        let document = IndexDocument { schema_version: 2, media_type: INDEX, manifests };
        let bytes = json(&document)?;
        let digest = Digest::from_sum(Sha256::digest(&bytes)).to_string();
        if written.insert(digest.clone()) {
            packer.bytes(&blob(&digest), MODE, 0, &bytes)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Writes one image with its manifest, as far as that is not there yet.
    fn image(
        &self,
        image: &Image,
        written: &mut HashSet<String>,
        packer: &mut Packer<BodyWriter>,
    ) -> Result<Written, Error> {
        let layers = match image.top_layer() {
            Some(top) => self.snapshots().chain(top)?,
            None => Vec::new(),
        };
        let mtime = mtime(image);
        for layer in layers.iter().rev() {
            if written.insert(layer.diff_id.to_string()) {
                self.layer(layer, mtime, packer)?;
            }
        }
        let bytes = self.content().read(&Digest::from(&image.id), config::LIMIT)?;
        let config = Descriptor {
            media_type: CONFIG,
            digest: image.id.to_string(),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        if written.insert(image.id.to_string()) {
            packer.bytes(&blob(&config.digest), MODE, mtime, &bytes)?;
        }
        let chain_ids = layers.iter().rev().map(|layer| layer.chain_id.as_str());
        let described = v1::descriptions(&bytes, chain_ids)
            .map_err(|error| archive::Error::Output(io::Error::other(error)))?;
        for text in described {
            let digest = Digest::from_sum(Sha256::digest(&text)).to_string();
            if written.insert(digest.clone()) {
                packer.bytes(&blob(&digest), MODE, mtime, text.as_bytes())?;
            }
        }
        let layers: Vec<Descriptor> = layers.iter().rev().map(|layer| descriptor(layer)).collect();
        let manifest =
            Manifest { schema_version: 2, media_type: MANIFEST, config, layers: layers.clone() };
        let bytes = json(&manifest)?;
        let digest = Digest::from_sum(Sha256::digest(&bytes)).to_string();
        if written.insert(digest.clone()) {
            packer.bytes(&blob(&digest), MODE, 0, &bytes)?;
        }
        Ok(Written { digest, size: bytes.len() as u64, layers })
    }

    /// Makes a layer's tar again and checks that it is the one that the image names.
    fn layer(
        &self,
        layer: &snapshot::Layer,
        mtime: i64,
        packer: &mut Packer<BodyWriter>,
    ) -> Result<(), Error> {
        let dir = self.snapshots().layer_dir(layer);
        packer.begin_file(&blob(layer.diff_id.as_str()), MODE, mtime, layer.tar_size)?;
        let output = packer.output();
        output.start_sum().map_err(archive::Error::Output)?;
        recipe::replay(&dir, "fs", RECIPE, output)?;
        let sum = output.finish_sum().map_err(archive::Error::Output)?;
        if sum.digest.as_str() != layer.diff_id.as_str() || sum.size != layer.tar_size {
            return Err(Error::Damaged(layer.diff_id.clone()));
        }
        Ok(packer.pad(layer.tar_size)?)
    }
}

/// An image's manifest in an archive.
struct Written {
    digest: String,
    size: u64,
    layers: Vec<Descriptor>,
}

fn item(image: &Image, references: &[Reference], layers: &[Descriptor]) -> ManifestItem {
    let path = |digest: &str| String::from_utf8_lossy(&blob(digest)).into_owned();
    let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
    ManifestItem {
        config: path(image.id.as_str()),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: layers.iter().map(|layer| path(&layer.digest)).collect(),
        parent: None,
        layer_sources: layers.iter().map(|layer| (layer.digest.clone(), layer.clone())).collect(),
    }
}

/// One entry of the index for each name, or one without.
fn named(
    media_type: &'static str,
    digest: &str,
    size: u64,
    references: &[Reference],
) -> Vec<Descriptor> {
    let entry =
        |annotations| Descriptor { media_type, digest: digest.to_owned(), size, annotations };
    if references.is_empty() {
        return vec![entry(BTreeMap::new())];
    }
    let annotations = |reference: &Reference| {
        BTreeMap::from([
            ("io.containerd.image.name", reference.to_string()),
            ("org.opencontainers.image.ref.name", reference.tag.clone().unwrap_or_default()),
        ])
    };
    references.iter().map(|reference| entry(annotations(reference))).collect()
}

fn descriptor(layer: &snapshot::Layer) -> Descriptor {
    Descriptor {
        media_type: LAYER,
        digest: layer.diff_id.to_string(),
        size: layer.tar_size,
        annotations: BTreeMap::new(),
    }
}

fn blob(digest: &str) -> Vec<u8> {
    format!("blobs/{}", digest.replacen(':', "/", 1)).into_bytes()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| archive::Error::Output(io::Error::other(error)).into())
}

/// JSON with Go's newline at the end.
fn line(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = json(value)?;
    text.push(b'\n');
    Ok(text)
}

fn mtime(image: &Image) -> i64 {
    let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.map_or(0, |time| time.as_second())
}
