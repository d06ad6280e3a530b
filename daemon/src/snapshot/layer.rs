//! Committed layers: records by chain id, drafts that become layers, leases that keep layers alive.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cleat_proto::digest::{ChainId, DiffId};
use serde::{Deserialize, Serialize};

use super::{Error, Snapshots, merged, trash::Trash};
use crate::metadata::{self, Database, Table, Transaction};

const LAYERS: Table<Layer> = Table::new("layers");

/// One committed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Names it together with all below it.
    pub chain_id: ChainId,
    /// Names its tar.
    pub diff_id: DiffId,
    /// The layer below.
    pub parent: Option<ChainId>,
    /// `ROOT/snapshots/<number>`.
    pub number: u64,
    /// What its files take, as Docker counts: each inode once, directories not.
    pub size: u64,
    /// The length of its tar.
    pub tar_size: u64,
}

impl Layer {
    pub(super) fn dir(&self, root: &Path) -> PathBuf {
        root.join(self.number.to_string())
    }
}

/// Reads all records. A damaged one is left out, and so is one whose directory is gone.
pub(super) fn load(
    root: &Path,
    database: &Database,
) -> Result<HashMap<ChainId, Arc<Layer>>, Error> {
    let mut layers = HashMap::new();
    for (key, record) in database.list(LAYERS)? {
        match record {
            Ok(layer) if layer.dir(root).join("fs").is_dir() => {
                layers.insert(layer.chain_id.clone(), Arc::new(layer));
            }
            Ok(layer) => {
                tracing::warn!(layer = %key, number = layer.number, "a layer's directory is gone");
            }
            Err(error) => tracing::warn!(layer = %key, %error, "a layer's record is damaged"),
        }
    }
    Ok(layers)
}

/// Moves numbered directories without a record to the trash and returns the first number that is free for good.
pub(super) fn sweep(
    root: &Path,
    layers: &HashMap<ChainId, Arc<Layer>>,
    trash: &Trash,
) -> Result<u64, Error> {
    let recorded: HashSet<u64> = layers.values().map(|layer| layer.number).collect();
    let mut next = recorded.iter().max().map_or(1, |number| number + 1);
    for entry in fs::read_dir(root).map_err(Error::io("list", root))? {
        let entry = entry.map_err(Error::io("list", root))?;
        let Ok(number) = entry.file_name().to_string_lossy().parse::<u64>() else { continue };
        if !recorded.contains(&number) {
            trash.take(&entry.path())?;
        }
        next = next.max(number + 1);
    }
    Ok(next)
}

impl Snapshots {
    /// Returns a layer.
    pub fn layer(&self, id: &ChainId) -> Option<Arc<Layer>> {
        let layers = self.0.layers.read().unwrap_or_else(PoisonError::into_inner);
        layers.get(id).cloned()
    }

    /// Returns `top` and the layers below it, the topmost first.
    ///
    /// # Errors
    /// [`Error::NoLayer`] for the first that is missing.
    pub fn chain(&self, top: &ChainId) -> Result<Vec<Arc<Layer>>, Error> {
        let layers = self.0.layers.read().unwrap_or_else(PoisonError::into_inner);
        let mut chain = Vec::new();
        let mut next = Some(top);
        while let Some(id) = next {
            let layer = layers.get(id).ok_or_else(|| Error::NoLayer(id.clone()))?;
            chain.push(Arc::clone(layer));
            next = layer.parent.as_ref();
        }
        Ok(chain)
    }

    /// Returns all layers, in no order.
    pub fn layers(&self) -> Vec<Arc<Layer>> {
        let layers = self.0.layers.read().unwrap_or_else(PoisonError::into_inner);
        layers.values().cloned().collect()
    }

    /// Returns a layer of this diff id, wherever in a stack it is: the same files.
    pub fn any_with(&self, diff_id: &DiffId) -> Option<Arc<Layer>> {
        let layers = self.0.layers.read().unwrap_or_else(PoisonError::into_inner);
        layers.values().find(|layer| layer.diff_id == *diff_id).cloned()
    }

