//! `cleat image check`: is every image what its digests say? Reads all bytes of all layers, so it takes as long as a save.
//!
//! An image whose record is there but cannot be shown (see [`Images::open`]) is looked at as well: that is the point.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use cleat_proto::{
    digest::{ChainId, DiffId, Digest, ImageId},
    kind::whole,
};
use sha2::{Digest as _, Sha256};

use super::{
    Error, ImageConfig, Images, config,
    store::{IMAGES, REFERENCES},
    unpack::RECIPE,
};
use crate::{archive::recipe, snapshot};

/// Something that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The image's record, or its configuration.
    Config {
        /// What is wrong.
        reason: String,
    },
    /// A layer has no record, or no directory.
    Missing {
        /// Names its tar.
        diff_id: DiffId,
        /// Names it with all below it.
        chain_id: ChainId,
    },
    /// A layer's files do not make its tar any more.
    Layer {
        /// Names its tar.
        diff_id: DiffId,
        /// Names it with all below it.
        chain_id: ChainId,
        /// What is wrong.
        reason: String,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config { reason } => write!(f, "configuration: {reason}"),
            Self::Missing { diff_id, .. } => write!(f, "layer {diff_id}: it is not there"),
            Self::Layer { diff_id, reason, .. } => write!(f, "layer {diff_id}: {reason}"),
        }
    }
}

/// One image, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub id: String,
    /// Its names, as users write them.
    pub references: Vec<String>,
    /// What is wrong with it; nothing, if it is whole.
    pub problems: Vec<Problem>,
}

impl Images {
    /// Verifies every image against its digests, and tells of each when it is done. Blocks.
    ///
    /// # Errors
    /// [`Error::Metadata`] if the records cannot be listed; what is wrong with an image is no error.
    pub fn check(&self, tell: &mut dyn FnMut(Checked)) -> Result<(), Error> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, id) in self.0.database.list(REFERENCES)? {
            let familiar = super::Reference::parse(&key).map_or(key, |name| name.familiar());
            if let Ok(id) = id {
                names.entry(id.to_string()).or_default().push(familiar);
            }
        }
        // Layers are shared; each is read once.
        let mut known: HashMap<ChainId, Option<Problem>> = HashMap::new();
        for (key, record) in self.0.database.list(IMAGES)? {
            let problems = match record {
                Ok(_) => self.check_image(&key, &mut known),
                Err(error) => vec![Problem::Config { reason: whole(&error) }],
            };
            let references = names.remove(&key).unwrap_or_default();
            tell(Checked { id: key, references, problems });
        }
        Ok(())
    }

    fn check_image(
        &self,
        key: &str,
        known: &mut HashMap<ChainId, Option<Problem>>,
    ) -> Vec<Problem> {
        let Ok(id) = key.parse::<ImageId>() else {
            return vec![Problem::Config { reason: "its record's key is no digest".into() }];
        };
        let bytes = self.0.content.read(&Digest::from(&id), config::LIMIT).map_err(Error::from);
        let config = match bytes.and_then(|bytes| ImageConfig::parse(&bytes)) {
            Ok(config) => config,
            Err(error) => return vec![Problem::Config { reason: whole(&error) }],
        };
        let layers = config.chain_ids().into_iter().zip(&config.rootfs.diff_ids);
        layers
            .filter_map(|(chain_id, diff_id)| {
                let check = || self.check_layer(&chain_id, diff_id);
                known.entry(chain_id.clone()).or_insert_with(check).clone()
            })
            .collect()
    }

    fn check_layer(&self, chain_id: &ChainId, diff_id: &DiffId) -> Option<Problem> {
        // Not to be removed meanwhile.
        let found = self.lease_layer(|layer| layer.chain_id == *chain_id);
        let (diff_id, chain_id) = (diff_id.clone(), chain_id.clone());
        let Some((layer, _lease)) = found else {
            return Some(Problem::Missing { diff_id, chain_id });
        };
        let reason = self.verify_layer(&layer, &diff_id).err()?;
        Some(Problem::Layer { diff_id, chain_id, reason })
    }

    /// Makes a layer's tar again and compares its digest.
    fn verify_layer(&self, layer: &snapshot::Layer, diff_id: &DiffId) -> Result<(), String> {
        let dir = self.snapshots().layer_dir(layer);
        let mut sum = Sum { hash: Sha256::new(), size: 0 };
        recipe::replay(&dir, "fs", RECIPE, &mut sum).map_err(|error| whole(&error))?;
        let found = DiffId::from_sum(sum.hash.finalize());
        if found != *diff_id || layer.diff_id != *diff_id {
            return Err(format!("its files make a tar of digest {found}"));
        }
        if sum.size != layer.tar_size {
            return Err(format!("its tar has {} bytes instead of {}", sum.size, layer.tar_size));
        }
        Ok(())
    }
}

struct Sum {
    hash: Sha256,
    size: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
