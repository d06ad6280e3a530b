//! Which blobs of registries a layer is known to be: what a push need not compress and send again.

use cleat_proto::digest::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::{Images, reference::Name};
use crate::{
    metadata::{self, Table, Transaction},
    registry::manifest::Descriptor,
};

const BLOBS: Table<Vec<Known>> = Table::new("layer-blobs");
/// The most that are kept for one layer, the newest first.
const KEPT: usize = 16;

/// A layer as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Of the compressed bytes.
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
    /// The registry.
    pub(super) domain: String,
    /// The repository in it.
    pub(super) path: String,
}

impl Known {
    pub(super) fn new(layer: &Descriptor, name: &Name) -> Self {
        Self {
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: layer.media_type.clone(),
            domain: name.domain().to_owned(),
            path: name.path().to_owned(),
        }
    }

    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            size: self.size,
            digest: self.digest.clone(),
            urls: None,
            platform: None,
        }
    }
}

impl Images {
    /// Notes what layers are. Only a hint: if it is lost, a push takes longer. Blocks.
    pub(super) fn remember_blobs(&self, known: Vec<(DiffId, Known)>) {
        let changed: Vec<(DiffId, Vec<Known>)> = known
            .into_iter()
            .filter_map(|(diff_id, new)| {
                let mut all = self.known_blobs(&diff_id);
                if all.first() == Some(&new) {
                    return None;
                }
                all.retain(|other| *other != new);
                all.insert(0, new);
                all.truncate(KEPT);
                Some((diff_id, all))
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        let written = self.0.database.write_blocking(move |tx| {
            changed.iter().try_for_each(|(id, all)| tx.put(BLOBS, id.as_str(), all))
        });
        if let Err(error) = written {
            tracing::warn!(%error, "what a layer is in its registry is not noted");
        }
    }

    /// Returns what a layer is known to be, the newest first.
    pub(super) fn known_blobs(&self, diff_id: &DiffId) -> Vec<Known> {
        self.0.database.get(BLOBS, diff_id.as_str()).ok().flatten().unwrap_or_default()
    }

    /// Forgets what is known of layers that are gone. At start.
    pub(super) fn sweep_known_blobs(&self) -> Result<(), metadata::Error> {
        let is_gone = |key: &str| {
            let diff_id = key.parse::<DiffId>();
            !diff_id.is_ok_and(|diff_id| self.snapshots().any_with(&diff_id).is_some())
        };
        let all = self.0.database.list(BLOBS)?;
        let gone: Vec<String> =
            all.into_iter().map(|(key, _)| key).filter(|key| is_gone(key)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.0.database.write_blocking(move |tx: &mut Transaction| {
            gone.iter().for_each(|key| tx.delete(BLOBS, key));
            Ok::<_, metadata::Error>(())
        })
    }
}
