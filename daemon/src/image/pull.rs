//! `docker pull`: a reference → a manifest → a configuration and layers, unpacked while they come.
//!
//! ```text
//!  find ─▶ choose (platform) ─▶ configuration ─▶ plan: which layers are there ─▶ claim ─▶ fetch ∥ fetch … ─▶ sync ─▶ commit
//!                                                                    layer.rs: network → partial file, sha256 → unpack
//! ```
//! Nothing of an image is visible before the commit. What has come of a layer stays as a partial until then: a pull that
//! is cancelled, fails or dies with the daemon goes on where it stopped. A layer is fetched by one pull at a time; others
//! wait for it.

mod layer;
mod platforms;
mod transfers;

use std::{collections::BTreeSet, sync::Arc};

use cleat_proto::{
    digest::{ChainId, DiffId, Digest, ImageId},
    kind::Kind,
};

use super::{
    Error, Image, ImageConfig, Images, Reference,
    blobs::Known,
    bound::check_room,
    index::Part,
    store::{NewImage, NewLayer},
    unpack::{self, Unpacked},
};
use crate::{
    registry::{
        self, Credentials, Registries, Session,
        manifest::{self, Descriptor, Manifest, Platform},
    },
    snapshot::{self, Lease},
};

use platforms::{Chosen, choose};
use transfers::{Claim, Slot};
pub use transfers::{DOWNLOADS, Transfers, UPLOADS};

/// The configurations of images; what else registries hold is no image.
const CONFIG_TYPES: [&str; 4] =
    [manifest::CONFIG, manifest::OCI_CONFIG, "application/octet-stream", ""];

/// What to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// With a tag or a digest.
    pub reference: Reference,
    /// For which machine; `None` is this one.
    pub platform: Option<Platform>,
    /// All that an index has, instead of one.
    pub all_platforms: bool,
    /// Who asks.
    pub credentials: Credentials,
}

/// What a pull is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullStep {
    /// The manifest is there.
    Begin,
    /// Something about a layer of that digest.
    Layer(Digest, LayerStep),
    /// All is there: the manifest's digest.
    Digest(Digest),
}

/// What a layer is going through. Source of the words: `docker pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LayerStep {
    Exists,
    Pulling,
    Waiting,
    Downloading { current: u64, total: u64 },
    Verifying,
    Downloaded,
    Extracting { current: u64, total: u64 },
    Complete,
}

/// Hears of each step, from any thread.
pub type Tell = Arc<dyn Fn(PullStep) + Send + Sync>;

/// What became of a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Arc<Image>,
    /// The name did not lead to it before.
    pub newer: bool,
}

/// Where one layer of an image comes from.
enum Origin {
    /// It is there, on these layers.
    There(Arc<snapshot::Layer>, Lease),
    /// Its files are there, on other layers.
    Elsewhere(Arc<snapshot::Layer>, Lease),
    /// The same files are further down in the same image.
    Again(usize),
    /// From the registry.
    Fetch,
}

/// What is known of an image before its layers are there.
struct Plan {
    config: ImageConfig,
    layers: Vec<Descriptor>,
    chain_ids: Vec<ChainId>,
    names: Vec<Reference>,
    part: Option<Part>,
}

/// One image to be brought.
struct Wanted {
    manifest: Manifest,
    /// The index that its names stand for.
    part: Option<Part>,
    names: Vec<Reference>,
}

