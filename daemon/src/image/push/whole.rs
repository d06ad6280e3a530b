//! An index with all that it lists.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cleat_proto::{digest::Digest, docker::image::Descriptor};
use serde::Serialize;

use super::{Error, Image, Images, PushStep, Reference, Session, Tell};
use crate::image::{
    Index, Member,
    index::{self, BLOB_MAX, Document, ManifestRecord},
};

/// An index made anew: OCI image-spec, image-index.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rewritten<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Descriptor>,
}

impl Images {
    /// Brings an index to a repository, under the tag of a reference: byte for byte, unless a layer is not there as a manifest has
    /// it and had to be compressed once more; then that manifest and the index have other names.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn push_index(
        &self,
        session: &Session,
        index: &Index,
        leading: &Arc<Image>,
        reference: &Reference,
        tell: &Tell,
    ) -> Result<(), Error> {
        let tag = reference.tag.clone().unwrap_or_default();
        let mut renamed: BTreeMap<String, Digest> = BTreeMap::new();
        let mut entries: Vec<Descriptor> = Vec::new();
        let members = self.members(index);
        for member in &members {
            let mut entry = member.entry.clone();
            if let Some(image) = &member.image {
                let document =
                    self.push_member(session, &entry.digest, image, reference, tell).await?;
                renamed.insert(entry.digest.to_string(), document.digest());
                entry.digest = document.digest();
                entry.size = document.text.len() as u64;
                entry.media_type = document.media_type;
            } else {
                self.push_other(session, member).await?;
            }
            entries.push(entry);
        }
        entries.iter_mut().for_each(|entry| index::attest(entry, &renamed));
        let is_same = entries.iter().zip(&index.entries).all(|(a, b)| a.digest == b.digest);
        let was = self.index_document(&index.digest)?.filter(|_| is_same);
        let document = match was {
            Some(document) => document,
            None => {
                let media_type = index.media_type.as_str();
                let whole = Rewritten { schema_version: 2, media_type, manifests: entries };
                let bytes = serde_json::to_vec(&whole).map_err(Error::Config)?;
                Document::new(&bytes, media_type)?
            }
        };
        let (digest, size) = (document.digest(), document.text.len() as u64);
        session.put_manifest(&tag, &document.media_type, document.text.into()).await?;
        let by_digest = Reference { tag: None, digest: Some(digest.clone()), ..reference.clone() };
        let (images, leading) = (self.clone(), Arc::clone(leading));
        let known = is_same.then(|| index.digest.clone());
        let named = tokio::task::spawn_blocking(move || {
            if images.owner(&by_digest).as_ref() != Some(&leading.id) {
                images.tag_in(&leading.id, by_digest, known.as_ref())?;
            }
            Ok::<_, Error>(())
        });
        named.await.map_err(|error| Error::Lost(error.to_string()))??;
        tell(PushStep::Done { tag, digest, size });
        Ok(())
    }

    async fn push_member(
        &self,
        session: &Session,
        manifest: &Digest,
        image: &Arc<Image>,
        reference: &Reference,
        tell: &Tell,
    ) -> Result<Document, Error> {
        let was = self.image_manifest(manifest)?;
        let pushed = self.push_image(session, image, was, reference, tell).await?;
        let document = pushed.document;
        let name = document.digest().to_string();
        let text = document.text.clone().into_bytes();
        session.put_manifest(&name, &document.media_type, text).await?;
        let images = self.clone();
        let noted = tokio::task::spawn_blocking(move || images.remember_blobs(pushed.noted));
        noted.await.map_err(|error| Error::Lost(error.to_string()))?;
        Ok(document)
    }

    /// What is no image: its blobs as they are, and its manifest.
    async fn push_other(&self, session: &Session, member: &Member) -> Result<(), Error> {
        let digest = &member.entry.digest;
        let Some(record) = self.manifest_record(digest)? else {
            return Err(Error::NotFound(digest.to_string()));
        };
        let ManifestRecord { document, blobs, .. } = record;
        for (blob, _) in &blobs {
            if session.blob_size(blob).await?.is_none()
                && let Some(upload) = session.begin(None).await?
            {
                let bytes: Bytes = self.content().read(blob, BLOB_MAX)?.into();
                session.finish(upload, blob, bytes).await?;
            }
        }
        let text = document.text.into_bytes();
        Ok(session.put_manifest(digest.as_str(), &document.media_type, text).await?)
    }
}
