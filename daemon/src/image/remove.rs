//! `docker rmi`: names first, then the image with the layers that nothing else needs, then parents that nobody wants.

use std::sync::Arc;

use cleat_proto::digest::{ChainId, Digest, ImageId};

use super::{
    Error, Image, Images, Reference, Use,
    reference::ImageRef,
    store::{Doomed, Turn},
};
use crate::registry::manifest::Platform;

/// One thing that a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name of an image.
    Name(ImageId, Reference),
    /// The image itself.
    Image(ImageId),
    /// A layer.
    Layer(ChainId),
    /// One platform of an index: its manifest.
    Manifest(Digest),
}

/// What to leave alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Even if a stopped container uses it, or it has several names.
    pub force: bool,
    /// Keep parents that have no name.
    pub keep_parents: bool,
}

/// Why an image cannot go.
struct Conflict {
    /// Not even with force.
    hard: bool,
    /// A container uses it.
    used: bool,
    why: String,
}

/// Which reasons count.
#[derive(Clone, Copy)]
struct Consider {
    names: bool,
    stopped: bool,
}

/// moby's words, where it has the image store of containerd.
const WANTS_FORCE: &str = "Content will be removed from all images referencing this variant. Use --force to force delete.";

impl Images {
    /// Removes a name, and the image if that was its last; or the image that an id names. Blocks.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] in Docker's words.
    pub fn remove(
        &self,
        text: &str,
        options: RemoveOptions,
        uses: &dyn Fn() -> Vec<Use>,
    ) -> Result<Vec<Removed>, Error> {
        let turn = self.turn();
        let image = self.resolve(text)?;
        let others = self.others(&image);
        let is_theirs =
            |user: &Use| others.iter().chain([&image.id]).any(|id| user.image == id.as_str());
        let mut removed = Vec::new();
        let single = is_single(&image.references);
        let by_name = match ImageRef::parse(text)? {
            ImageRef::Named(reference) => Some(reference.or_latest())
                .filter(|reference| self.owner(reference).as_ref() == Some(&image.id)),
            ImageRef::Id(_) => None,
        };
        if by_name.is_none() && image.is_only_held() && !options.force {
            return Err(Error::Invalid(WANTS_FORCE.into()));
        }
        if let Some(reference) = &by_name {
            if !options.force
                && single
                && let Some(user) = uses().into_iter().find(is_theirs)
            {
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference {text:?} (must force) - container {} is using its referenced image {}",
                    short(&user.container),
                    image.id.short()
                )));
            }
            self.untag_one(&turn, &image, reference, &mut removed)?;
            let left = self.get(&image.id).map_or(0, |image| image.references.len());
            if left > 0 {
                return Ok(removed);
            }
        } else if single {
            let consider = Consider { names: false, stopped: !options.force };
            self.conflict(&image, &others, consider, &uses())
                .map_err(|conflict| conflict.error(&image.id))?;
        } else if !options.force {
            let consider = Consider { names: true, stopped: true };
            self.conflict(&image, &others, consider, &uses())
                .map_err(|conflict| conflict.error(&image.id))?;
        }
        let quiet = by_name.is_some();
        self.remove_image(&turn, (&image.id, &others), options, quiet, uses, &mut removed)?;
        Ok(removed)
    }

    /// The images of other platforms that go with an image, since they have no names but its own.
    pub(super) fn others(&self, image: &Arc<Image>) -> Vec<ImageId> {
        let is_its = |name: &Reference| image.references.contains(name);
        let all = self.family(image).images.into_iter().skip(1);
        let only = all.filter(|other| other.references.is_empty() && other.held.iter().all(is_its));
        only.map(|other| other.id.clone()).collect()
    }

    /// Removes one platform of what a name stands for. Blocks.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoPlatform`], [`Error::Conflict`] in Docker's words; [`Error::Invalid`] without force, since
    /// others may have the same image of that platform.
    pub fn remove_platform(
        &self,
        text: &str,
        platform: &Platform,
        options: RemoveOptions,
        uses: &dyn Fn() -> Vec<Use>,
    ) -> Result<Vec<Removed>, Error> {
        let turn = self.turn();
        let image = self.resolve_for(text, Some(platform))?;
        let Some(index) = self.index_of(text) else {
            drop(turn);
            return self.remove(text, options, uses);
        };
        if !options.force {
            return Err(Error::Invalid(WANTS_FORCE.into()));
        }
        let members = self.members(&index);
        let is_it =
            |other: &Option<Arc<Image>>| other.as_ref().is_some_and(|other| other.id == image.id);
        let manifests: Vec<Digest> = members
            .iter()
            .filter(|member| is_it(&member.image))
            .map(|member| member.entry.digest.clone())
            .collect();
        let best = index.matching(&Platform::host());
        let best = best
            .iter()
            .filter_map(|best| members.iter().find(|member| member.entry.digest == best.digest));
        let heir = best.chain(&members).find_map(|member| {
            let other = member.image.as_ref()?;
            (other.id != image.id).then(|| other.id.clone())
        });
        if heir.is_none() {
            // The last one: what stays would be a name of nothing.
            drop(turn);
            return self.remove(text, options, uses);
        }
        // Names that lead to it by themselves would come to mean another machine's image.
        let is_others = |name: &&Reference| {
            let own = self.index_of(&name.to_string());
            name.tag.is_some() && own.is_none_or(|own| own.digest != index.digest)
        };
        if let Some(other) = image.references.iter().find(is_others) {
            return Err(Error::Conflict(format!(
                "conflict: unable to delete {} (cannot be forced) - it is {} as well",
                image.id.short(),
                other.familiar()
            )));
        }
        let consider = Consider { names: false, stopped: false };
        self.conflict(&image, &[], consider, &uses())
            .map_err(|conflict| conflict.error(&image.id))?;
        let layers = self.delete(&turn, Doomed { images: vec![Arc::clone(&image)], heir }, uses)?;
        let mut removed: Vec<Removed> = manifests.into_iter().map(Removed::Manifest).collect();
        removed.push(Removed::Image(image.id.clone()));
        removed.extend(layers.into_iter().map(Removed::Layer));
        Ok(removed)
    }

    fn untag_one(
        &self,
        turn: &Turn<'_>,
        image: &Image,
        reference: &Reference,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let mut gone = vec![reference.clone()];
        let rest =
            |other: &&Reference| other.name == reference.name && other.key() != reference.key();
        let others: Vec<&Reference> = image.references.iter().filter(rest).collect();
        // Digests of a repository are kept for its tags; without one they are in the way.
        if reference.digest.is_none() && others.iter().all(|other| other.tag.is_none()) {
            gone.extend(others.into_iter().cloned());
        }
        self.untag(turn, &gone)?;
        removed
            .extend(gone.into_iter().map(|reference| Removed::Name(image.id.clone(), reference)));
        Ok(())
    }

    /// An image goes, with those of other platforms that it takes along. `quiet`: a conflict is no error, since what was asked for (a name, a child) is done.
    pub(super) fn remove_image(
        &self,
        turn: &Turn<'_>,
        going: (&ImageId, &[ImageId]),
        options: RemoveOptions,
        quiet: bool,
        uses: &dyn Fn() -> Vec<Use>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let (id, others) = going;
        let Some(image) = self.get(id) else { return Ok(()) };
        let consider = Consider { names: false, stopped: !options.force };
        if let Err(conflict) = self.conflict(&image, others, consider, &uses()) {
            let is_dangling = image.references.is_empty() && !self.has_children(id);
            if quiet && (!is_dangling || conflict.used) {
                return Ok(());
            }
            return Err(conflict.error(id));
        }
        let names = image.references.iter().cloned();
        removed.extend(names.map(|reference| Removed::Name(id.clone(), reference)));
        let users = uses();
        let is_its = |name: &Reference| image.references.contains(name);
        let others = others.iter().filter_map(|id| self.get(id)).filter(|other| {
            other.references.is_empty()
                && other.held.iter().all(is_its)
                && !self.has_children(&other.id)
                && users.iter().all(|user| user.image != other.id.as_str())
        });
        let images: Vec<Arc<Image>> = [Arc::clone(&image)].into_iter().chain(others).collect();
        let gone: Vec<Removed> =
            images.iter().map(|image| Removed::Image(image.id.clone())).collect();
        let layers = self.delete(turn, Doomed { images, heir: None }, uses)?;
        removed.extend(gone);
        removed.extend(layers.into_iter().map(Removed::Layer));
        match &image.parent {
            Some(parent) if !options.keep_parents => {
                let has_name = self.get(parent).is_none_or(|parent| !parent.references.is_empty());
                if has_name {
                    return Ok(());
                }
                let options = RemoveOptions { force: false, ..options };
                self.remove_image(turn, (parent, &[]), options, true, uses, removed)
            }
            _ => Ok(()),
        }
    }

    /// `others` go with the image.
    fn conflict(
        &self,
        image: &Image,
        others: &[ImageId],
        consider: Consider,
        uses: &[Use],
    ) -> Result<(), Conflict> {
        if self.has_children(&image.id) {
            let why = "image has dependent child images".to_owned();
            return Err(Conflict { hard: true, used: false, why });
        }
        let is_theirs =
            |user: &&Use| others.iter().chain([&image.id]).any(|id| user.image == id.as_str());
        let mut users = uses.iter().filter(is_theirs);
        if let Some(user) = users.clone().find(|user| user.running) {
            let why =
                format!("image is being used by running container {}", short(&user.container));
            return Err(Conflict { hard: true, used: true, why });
        }
        if consider.names && !image.references.is_empty() {
            let why = "image is referenced in multiple repositories".to_owned();
            return Err(Conflict { hard: false, used: false, why });
        }
        if consider.stopped
            && let Some(user) = users.next()
        {
            let why =
                format!("image is being used by stopped container {}", short(&user.container));
            return Err(Conflict { hard: false, used: true, why });
        }
        Ok(())
    }

    /// Returns whether another image was committed on this one.
    pub fn has_children(&self, id: &ImageId) -> bool {
        self.read().images.values().any(|image| image.parent.as_ref() == Some(id))
    }

    /// Removes every image that `wanted` picks and that no container uses. Blocks.
    ///
    /// # Errors
    /// Those of the store; conflicts are passed over.
    pub fn prune(
        &self,
        wanted: &dyn Fn(&Image) -> bool,
        uses: &dyn Fn() -> Vec<Use>,
    ) -> Result<(Vec<Removed>, u64), Error> {
        let mut removed = Vec::new();
        let before: u64 = self.snapshots().layers().iter().map(|layer| layer.size).sum();
        let mut candidates: Vec<Arc<Image>> = self
            .list()
            .into_iter()
            .filter(|image| wanted(image) && !image.is_only_held())
            .collect();
        candidates.sort_by(|a, b| b.created.cmp(&a.created));
        for image in candidates {
            // By now it may have a name, or a user.
            let turn = self.turn();
            if !self.get(&image.id).is_some_and(|image| wanted(&image)) {
                continue;
            }
            let (others, users) = (self.others(&image), uses());
            let is_used = |id: &ImageId| users.iter().any(|user| user.image == id.as_str());
            if others.iter().chain([&image.id]).any(is_used) || self.has_children(&image.id) {
                continue;
            }
            let options = RemoveOptions::default();
            self.remove_image(&turn, (&image.id, &others), options, true, uses, &mut removed)?;
        }
        // What a save or a push still held when its image went, and what an import that failed has left.
        self.sweep(uses)?;
        self.sweep_blobs()?;
        let busy = self.0.transfers.busy();
        let keep = |hex: &str| busy.iter().any(|digest| digest.hex() == hex);
        let partials = self.content().remove_partials(&keep)?;
        let after: u64 = self.snapshots().layers().iter().map(|layer| layer.size).sum();
        Ok((removed, before.saturating_sub(after) + partials))
    }
}

impl Conflict {
    fn error(self, id: &ImageId) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::Conflict(format!(
            "conflict: unable to delete {} ({force}) - {}",
            id.short(),
            self.why
        ))
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// At most one tag, and digests of that tag's repository alone.
fn is_single(references: &[Reference]) -> bool {
    let mut tags = references.iter().filter(|reference| reference.digest.is_none());
    let first = tags.next().or(references.first());
    tags.next().is_none()
        && references.iter().all(|other| first.is_none_or(|first| first.name == other.name))
}