impl Images {
    /// Pulls one image and gives it its name. Dropped, it stops, and what has come of the layers stays.
    ///
    /// # Errors
    /// What the registry says, or what is wrong with what it sends.
    pub async fn pull(
        &self,
        registries: &Registries,
        pull: Pull,
        tell: Tell,
    ) -> Result<Pulled, Error> {
        let reference = &pull.reference;
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        };
        let found = registries.find(
            reference.name.domain(),
            reference.name.path(),
            pull.credentials.clone(),
            &name,
        );
        let (session, found) = found.await.map_err(|error| refused(error, reference))?;
        let wanted = pull.platform.clone().unwrap_or_else(Platform::host);
        // An index that has nothing for us is told of after the first line, as dockerd does.
        registry::manifest::parse(&found.bytes, &found.media_type)?;
        tell(PullStep::Begin);
        let by_digest =
            Reference { tag: None, digest: Some(found.digest.clone()), ..reference.clone() };
        let mut names = vec![by_digest];
        names.extend((reference.digest.is_none()).then(|| reference.clone()));
        let (image, newer) = if pull.all_platforms {
            self.pull_all(&session, &found, &pull, names, &tell).await?
        } else {
            let chosen = choose(&session, &found, &wanted).await?;
            self.pull_one(&session, chosen, reference, names, &tell).await?
        };
        tell(PullStep::Digest(found.digest));
        Ok(Pulled { image, newer })
    }

    /// Brings one image, of an index or alone, and returns whether anything is new about it.
    async fn pull_one(
        &self,
        session: &Session,
        chosen: Chosen,
        reference: &Reference,
        names: Vec<Reference>,
        tell: &Tell,
    ) -> Result<(Arc<Image>, bool), Error> {
        let Chosen { manifest, part } = chosen;
        check_types(&manifest)?;
        let id = ImageId::from(manifest.config.digest.clone());
        let moved = self.owner(reference).as_ref() != Some(&id);
        if let Some(image) = self.get(&id) {
            let (images, names, part) = (self.clone(), names.clone(), part.clone());
            let missing = self.unnamed(&id, names.clone());
            let named = blocking(move || match part {
                None => Ok((images.name_all(&image, missing)?, moved)),
                Some(part) => {
                    let is_new = images.name_in(&image.id, names, part)?;
                    Ok((image, is_new))
                }
            });
            match named.await {
                // It has just been removed.
                Err(Error::NotFound(_)) => {}
                other => return other,
            }
        }
        let plan = Wanted { manifest, part, names };
        Ok((self.fetch(session, plan, reference, tell).await?, true))
    }

    fn unnamed(&self, id: &ImageId, names: Vec<Reference>) -> Vec<Reference> {
        // One that stands for an index so far is another name from now on.
        let is_owned =
            |name: &Reference| self.owner(name).as_ref() == Some(id) && !self.is_indexed(name);
        names.into_iter().filter(|name| !is_owned(name)).collect()
    }

    fn name_all(&self, image: &Image, names: Vec<Reference>) -> Result<Arc<Image>, Error> {
        if names.is_empty() {
            self.touch(image.id.as_str());
        }
        for name in names {
            self.tag(&image.id, name)?;
        }
        self.get(&image.id).ok_or_else(|| Error::NotFound(image.id.to_string()))
    }

    async fn fetch(
        &self,
        session: &Session,
        wanted: Wanted,
        reference: &Reference,
        tell: &Tell,
    ) -> Result<Arc<Image>, Error> {
        let Wanted { manifest, part, names } = wanted;
        let bytes = session.config(&manifest.config).await?;
        let config = ImageConfig::parse(&bytes)?;
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(Error::Invalid(format!(
                "cannot download image with operating system {:?} when requesting \"linux\"",
                config.os
            )));
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Invalid(format!(
                "layers from manifest don't match image configuration: {} and {}",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let chain_ids = config.chain_ids();
        let plan = Plan { config, layers: manifest.layers, chain_ids, names, part };
        let (origins, claim) = self.claim(&plan, tell).await;
        let coming = plan.layers.iter().zip(&origins).filter_map(|(layer, origin)| {
            let had = self.content().partial_length(&layer.digest);
            matches!(origin, Origin::Fetch).then(|| layer.size.saturating_sub(had))
        });
        check_room(self.snapshots(), coming.fold(0, u64::saturating_add))?;
        let claim = Arc::new(claim);
        let fetches =
            plan.layers.iter().zip(&origins).enumerate().filter_map(|(at, (layer, origin))| {
                let diff_id = plan.config.rootfs.diff_ids[at].clone();
                matches!(origin, Origin::Fetch)
                    .then(|| self.fetch_layer(session, layer, diff_id, Arc::clone(&claim), tell))
            });
        let fetched = futures_util::future::try_join_all(fetches).await?;
        let known = plan.layers.iter().zip(&plan.config.rootfs.diff_ids);
        let known: Vec<(DiffId, Known)> = known
            .map(|(layer, diff_id)| (diff_id.clone(), Known::new(layer, &reference.name)))
            .collect();
        let (images, tell) = (self.clone(), Arc::clone(tell));
        blocking(move || {
            let image = images.assemble_pulled(plan, origins, fetched, &bytes, &tell)?;
            images.remember_blobs(known);
            images.forget_partials(&claim);
            Ok(image)
        })
        .await
    }

    /// Changes how many layers come and go at once: `max-concurrent-downloads` and `-uploads`.
    pub fn limit_transfers(&self, downloads: usize, uploads: usize) {
        self.0.transfers.limit(downloads, uploads);
    }

    /// Finds out what is there, and waits until nobody else fetches what is not.
    async fn claim(&self, plan: &Plan, tell: &Tell) -> (Vec<Origin>, Claim) {
        let missing = |origins: &[Origin]| -> BTreeSet<Digest> {
            let layers = plan.layers.iter().zip(origins);
            let fetched = layers.filter(|(_, origin)| matches!(origin, Origin::Fetch));
            fetched.map(|(layer, _)| layer.digest.clone()).collect()
        };
        let mut origins = self.origins(plan);
        for (layer, origin) in plan.layers.iter().zip(&origins) {
            let step = match origin {
                Origin::Fetch => LayerStep::Pulling,
                _ => LayerStep::Exists,
            };
            tell(PullStep::Layer(layer.digest.clone(), step));
        }
        let wanted = missing(&origins);
        let transfers = &self.0.transfers;
        let claim = match transfers.try_claim(&wanted) {
            Some(claim) => claim,
            None => {
                for digest in &wanted {
                    tell(PullStep::Layer(digest.clone(), LayerStep::Waiting));
                }
                transfers.claim(&wanted).await
            }
        };
        // Others may have brought them in meanwhile.
        origins = self.origins(plan);
        for digest in wanted.difference(&missing(&origins)) {
            tell(PullStep::Layer(digest.clone(), LayerStep::Complete));
        }
        (origins, claim)
    }

    fn origins(&self, plan: &Plan) -> Vec<Origin> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut origins: Vec<Origin> = Vec::with_capacity(plan.layers.len());
        let diff_ids = &plan.config.rootfs.diff_ids;
        for (at, (chain_id, diff_id)) in plan.chain_ids.iter().zip(diff_ids).enumerate() {
            if let Some((layer, lease)) = self.lease_layer(|layer| layer.chain_id == *chain_id) {
                numbers.push(layer.number);
                origins.push(Origin::There(layer, lease));
                continue;
            }
            if let Some(below) = diff_ids[..at].iter().position(|other| other == diff_id) {
                origins.push(Origin::Again(below));
                continue;
            }
            let free = |layer: &snapshot::Layer| {
                layer.diff_id == *diff_id && !numbers.contains(&layer.number)
            };
            match self.lease_layer(free) {
                Some((layer, lease)) => {
                    numbers.push(layer.number);
                    origins.push(Origin::Elsewhere(layer, lease));
                }
                None => origins.push(Origin::Fetch),
            }
        }
        origins
    }

    /// Puts the layers on each other, brings them to the disk and records the image. Blocks.
    fn assemble_pulled(
        &self,
        plan: Plan,
        origins: Vec<Origin>,
        fetched: Vec<Unpacked>,
        config: &[u8],
        tell: &Tell,
    ) -> Result<Arc<Image>, Error> {
        let (mut fetched, mut leases) = (fetched.into_iter(), Vec::new());
        let mut stack: Vec<snapshot::Layer> = Vec::new();
        let mut layers: Vec<NewLayer> = Vec::new();
        for (at, origin) in origins.into_iter().enumerate() {
            let parent = stack.last().map(|layer| layer.chain_id.clone());
            let chain_id = plan.chain_ids[at].clone();
            let new = match origin {
                Origin::There(layer, lease) => {
                    leases.push(lease);
                    stack.push(snapshot::Layer::clone(&layer));
                    continue;
                }
                Origin::Elsewhere(layer, lease) => {
                    leases.push(lease);
                    let layer = snapshot::Layer { chain_id, parent, ..(*layer).clone() };
                    NewLayer { layer, draft: None }
                }
                // overlayfs takes no directory twice.
                Origin::Again(below) => {
                    unpack::copy(self.snapshots(), &stack[below])?.onto(parent, chain_id)
                }
                Origin::Fetch => {
                    let unpacked =
                        fetched.next().ok_or(Error::ConfigShape("a layer was not fetched"))?;
                    unpacked.onto(parent, chain_id)
                }
            };
            stack.push(new.layer.clone());
            layers.push(new);
        }
        let id: ImageId = self.content().put(config)?.into();
        // One call brings all of the layers to the disk.
        if let Some(draft) = layers.iter().find_map(|new| new.draft.as_ref()) {
            draft.sync()?;
        }
        let drafted: Vec<usize> = layers
            .iter()
            .filter(|new| new.draft.is_some())
            .filter_map(|new| plan.chain_ids.iter().position(|id| *id == new.layer.chain_id))
            .collect();
        let image = self.commit(NewImage {
            id,
            bytes: config.to_vec(),
            config: plan.config,
            layers,
            parent: None,
            references: plan.names,
            part: plan.part,
            tagged: true,
        })?;
        for at in drafted {
            tell(PullStep::Layer(plan.layers[at].digest.clone(), LayerStep::Complete));
        }
        Ok(image)
    }

    fn forget_partials(&self, claim: &Claim) {
        for digest in claim.digests() {
            match self.content().partial(digest) {
                Ok(partial) => partial.remove(),
                Err(error) => {
                    let error = cleat_proto::kind::whole(&error);
                    tracing::warn!(error, "a partial blob stays");
                }
            }
        }
    }
}

