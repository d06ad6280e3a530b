//! `docker load`: images out of an archive, either docker's own (`manifest.json`) or an OCI layout (`index.json`).
//!
//! The archive is read once, front to back, and never spooled: what looks like a layer is unpacked as it comes by, what
//! looks like JSON is kept (bounded), and when the archive is over its manifest says which of it was what. Nothing is ever
//! written under a name that the archive chose; what no image wanted vanishes with its draft.

mod layout;
mod parts;

use std::{collections::HashSet, sync::Arc};

use cleat_proto::digest::{ChainId, DiffId, Digest, ImageId};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    Error, Image, ImageConfig, Images, Reference,
    bound::decompressed_within,
    index::Part,
    store::{NewImage, NewLayer},
    unpack::{self, Unpacked},
};
use crate::{
    archive::chunks::{ChunkReader, Chunks},
    registry::manifest::Platform,
    snapshot::{self, Lease},
};

use parts::Parts;

/// The most images that one archive may have.
const IMAGES_MAX: usize = 1000;

/// What a load has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// A layer was unpacked: the length of its tar.
    Layer(DiffId, u64),
    /// An image got a name; another had it.
    Name(ImageId, Reference, Option<ImageId>),
    /// An image that has no name.
    Image(ImageId),
}

/// One image, as an archive's manifest has it.
struct Wanted {
    config: Vec<u8>,
    /// Their names in the archive, from the bottom up.
    layers: Vec<String>,
    references: Vec<Reference>,
    parent: Option<ImageId>,
    /// The index that its names stand for.
    part: Option<Part>,
    /// Its names have been told of, with another image of the same index.
    told: bool,
}

/// `manifest.json`, one image. moby, docker-archive format; capitals as Go has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
    parent: String,
}

impl Images {
    /// Loads all images of an archive, compressed or not, or those of one platform, and says what it does. Blocks.
    ///
    /// # Errors
    /// [`Error`]; images that came before the one at fault are loaded.
    pub fn load(
        &self,
        archive: impl Chunks + 'static,
        platform: Option<&Platform>,
        tell: &mut dyn FnMut(Loaded),
    ) -> Result<Vec<Arc<Image>>, Error> {
        let mut parts =
            Parts::read(self, ChunkReader::new(decompressed_within(self.snapshots(), archive)?))?;
        // Of several platforms `manifest.json` has only one.
        let is_layout = !parts.has("manifest.json") || layout::has_index(&parts)?;
        let wanted = if !is_layout {
            docker_archive(&parts)?
        } else if parts.has("index.json") {
            layout::images(&parts, platform)?
        } else if parts.has("repositories") {
            return Err(invalid(
                "the archive is of a format older than Docker 1.10, which is not supported",
            ));
        } else {
            return Err(invalid("the archive has neither manifest.json nor index.json"));
        };
        let mut synced = false;
        let mut loaded = Vec::new();
        for wanted in wanted {
            // As dockerd has it: what is for other machines is passed over.
            if let Some(platform) = platform
                && !is_for(&ImageConfig::parse(&wanted.config)?, platform)
            {
                continue;
            }
            loaded.push(self.load_one(&mut parts, wanted, &mut synced, tell)?);
        }
        Ok(loaded)
    }