    /// Returns the directory of a layer: `fs`, and what else belongs to it.
    pub fn layer_dir(&self, layer: &Layer) -> PathBuf {
        layer.dir(&self.0.root)
    }

    /// Begins a new layer. Until it is adopted it is nobody's, and it vanishes with the draft.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn draft(&self) -> Result<Draft, Error> {
        let number = self.next_number();
        let dir = self.0.root.join(number.to_string());
        self.0.nursery.make(number, &dir)?;
        let fs = dir.join("fs");
        super::make_private_dir(&fs)?;
        super::set_mode(&fs, 0o755)?;
        Ok(Draft { store: self.clone(), number, dir, kept: false })
    }

    /// Records a layer; its files are on disk by then.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn put(tx: &mut Transaction, layer: &Layer) -> Result<(), metadata::Error> {
        tx.put(LAYERS, layer.chain_id.as_str(), layer)
    }

    /// Removes a layer's record.
    pub fn forget(tx: &mut Transaction, id: &ChainId) {
        tx.delete(LAYERS, id.as_str());
    }

    /// Makes a recorded layer visible.
    pub fn adopt(&self, layer: Layer, draft: Option<Draft>) {
        if let Some(mut draft) = draft {
            draft.kept = true;
        }
        let mut layers = self.0.layers.write().unwrap_or_else(PoisonError::into_inner);
        layers.insert(layer.chain_id.clone(), Arc::new(layer));
    }

    /// Makes forgotten layers invisible and gives their space back.
    ///
    /// # Errors
    /// [`Error::Io`]; the start of the daemon tries again.
    pub fn discard(&self, ids: &[ChainId]) -> Result<(), Error> {
        for id in ids {
            let gone = {
                let mut layers = self.0.layers.write().unwrap_or_else(PoisonError::into_inner);
                let gone = layers.remove(id);
                // Layers of the same diff id may share their files.
                gone.filter(|gone| layers.values().all(|layer| layer.number != gone.number))
            };
            if let Some(layer) = gone {
                self.0.trash.take(&layer.dir(&self.0.root))?;
            }
        }
        Ok(())
    }

    /// Keeps `top` and all below it until the lease is dropped, whoever removes its image.
    pub fn lease(&self, top: &ChainId) -> Lease {
        *self.0.leases.lock().entry(top.clone()).or_insert(0) += 1;
        Lease { store: self.clone(), top: top.clone() }
    }

    /// Returns the tops that are leased.
    pub fn leased(&self) -> Vec<ChainId> {
        self.0.leases.lock().keys().cloned().collect()
    }
}

/// A layer being written. It holds no descriptor: an archive may have thousands.
pub struct Draft {
    store: Snapshots,
    number: u64,
    dir: PathBuf,
    kept: bool,
}

impl Draft {
    /// The number its record has to have.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Opens the directory that its files go to.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no descriptor to be had.
    pub fn open_root(&self) -> Result<OwnedFd, Error> {
        let fs = self.dir.join("fs");
        merged::open_dir(&fs).map_err(Error::io("open", &fs))
    }

    /// Returns what its files take now: each inode once, directories not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn usage(&self) -> Result<u64, Error> {
        merged::usage(&self.dir.join("fs")).map_err(Error::io("measure", &self.dir))
    }

    /// The directory of the layer, for what belongs to it beside its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves it where it is: the next start finds it recorded, or sweeps it.
    pub fn leave(mut self) {
        self.kept = true;
    }

    /// Brings all of it to the disk, and whatever else that filesystem has to write: one call for the layer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<(), Error> {
        let root = self.open_root()?;
        crate::disk::sync_filesystem(&root, &self.dir).map_err(Error::io("sync", &self.dir))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.store.0.trash.take(&self.dir)
        {
            tracing::warn!(%error, "cannot remove an unfinished layer");
        }
    }
}

/// How often each top is leased.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<ChainId, u32>>);

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChainId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a layer and all below it alive.
pub struct Lease {
    store: Snapshots,
    top: ChainId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.store.0.leases.lock();
        if let Some(count) = leases.get_mut(&self.top) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.top);
            }
        }
    }
}