/// Runs what blocks to its end, even if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::Lost(error.to_string()))?
}

/// dockerd's words for what a registry does not have or give. Source: its `distribution` package, `translatePullError`.
pub fn refused(error: registry::Error, reference: &Reference) -> Error {
    let registry::Error::Refused { code, .. } = &error else { return error.into() };
    let name = reference.name.familiar();
    let words = match code.as_str() {
        "DENIED" => {
            format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login'"
            )
        }
        "MANIFEST_UNKNOWN" => format!("manifest for {} not found", reference.familiar()),
        "NAME_UNKNOWN" => format!("repository {name} not found"),
        _ => return error.into(),
    };
    Error::Remote { kind: Kind::NotFound, message: words, source: Box::new(error) }
}

fn check_types(manifest: &Manifest) -> Result<(), Error> {
    let config = manifest.config.media_type.as_str();
    if !CONFIG_TYPES.contains(&config) {
        return Err(Error::Invalid(format!(
            "Encountered remote {config:?}({}) when fetching",
            if config.contains("plugin") { "plugin" } else { "unknown" }
        )));
    }
    if manifest.layers.len() > super::config::LAYERS_MAX {
        return Err(Error::Invalid(format!(
            "the manifest has {} layers, more than the {} that an image may have",
            manifest.layers.len(),
            super::config::LAYERS_MAX
        )));
    }
    let bad = manifest.layers.iter().find(|layer| !layer::is_layer(&layer.media_type));
    match bad {
        Some(layer) => {
            Err(Error::Invalid(format!("unsupported media type {} of a layer", layer.media_type)))
        }
        None => Ok(()),
    }
}
