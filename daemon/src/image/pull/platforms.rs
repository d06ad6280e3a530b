//! Which images of an index are pulled: that of one platform, or all.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cleat_proto::{
    digest::{Digest, ImageId},
    docker::image::Descriptor,
};
use sha2::{Digest as _, Sha256};

use super::{Error, Image, Images, Pull, Reference, Tell, blocking};
use crate::{
    image::index::{self, BLOB_MAX, Document, Index, ManifestRecord, Part},
    registry::{
        self, Found, Session,
        manifest::{self, Manifest, Platform},
    },
};

/// An image to be pulled, and the index that it is a part of.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    pub(super) part: Option<Part>,
}

/// Goes from what a reference names to the manifest of one platform.
pub(super) async fn choose(
    session: &Session,
    found: &Found,
    wanted: &Platform,
) -> Result<Chosen, Error> {
    let entries = match manifest::parse(&found.bytes, &found.media_type)? {
        manifest::Document::Manifest(manifest) => return Ok(Chosen { manifest, part: None }),
        manifest::Document::Index(entries) => entries,
    };
    let best = manifest::matching(&entries, wanted).into_iter().next();
    let best = best.ok_or_else(|| registry::Error::Platform(wanted.to_string()))?;
    let next = session.manifest(best.digest.as_str(), Some(best.size)).await?;
    let document = index::fetched(&next, &best.media_type)?;
    match manifest::parse(&next.bytes, &document.media_type)? {
        manifest::Document::Manifest(manifest) => {
            let id = ImageId::from(manifest.config.digest.clone());
            let part = Part::new(index::fetched(found, "")?, document, id);
            Ok(Chosen { manifest, part: Some(part) })
        }
        // An index in an index is only the way to an image.
        manifest::Document::Index(_) => {
            Ok(Chosen { manifest: session.choose(&next, wanted).await?, part: None })
        }
    }
}

impl Images {
    /// Brings all that an index has: its images for Linux, and what is no image. Returns the one that the names lead to.
    pub(super) async fn pull_all(
        &self,
        session: &Session,
        found: &Found,
        pull: &Pull,
        names: Vec<Reference>,
        tell: &Tell,
    ) -> Result<(Arc<Image>, bool), Error> {
        if let manifest::Document::Manifest(manifest) =
            manifest::parse(&found.bytes, &found.media_type)?
        {
            let chosen = Chosen { manifest, part: None };
            return self.pull_one(session, chosen, &pull.reference, names, tell).await;
        }
        let document = index::fetched(found, "")?;
        let index = Index::parse(&document)?;
        let (mut first, mut newer): (Option<Arc<Image>>, bool) = (None, false);
        // First the images: what is none comes with one of them.
        let (others, images): (Vec<_>, Vec<_>) =
            index.entries.iter().partition(|entry| !index::is_image(entry));
        for entry in images.into_iter().chain(others) {
            let is_linux = entry.platform.as_ref().is_none_or(|has| has.os == "linux");
            let brought = if !index::is_image(entry) {
                let part = self.attestation(session, &document, entry).await?;
                // It has no image: it comes with one that is here.
                let Some(part) = part else { continue };
                (part, None)
            } else if is_linux {
                let (manifest, part) = self.member(session, &document, entry).await?;
                (part, Some(manifest))
            } else {
                continue;
            };
            let (part, manifest) = brought;
            let (image, is_new) = match (manifest, &first) {
                (Some(manifest), _) => {
                    let chosen = Chosen { manifest, part: Some(part) };
                    self.pull_one(session, chosen, &pull.reference, names.clone(), tell).await?
                }
                (None, Some(image)) => {
                    let (images, image) = (self.clone(), Arc::clone(image));
                    let names = names.clone();
                    blocking(move || {
                        let is_new = images.name_in(&image.id, names, part)?;
                        Ok((image, is_new))
                    })
                    .await?
                }
                (None, None) => continue,
            };
            newer |= is_new;
            first.get_or_insert(image);
        }
        let Some(image) = first else {
            return Err(registry::Error::Platform(Platform::host().to_string()).into());
        };
        let leading = self.owner(&pull.reference).and_then(|id| self.get(&id));
        Ok((leading.unwrap_or(image), newer))
    }

    async fn member(
        &self,
        session: &Session,
        index: &Document,
        entry: &Descriptor,
    ) -> Result<(Manifest, Part), Error> {
        let document = self.manifest_document(session, entry).await?;
        match manifest::parse(document.text.as_bytes(), &document.media_type)? {
            manifest::Document::Manifest(manifest) => {
                let id = ImageId::from(manifest.config.digest.clone());
                Ok((manifest, Part::new(index.clone(), document, id)))
            }
            manifest::Document::Index(_) => Err(Error::Invalid(
                "an index within an index cannot be pulled for all platforms".into(),
            )),
        }
    }

    /// Brings what is no image; `None` if it is here.
    async fn attestation(
        &self,
        session: &Session,
        index: &Document,
        entry: &Descriptor,
    ) -> Result<Option<Part>, Error> {
        if self.manifest_record(&entry.digest)?.is_some() {
            return Ok(None);
        }
        let document = self.manifest_document(session, entry).await?;
        let manifest::Document::Manifest(manifest) =
            manifest::parse(document.text.as_bytes(), &document.media_type)?
        else {
            return Ok(None);
        };
        let size = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.size);
        if size.fold(0, u64::saturating_add) > BLOB_MAX {
            let what = format!("what the manifest {} names", entry.digest);
            return Err(registry::Error::TooLarge { what, limit: BLOB_MAX }.into());
        }
        let (mut blobs, mut content): (Vec<(Digest, u64)>, Vec<Vec<u8>>) = Default::default();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if blobs.iter().all(|(digest, _)| *digest != blob.digest) {
                content.push(fetch_blob(session, blob).await?);
                blobs.push((blob.digest.clone(), blob.size));
            }
        }
        let record = ManifestRecord { document, image: None, blobs };
        Ok(Some(Part { index: index.clone(), manifests: vec![record], content }))
    }

    async fn manifest_document(
        &self,
        session: &Session,
        entry: &Descriptor,
    ) -> Result<Document, Error> {
        if let Some(record) = self.manifest_record(&entry.digest)? {
            return Ok(record.document);
        }
        let found = session.manifest(entry.digest.as_str(), Some(entry.size)).await?;
        index::fetched(&found, &entry.media_type)
    }
}

/// Fetches a blob that is no layer.
async fn fetch_blob(session: &Session, blob: &manifest::Descriptor) -> Result<Vec<u8>, Error> {
    let all = std::sync::Mutex::new(Vec::new());
    let take = |bytes: Bytes| {
        all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes);
        std::future::ready(true)
    };
    session.download(blob, 0, &|| None::<()>, take).await?;
    let bytes = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    if Digest::from_sum(Sha256::digest(&bytes)) != blob.digest {
        let wanted = blob.digest.clone();
        return Err(registry::Error::Digest { what: "blob", wanted }.into());
    }
    Ok(bytes)
}
