//! `docker import`: one tar becomes an image of one layer.

use std::sync::Arc;

use cleat_proto::{
    docker::{container::Config, system::PRODUCT_VERSION},
    platform::Platform,
};

use super::{
    Error, History, Image, ImageConfig, Images, Reference, bound::decompressed_within, changes,
    config::RootFs, store::NewImage, unpack::unpack,
};
use crate::archive::chunks::Chunks;

/// What an import is told.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// The image's name.
    pub reference: Option<Reference>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// The image's comment.
    pub message: String,
    /// What the image is for.
    pub platform: Platform,
}

impl Images {
    /// Checks the changes of an import before its tar is read.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check_changes(changes: &[String]) -> Result<Config, Error> {
        let mut config = Config::default();
        changes::apply(&mut config, changes)?;
        Ok(config)
    }

    /// Makes an image of a tar, compressed or not. Blocks.
    ///
    /// # Errors
    /// [`Error`]; nothing is left then.
    pub fn import(&self, tar: impl Chunks + 'static, import: Import) -> Result<Arc<Image>, Error> {
        let settings = Self::check_changes(&import.changes)?;
        let layer = unpack(self.snapshots(), decompressed_within(self.snapshots(), tar)?)?;
        let created = Some(rfc3339_now());
        let config = ImageConfig {
            architecture: import.platform.architecture,
            variant: import.platform.variant,
            os: import.platform.os,
            docker_version: PRODUCT_VERSION.to_owned(),
            comment: import.message.clone(),
            config: settings,
            created: created.clone(),
            history: vec![History { created, comment: import.message, ..History::default() }],
            rootfs: RootFs { diff_ids: vec![layer.diff_id.clone()], ..RootFs::default() },
            ..ImageConfig::default()
        };
        let bytes = config.to_bytes()?;
        let id = self.content().put(&bytes)?.into();
        layer.sync()?;
        let top = config.chain_ids().pop().ok_or(Error::ConfigShape("it has no layers"))?;
        let layers = vec![layer.onto(None, top)];
        self.commit(NewImage {
            id,
            bytes,
            part: None,
            config,
            layers,
            parent: None,
            tagged: import.reference.is_some(),
            references: import.reference.into_iter().collect(),
        })
    }
}

/// Returns the time as images have it.
pub(super) fn rfc3339_now() -> String {
    jiff::Timestamp::now().to_string()
}
