//! `cleat image check --repair`: a damaged image goes out of sight, its damaged layers go, and what is whole of it stays until it
//! has been brought once more, or given up.
//!
//! ```text
//!  listed ── set_aside ─▶ aside (a record that cannot be shown, as after a start) ── pull, load ─▶ listed
//!                           │  └─ revive: another image has brought its layers ─▶ listed
//!                           └─ give_up ─▶ (gone)
//! ```

use std::sync::Arc;

use cleat_proto::digest::{ChainId, Digest, ImageId};

use super::{
    Checked, Error, Image, ImageConfig, Images, Problem, Use, config,
    store::{IMAGES, REFERENCES},
};
use crate::{
    metadata::{self, Transaction},
    registry::manifest::Platform,
    snapshot::Snapshots,
};

impl Images {
    /// Takes a damaged image out of sight, with every other that has one of its damaged layers, and removes those. Blocks.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a running container stands on one of the layers; the store's.
    pub fn set_aside(&self, found: &Checked, uses: &dyn Fn() -> Vec<Use>) -> Result<(), Error> {
        let _turn = self.turn();
        let broken: Vec<ChainId> = found.problems.iter().filter_map(broken_layer).collect();
        for user in uses().iter().filter(|user| user.running) {
            let Some(top) = &user.top_layer else { continue };
            let chain = self.snapshots().chain(top).unwrap_or_default();
            if let Some(layer) = chain.iter().find(|layer| broken.contains(&layer.chain_id)) {
                return Err(Error::Conflict(format!(
                    "the running container {} stands on layer {}: stop it first",
                    user.container.get(..12).unwrap_or(&user.container),
                    layer.diff_id
                )));
            }
        }
        let gone = broken.clone();
        self.0.database.write_blocking(move |tx: &mut Transaction| {
            gone.iter().for_each(|layer| Snapshots::forget(tx, layer));
            Ok::<_, metadata::Error>(())
        })?;
        let mut catalog = self.write();
        let has_one =
            |image: &Image| image.layers.iter().any(|layer| broken.contains(&layer.chain_id));
        let all: Vec<Arc<Image>> = catalog.images.values().cloned().collect();
        for image in all.iter().filter(|image| image.id.as_str() == found.id || has_one(image)) {
            image.references.iter().for_each(|reference| catalog.unrefer(reference));
            catalog.images.remove(&image.id);
            let layers = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
            catalog.damaged.insert(image.id.to_string(), layers);
        }
        drop(catalog);
        Ok(self.snapshots().discard(&broken)?)
    }

    /// Lists an image again whose parts are all there now.
    ///
    /// # Errors
    /// What is still missing of it.
    pub fn revive(&self, key: &str) -> Result<Arc<Image>, Error> {
        let _turn = self.turn();
        let record = self.0.database.get(IMAGES, key)?;
        let image = self.assemble_record(key, record.unwrap_or_default())?;
        let mut catalog = self.write();
        let id = image.id.clone();
        catalog.images.insert(id.clone(), Arc::new(image));
        self.restore_names(&mut catalog, Some(&id))?;
        Ok(Arc::clone(&catalog.images[&id]))
    }

    /// Removes the record and the names of an image that is out of sight, and what only it needed. Blocks.
    ///
    /// # Errors
    /// Those of the store.
    pub fn give_up(&self, key: &str, uses: &dyn Fn() -> Vec<Use>) -> Result<(), Error> {
        {
            let _turn = self.turn();
            let is_its = |id: &Result<ImageId, _>| id.as_ref().is_ok_and(|id| id.as_str() == key);
            let names = self.0.database.list(REFERENCES)?.into_iter();
            let names: Vec<String> =
                names.filter(|(_, id)| is_its(id)).map(|(name, _)| name).collect();
            let record = key.to_owned();
            let ids: Vec<ImageId> = record.parse().into_iter().collect();
            let change = self.read().change(&[], None, &names, &ids)?;
            let change = self.0.database.write_blocking(move |tx: &mut Transaction| {
                tx.delete(IMAGES, &record);
                Self::forget_use(tx, &record);
                names.iter().for_each(|name| tx.delete(REFERENCES, name));
                change.write(tx)?;
                Ok::<_, metadata::Error>(change)
            })?;
            let mut catalog = self.write();
            catalog.damaged.remove(key);
            let dead = change.apply(&mut catalog);
            drop(catalog);
            dead.iter().try_for_each(|digest| self.content().remove(digest))?;
            if let Ok(id) = key.parse::<ImageId>() {
                self.content().remove(&Digest::from(&id))?;
            }
        }
        self.sweep(uses)
    }

    /// Returns which machine an image is for, if its configuration can be read.
    pub fn platform_of(&self, key: &str) -> Option<Platform> {
        let id: ImageId = key.parse().ok()?;
        let bytes = self.content().read(&Digest::from(&id), config::LIMIT).ok()?;
        let config = ImageConfig::parse(&bytes).ok()?;
        let (os, architecture, variant) = (config.os, config.architecture, config.variant);
        Some(Platform { os, architecture, variant, ..Platform::default() })
    }
}

fn broken_layer(problem: &Problem) -> Option<ChainId> {
    match problem {
        Problem::Layer { chain_id, .. } => Some(chain_id.clone()),
        Problem::Missing { .. } | Problem::Config { .. } => None,
    }
}