    fn load_one(
        &self,
        parts: &mut Parts,
        wanted: Wanted,
        synced: &mut bool,
        tell: &mut dyn FnMut(Loaded),
    ) -> Result<Arc<Image>, Error> {
        let config = ImageConfig::parse(&wanted.config)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != wanted.layers.len() {
            return Err(invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                wanted.layers.len(),
                diff_ids.len()
            )));
        }
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(invalid(format!("cannot load {} image on linux", config.os)));
        }
        let mut stack = Stack::default();
        for (index, (name, diff_id)) in wanted.layers.iter().zip(diff_ids).enumerate() {
            parts.check_layer(index, name, diff_id)?;
            let chain_id = config.chain_ids().swap_remove(index);
            self.put_on(&mut stack, parts, name, diff_id, chain_id, tell)?;
        }
        let id: ImageId = self.content().put(&wanted.config)?.into();
        if !*synced && let Some(draft) = stack.layers.iter().find_map(|new| new.draft.as_ref()) {
            draft.sync()?;
            // One call brings all of the archive's layers to the disk, save those that are copied later.
            *synced = !stack.copied;
        }
        let references = wanted.references.clone();
        let before: Vec<Option<ImageId>> = references.iter().map(|name| self.owner(name)).collect();
        let image = self.commit(NewImage {
            id: id.clone(),
            bytes: wanted.config,
            config,
            layers: stack.layers,
            parent: wanted.parent.filter(|parent| self.get(parent).is_some()),
            references: wanted.references,
            tagged: false,
            part: wanted.part,
        })?;
        if wanted.told {
            return Ok(image);
        }
        if references.is_empty() {
            tell(Loaded::Image(id));
        } else {
            for (reference, before) in references.into_iter().zip(before) {
                let before = before.filter(|before| *before != id);
                tell(Loaded::Name(id.clone(), reference, before));
            }
        }
        Ok(image)
    }

    /// Puts one more layer on a stack: one that is there, the archive's, or one with the same files elsewhere.
    fn put_on(
        &self,
        stack: &mut Stack,
        parts: &mut Parts,
        name: &str,
        diff_id: &DiffId,
        chain_id: ChainId,
        tell: &mut dyn FnMut(Loaded),
    ) -> Result<(), Error> {
        let parent = stack.top.replace(chain_id.clone());
        if let Some((layer, lease)) = self.lease_layer(|layer| layer.chain_id == chain_id) {
            stack.numbers.push(layer.number);
            stack.leases.push(lease);
            return Ok(());
        }
        let elsewhere = self.lease_layer(|layer| layer.diff_id == *diff_id);
        let is_free = |layer: &snapshot::Layer| !stack.numbers.contains(&layer.number);
        if !elsewhere.as_ref().is_some_and(|(layer, _)| is_free(layer))
            && let Some(unpacked) = parts.take_layer(name)
        {
            tell(Loaded::Layer(diff_id.clone(), unpacked.tar_size));
            let new = unpacked.onto(parent, chain_id);
            parts.remember(diff_id, &new.layer);
            stack.numbers.push(new.layer.number);
            stack.layers.push(new);
            return Ok(());
        }
        let twin = match elsewhere {
            Some((layer, lease)) => {
                stack.leases.push(lease);
                snapshot::Layer::clone(&layer)
            }
            None => parts
                .remembered(diff_id)
                .cloned()
                .ok_or_else(|| invalid(format!("layer {name} is not in the archive")))?,
        };
        let new = if stack.numbers.contains(&twin.number) {
            // overlayfs takes no directory twice.
            stack.copied = true;
            let copy = unpack::copy(self.snapshots(), &twin)?;
            copy.sync()?;
            copy.onto(parent, chain_id)
        } else {
            NewLayer { layer: snapshot::Layer { chain_id, parent, ..twin }, draft: None }
        };
        stack.numbers.push(new.layer.number);
        stack.layers.push(new);
        Ok(())
    }
}

/// An image's layers so far.
#[derive(Default)]
struct Stack {
    layers: Vec<NewLayer>,
    top: Option<ChainId>,
    /// Which directories it stands on.
    numbers: Vec<u64>,
    leases: Vec<Lease>,
    copied: bool,
}

fn is_for(config: &ImageConfig, platform: &Platform) -> bool {
    let os = if config.os.is_empty() { "linux" } else { &config.os };
    os == platform.os
        && config.architecture == platform.architecture
        && (platform.variant.is_empty() || config.variant == platform.variant)
}

fn docker_archive(parts: &Parts) -> Result<Vec<Wanted>, Error> {
    let bytes = parts.json("manifest.json")?;
    let items: Vec<ManifestItem> = parse(bytes, "manifest.json")?;
    if items.len() > IMAGES_MAX {
        return Err(invalid("the archive has too many images"));
    }
    if items.is_empty() {
        return Err(invalid("the archive's manifest.json names no image"));
    }
    let mut ids: HashSet<ImageId> = HashSet::new();
    let mut wanted = Vec::with_capacity(items.len());
    for item in items {
        let config = parts.json(&item.config)?.to_vec();
        parts.check_blob(&item.config)?;
        let mut references = Vec::new();
        for tag in item.repo_tags.unwrap_or_default() {
            let reference = Reference::parse(&tag)?;
            if reference.tag.is_none() || reference.digest.is_some() {
                return Err(invalid(format!("invalid tag {tag:?}")));
            }
            references.push(reference);
        }
        let parent = item.parent.parse::<ImageId>().ok();
        let id = ImageId::from(Digest::from_sum(Sha256::digest(&config)));
        let parent = parent.filter(|parent| ids.contains(parent));
        ids.insert(id);
        let layers = item.layers.unwrap_or_default();
        wanted.push(Wanted { config, layers, references, parent, part: None, told: false });
    }
    Ok(wanted)
}

/// Reads one of an archive's JSON files.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("invalid {name}: {error}")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}

/// A layer of an archive, unpacked as it came by.
struct ArchiveLayer {
    unpacked: Option<Unpacked>,
    diff_id: DiffId,
    /// Of its bytes in the archive.
    digest: Digest,
}
