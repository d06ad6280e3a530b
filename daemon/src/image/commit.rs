//! `docker commit`: a container's own directory becomes one more layer, and its configuration the image's.

use std::{io::Write, path::Path, sync::Arc};

use cleat_proto::{
    digest::{ChainId, ImageId},
    docker::{container::Config, system::PRODUCT_VERSION},
    platform::Platform,
};

use super::{
    Error, History, Image, ImageConfig, Images, Reference,
    config::RootFs,
    import::rfc3339_now,
    store::NewImage,
    unpack::{Unpacked, unpack},
};
use crate::{
    archive::{self, chunks::pipe, pack::Packer, view::View},
    snapshot,
};

/// The diff id of a layer in which nothing is: 1024 bytes of zeros.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Which container, for the record.
    pub container: String,
    /// The layer that it stands on.
    pub top_layer: Option<ChainId>,
    /// The image that it was made of, if that is still there.
    pub parent: Option<ImageId>,
    /// Its configuration, with the changes.
    pub config: Config,
    /// What ran in it.
    pub command: String,
    /// The image's name.
    pub reference: Option<Reference>,
    /// Who.
    pub author: String,
    /// Why.
    pub comment: String,
}

impl Images {
    /// Applies Dockerfile instructions to a configuration.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn change(config: &mut Config, changes: &[String]) -> Result<(), Error> {
        super::changes::apply(config, changes)
    }

    /// Makes an image of a container's own directory. Blocks.
    ///
    /// # Errors
    /// [`Error`]; nothing is left then.
    pub fn commit_container(&self, upper: &Path, commit: Commit) -> Result<Arc<Image>, Error> {
        let parent = commit.parent.as_ref().and_then(|parent| self.get(parent));
        let (below, _lease) = match &commit.top_layer {
            Some(top) => {
                let found = self.lease_layer(|layer| layer.chain_id == *top);
                let lease = found.ok_or_else(|| snapshot::Error::NoLayer(top.clone()))?;
                (self.snapshots().chain(top)?, Some(lease))
            }
            None => (Vec::new(), None),
        };
        let layer = Some(pack(self, upper)?).filter(|layer| layer.diff_id.as_str() != EMPTY);
        // A removal takes the directory away before its files: what was read meanwhile may lack some.
        if !upper.exists() {
            return Err(Error::Conflict("the container was removed while it was committed".into()));
        }
        let created = Some(rfc3339_now());
        let mut diff_ids: Vec<_> = below.iter().rev().map(|layer| layer.diff_id.clone()).collect();
        diff_ids.extend(layer.as_ref().map(|layer| layer.diff_id.clone()));
        let mut history = match &parent {
            Some(parent) => parent.history.clone(),
            // The image is gone: of its layers we know no more than that they are there.
            None => vec![History::default(); below.len()],
        };
        history.push(History {
            created: created.clone(),
            created_by: commit.command,
            author: commit.author.clone(),
            comment: commit.comment.clone(),
            empty_layer: layer.is_none(),
        });
        let host = Platform::host().architecture;
        let config = ImageConfig {
            architecture: parent.as_ref().map_or(host, |parent| parent.architecture.clone()),
            variant: parent.as_ref().map(|parent| parent.variant.clone()).unwrap_or_default(),
            author: commit.author,
            comment: commit.comment,
            config: commit.config,
            container: commit.container,
            created,
            docker_version: PRODUCT_VERSION.to_owned(),
            history,
            os: "linux".into(),
            os_version: String::new(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
        };
        let bytes = config.to_bytes()?;
        let id: ImageId = self.content().put(&bytes)?.into();
        let mut layers = Vec::new();
        if let (Some(layer), Some(chain_id)) = (layer, config.chain_ids().pop()) {
            layer.sync()?;
            layers.push(layer.onto(commit.top_layer, chain_id));
        }
        self.commit(NewImage {
            id,
            bytes,
            part: None,
            config,
            layers,
            parent: parent.map(|parent| parent.id.clone()),
            tagged: commit.reference.is_some(),
            references: commit.reference.into_iter().collect(),
        })
    }
}

/// Packs a directory and unpacks it again into a layer, one thread feeding the other: so a commit is what a pull of it would be.
fn pack(images: &Images, upper: &Path) -> Result<Unpacked, Error> {
    let root = std::fs::File::open(upper).map_err(archive::Error::Input)?;
    let (mut writer, chunks) = pipe();
    std::thread::scope(|scope| {
        let work = || {
            let view = View::new(root.into());
            let mut packer = Packer::of_layer(&mut writer);
            let node = view.find(b"/", true).map_err(archive::Error::Input);
            let packed = node.and_then(|node| packer.contents(&view, &node));
            let packed = packed.and_then(|()| packer.finish().map(drop));
            match packed.and_then(|()| writer.flush().map_err(archive::Error::Output)) {
                Ok(()) => drop(writer),
                Err(error) => writer.fail(std::io::Error::other(error)),
            }
        };
        let thread = std::thread::Builder::new().name("pack".into()).spawn_scoped(scope, work);
        thread.map_err(archive::Error::Input)?;
        unpack(images.snapshots(), chunks)
    })
}
