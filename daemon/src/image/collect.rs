//! Images that go by themselves, as a [`Policy`] says, and what it goes by: when each image was last used.
//!
//! An image is used when it comes (pull, load, import, commit), when it gets a name, when a container is made of it or mounts
//! it, and when such a container is removed: until then it is in use anyway, and stays.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cleat_proto::{digest::ChainId, kind::whole};

use super::{Error, Image, Images, RemoveOptions, Removed, Use, store::IMAGES};
use crate::{
    gc::{Policy, Reason, Unused},
    metadata::{self, Table, Transaction},
};

/// Nanoseconds since the epoch, by the image's id.
pub(super) const USED: Table<i64> = Table::new("image-used");

/// An image that went.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// What it was.
    pub image: Arc<Image>,
    /// What went with it, in order.
    pub removed: Vec<Removed>,
    /// Why.
    pub reason: Reason,
}

impl Images {
    /// Notes that an image is used now, in the commit of whoever uses it.
    ///
    /// # Errors
    /// [`metadata::Error::Damaged`], which a number never is.
    pub fn note_use(tx: &mut Transaction, id: &str) -> Result<(), metadata::Error> {
        tx.put(USED, id, &crate::event::now_nanos())
    }

    pub(super) fn forget_use(tx: &mut Transaction, id: &str) {
        tx.delete(USED, id);
    }

    /// Notes that an image is used now, where nothing else is to be noted. Only a hint for [`Self::collect`]. Blocks.
    pub(super) fn touch(&self, id: &str) {
        let id = id.to_owned();
        if let Err(error) = self.0.database.write_blocking(move |tx| Self::note_use(tx, &id)) {
            tracing::warn!(%error, "the use of an image is not noted");
        }
    }

    /// Forgets the uses of images that are gone. At start.
    pub(super) fn sweep_uses(&self, images: &HashSet<String>) -> Result<(), metadata::Error> {
        let uses = self.0.database.list(USED)?.into_iter().map(|(id, _)| id);
        let gone: Vec<String> = uses.filter(|id| !images.contains(id)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.0.database.write_blocking(move |tx| {
            gone.iter().for_each(|id| Self::forget_use(tx, id));
            Ok::<_, metadata::Error>(())
        })
    }

    /// Removes what a policy wants gone, the one unused for the longest first, and tells of each. What cannot be removed stays, with
    /// a line in the log. Blocks.
    ///
    /// # Errors
    /// [`Error::Metadata`] if it cannot be known what was used when.
    pub fn collect(
        &self,
        policy: Policy,
        now_nanos: i64,
        uses: &dyn Fn() -> Vec<Use>,
        tell: &mut dyn FnMut(Collected),
    ) -> Result<(), Error> {
        if policy == Policy::default() {
            return Ok(());
        }
        let mut tried: HashSet<String> = HashSet::new();
        loop {
            let taken = policy.disk_percent.and_then(|_| self.snapshots().taken_percent());
            // Between two removals others get their turn.
            let turn = self.turn();
            let mut unused = self.unused(&uses())?;
            unused.retain(|image| !tried.contains(&image.id));
            let Some((next, reason)) = policy.next(unused, now_nanos, taken) else {
                return Ok(());
            };
            tried.insert(next.id.clone());
            let Some(image) = next.id.parse().ok().and_then(|id| self.get(&id)) else { continue };
            let mut removed = Vec::new();
            let options = RemoveOptions { force: false, keep_parents: true };
            let others = self.others(&image);
            match self.remove_image(&turn, (&image.id, &others), options, true, uses, &mut removed)
            {
                Ok(()) if removed.is_empty() => {}
                Ok(()) => tell(Collected { image, removed, reason }),
                Err(error) => {
                    tracing::warn!(image = %image.id, error = whole(&error), "an unused image stays");
                }
            }
        }
    }

    /// Returns the images that nobody uses, and when each was last used.
    fn unused(&self, uses: &[Use]) -> Result<Vec<Unused>, Error> {
        let used = self.last_uses()?;
        let leased: HashSet<ChainId> = self.snapshots().leased().into_iter().collect();
        let is_unused = |image: &Image| {
            !uses.iter().any(|user| user.image == image.id.as_str())
                && !image.layers.iter().any(|layer| leased.contains(&layer.chain_id))
                && !self.has_children(&image.id)
        };
        // Other platforms of the same thing go with it, or not at all.
        let families = self.families().into_iter();
        let families = families.filter(|family| family.images.iter().all(|image| is_unused(image)));
        let unused = families.filter_map(|family| {
            let last_uses = family.images.iter().map(|image| used.get(image.id.as_str()).copied());
            let last_used_nanos = last_uses.collect::<Option<Vec<i64>>>()?.into_iter().max()?;
            Some(Unused { id: family.image.id.to_string(), last_used_nanos })
        });
        Ok(unused.collect())
    }

    /// Returns when images were last used. Of one that came before that was noted, it is now.
    fn last_uses(&self) -> Result<HashMap<String, i64>, Error> {
        let read = || -> Result<HashMap<String, i64>, Error> {
            let all = self.0.database.list(USED)?.into_iter();
            Ok(all.filter_map(|(id, at)| Some((id, at.ok()?))).collect())
        };
        let known = read()?;
        let images = self.0.database.list(IMAGES)?.into_iter().map(|(id, _)| id);
        let unknown: Vec<String> = images.filter(|id| !known.contains_key(id)).collect();
        if unknown.is_empty() {
            return Ok(known);
        }
        self.0
            .database
            .write_blocking(move |tx| unknown.iter().try_for_each(|id| Self::note_use(tx, id)))?;
        read()
    }
}
