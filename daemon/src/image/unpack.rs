//! One layer's tar into a snapshot: hashed by one thread while another makes the files, its recipe written along.

use std::io::Write;

use cleat_proto::digest::{ChainId, DiffId};

use super::{Error, store::NewLayer};
use crate::{
    archive::{
        self,
        apply::{Flavor, apply, reader},
        chunks::{ChunkReader, Chunks, Hashed, pipe},
        recipe,
        view::View,
    },
    disk,
    snapshot::{self, Draft, Snapshots},
};

/// The file beside a layer's files that says how to make its tar of them.
pub(super) const RECIPE: &str = "recipe";

/// A layer as files, not yet synced, and not yet on top of another.
pub(super) struct Unpacked {
    draft: Draft,
    pub(super) diff_id: DiffId,
    size: u64,
    pub(super) tar_size: u64,
}

/// Unpacks a layer's tar, already decompressed. On failure nothing is left.
pub(super) fn unpack(snapshots: &Snapshots, tar: impl Chunks) -> Result<Unpacked, Error> {
    let draft = snapshots.draft()?;
    let input = |error| archive::Error::Input(error);
    let path = draft.dir().join(RECIPE);
    let recipe = disk::File::create_new(&path).and_then(recipe::Writer::new);
    let recipe = recipe.map_err(archive::Error::Output)?;
    let hashed = Hashed::new(tar).map_err(input)?;
    let mut tar = reader(ChunkReader::new(hashed), Some(recipe));
    let root = draft.open_root()?;
    let applied = apply(&mut tar, &View::new(root), b"", Flavor::Layer { aside: draft.dir() })?;
    let (rest, recipe) = tar.finish()?;
    if let Some(recipe) = recipe {
        recipe.finish().map_err(archive::Error::Output)?;
    }
    let sum = rest.into_source().finish().map_err(archive::Error::from_input)?;
    let size = if applied.replaced { draft.usage()? } else { applied.size };
    Ok(Unpacked { draft, diff_id: DiffId::from(sum.digest), size, tar_size: sum.size })
}

/// Unpacks a layer once more, into a directory of its own: a stack may have the same layer twice, an overlay may not.
pub(super) fn copy(snapshots: &Snapshots, layer: &snapshot::Layer) -> Result<Unpacked, Error> {
    let dir = snapshots.layer_dir(layer);
    let (mut writer, chunks) = pipe();
    let writing = std::thread::Builder::new().name("copy".into()).spawn(move || {
        let written = recipe::replay(&dir, "fs", RECIPE, &mut writer);
        match written.and_then(|()| writer.flush().map_err(archive::Error::Output)) {
            Ok(()) => {}
            Err(error) => writer.fail(std::io::Error::other(error)),
        }
    });
    writing.map_err(archive::Error::Input)?;
    unpack(snapshots, chunks)
}

impl Unpacked {
    /// Brings the layer to the disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        Ok(self.draft.sync()?)
    }

    /// Puts the layer on top of another.
    pub(super) fn onto(self, parent: Option<ChainId>, chain_id: ChainId) -> NewLayer {
        let layer = snapshot::Layer {
            chain_id,
            diff_id: self.diff_id,
            parent,
            number: self.draft.number(),
            size: self.size,
            tar_size: self.tar_size,
        };
        NewLayer { layer, draft: Some(self.draft) }
    }
}
