//! `docker push`: what the repository has stays there, what a neighbour has is mounted, the rest is compressed as it is sent.
//!
//! A layer's tar is made again from its files (see [`crate::archive::recipe`]) and checked in passing: a blob that is not
//! the layer that the image names never gets a name in the registry.

mod whole;

use std::{
    collections::HashMap,
    io::Write,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cleat_proto::digest::{DiffId, Digest};
use futures_util::future::try_join_all;
use serde::Serialize;

use super::{
    Error, Image, Images, Reference, blobs::Known, config, index, index::Document, unpack::RECIPE,
};
use crate::{
    archive::{
        self,
        chunks::{BodyWriter, Chunks, Hashed, Sum, body, pipe},
        gzip, recipe,
    },
    registry::{
        Session, Upload,
        manifest::{self, Descriptor},
    },
    snapshot,
};

/// How many blobs of other names are asked for before a layer is sent.
const CANDIDATES: usize = 4;
/// How often a layer is sent when the connection breaks.
const ATTEMPTS: u32 = 3;
/// Clients draw no faster than this.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What a push is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    /// Something about a layer.
    Layer(DiffId, LayerPush),
    /// The tag is there.
    Done {
        /// Which.
        tag: String,
        /// Its manifest.
        digest: Digest,
        /// The manifest's length.
        size: u64,
    },
}

/// What a layer is going through. Source of the words: `docker push`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LayerPush {
    Preparing,
    Exists,
    Mounted(String),
    Pushing { current: u64, total: u64 },
    Pushed,
}

/// Hears of each step, from any thread.
pub type Tell = Arc<dyn Fn(PushStep) + Send + Sync>;

/// "Image Manifest V 2, Schema 2", field order as Docker's: the same image has the same digest wherever it was pushed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: &'a [Descriptor],
}

/// An image of which all but the manifest is there.
struct Pushed {
    document: index::Document,
    /// What its layers are there.
    noted: Vec<(DiffId, Known)>,
}

impl Images {
    /// Brings an image to a repository, under the tag of a reference.
    ///
    /// # Errors
    /// What the registry says; [`Error::Damaged`] for a layer that is not what it was.
    pub async fn push(
        &self,
        session: &Session,
        image: &Arc<Image>,
        reference: &Reference,
        tell: &Tell,
    ) -> Result<(), Error> {
        let tag = reference.tag.clone().unwrap_or_default();
        let was = match self.manifest_of(&image.id) {
            Some(entry) => self.image_manifest(&entry.digest)?,
            None => None,
        };
        let pushed = self.push_image(session, image, was, reference, tell).await?;
        let (digest, size) = (pushed.document.digest(), pushed.document.text.len() as u64);
        session
            .put_manifest(&tag, &pushed.document.media_type, pushed.document.text.into())
            .await?;
        let by_digest = Reference { tag: None, digest: Some(digest.clone()), ..reference.clone() };
        let (images, image) = (self.clone(), Arc::clone(image));
        let named = tokio::task::spawn_blocking(move || {
            images.remember_blobs(pushed.noted);
            // What is held by others' names goes with them.
            if !image.is_only_held() && images.owner(&by_digest).as_ref() != Some(&image.id) {
                images.tag(&image.id, by_digest)?;
            }
            Ok::<_, Error>(())
        });
        named.await.map_err(|error| Error::Lost(error.to_string()))??;
        tell(PushStep::Done { tag, digest, size });
        Ok(())
    }

    /// Brings an image's configuration and layers to a repository; returns its manifest, which is not there yet. It is the one that
    /// an index has for it if the repository has the same blobs.
    async fn push_image(
        &self,
        session: &Session,
        image: &Arc<Image>,
        was: Option<(Document, manifest::Manifest)>,
        reference: &Reference,
        tell: &Tell,
    ) -> Result<Pushed, Error> {
        let lease = self.lease(image)?;
        let mut own: HashMap<DiffId, Descriptor> = HashMap::new();
        if let Some((_, manifest)) = &was {
            let layers = image.layers.iter().zip(&manifest.layers);
            own.extend(layers.map(|(layer, blob)| (layer.diff_id.clone(), blob.clone())));
        }
        let layers = match image.top_layer() {
            Some(top) => self.snapshots().chain(top)?,
            None => Vec::new(),
        };
        // From the top, as clients show them.
        let mut distinct: Vec<&Arc<snapshot::Layer>> = Vec::new();
        for layer in &layers {
            if distinct.iter().all(|other| other.diff_id != layer.diff_id) {
                tell(PushStep::Layer(layer.diff_id.clone(), LayerPush::Preparing));
                distinct.push(layer);
            }
        }
        let pushes = distinct
            .iter()
            .map(|layer| self.push_layer(session, reference, layer, own.get(&layer.diff_id), tell));
        let pushed = try_join_all(pushes).await?;
        let known: HashMap<&DiffId, &Descriptor> =
            distinct.iter().map(|layer| &layer.diff_id).zip(&pushed).collect();
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .rev()
            .filter_map(|layer| known.get(&layer.diff_id).copied().cloned())
            .collect();
        let bytes = self.content().read(&Digest::from(&image.id), config::LIMIT)?;
        let size = bytes.len() as u64;
        let config = Digest::from(&image.id);
        if session.blob_size(&config).await?.is_none()
            && let Some(upload) = session.begin(None).await?
        {
            session.finish(upload, &config, bytes.into()).await?;
        }
        let is_same = |manifest: &manifest::Manifest| {
            let blobs = manifest.layers.iter().map(|layer| &layer.digest);
            manifest.config.digest == config
                && blobs.eq(descriptors.iter().map(|layer| &layer.digest))
        };
        let document = match was {
            Some((document, manifest)) if is_same(&manifest) => document,
            _ => {
                let (media_type, bytes) = document(config, size, &descriptors)?;
                index::Document::new(&bytes, media_type)?
            }
        };
        let noted = distinct.iter().zip(pushed);
        let noted: Vec<(DiffId, Known)> = noted
            .map(|(layer, blob)| (layer.diff_id.clone(), Known::new(&blob, &reference.name)))
            .collect();
        drop(lease);
        Ok(Pushed { document, noted })
    }

    /// `own` is what the image's manifest has for it.
    async fn push_layer(
        &self,
        session: &Session,
        reference: &Reference,
        layer: &snapshot::Layer,
        own: Option<&Descriptor>,
        tell: &Tell,
    ) -> Result<Descriptor, Error> {
        let _slot = self.0.transfers.upload_slot().await;
        let step = |step| tell(PushStep::Layer(layer.diff_id.clone(), step));
        let mut known = self.known_blobs(&layer.diff_id);
        if let Some(own) = own {
            if known.iter().all(|blob| blob.digest != own.digest) {
                known.insert(0, Known::new(own, &reference.name));
            }
            known.sort_by_key(|blob| blob.digest != own.digest);
        }
        let (domain, path) = (reference.name.domain(), reference.name.path());
        let mut tried: Vec<&Digest> = Vec::new();
        for blob in &known {
            if tried.len() == CANDIDATES || tried.contains(&&blob.digest) {
                continue;
            }
            tried.push(&blob.digest);
            if session.blob_size(&blob.digest).await? == Some(blob.size) {
                step(LayerPush::Exists);
                return Ok(blob.descriptor());
            }
        }
        let mut upload = None;
        let neighbours = known.iter().filter(|blob| blob.domain == domain && blob.path != path);
        for blob in neighbours.take(CANDIDATES) {
            match session.begin(Some((&blob.digest, &blob.path))).await? {
                None => {
                    step(LayerPush::Mounted(blob.path.clone()));
                    return Ok(blob.descriptor());
                }
                begun => upload = begun,
            }
        }
        let mut attempt = 1;
        loop {
            match self.upload_layer(session, layer, upload.take(), tell).await {
                Err(Error::Registry(error)) if error.is_passing() && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
                Ok(descriptor) => {
                    step(LayerPush::Pushed);
                    return Ok(descriptor);
                }
            }
        }
    }

    async fn upload_layer(
        &self,
        session: &Session,
        layer: &snapshot::Layer,
        begun: Option<Upload>,
        tell: &Tell,
    ) -> Result<Descriptor, Error> {
        let upload = match begun {
            Some(upload) => upload,
            None => session
                .begin(None)
                .await?
                .ok_or_else(|| Error::Lost("an upload was answered as a mount".into()))?,
        };
        let (writer, source) = body();
        let (dir, wanted) = (self.snapshots().layer_dir(layer), layer.clone());
        let (diff_id, total, told) = (layer.diff_id.clone(), layer.size, Arc::clone(tell));
        let made = tokio::task::spawn_blocking(move || {
            compress(&dir, &wanted, writer, &mut |current| {
                let step = LayerPush::Pushing { current, total };
                told(PushStep::Layer(diff_id.clone(), step));
            })
        });
        let sent = session.send(upload, source).await;
        let made = made.await.map_err(|error| Error::Lost(error.to_string()))?;
        let (upload, sum) = match (sent, made) {
            (Ok(upload), Ok(sum)) => (upload, sum),
            // Whoever writes fails as well when nobody reads any more: the registry's word is the cause.
            (Err(error), Err(Error::Archive(_)) | Ok(_)) => return Err(error.into()),
            (_, Err(error)) => return Err(error),
        };
        session.finish(upload, &sum.digest, bytes::Bytes::new()).await?;
        Ok(Descriptor {
            media_type: manifest::LAYER.to_owned(),
            size: sum.size,
            digest: sum.digest,
            urls: None,
            platform: None,
        })
    }
}

/// Makes a layer's tar again, compressed, and checks that it is the one that the image names. Blocks.
fn compress(
    dir: &std::path::Path,
    layer: &snapshot::Layer,
    mut output: BodyWriter,
    tell: &mut dyn FnMut(u64),
) -> Result<Sum, Error> {
    let (mut writer, chunks) = pipe();
    let from = dir.to_owned();
    let replay = thread::Builder::new().name("replay".into()).spawn(move || {
        let written = recipe::replay(&from, "fs", RECIPE, &mut writer);
        match written.and_then(|()| writer.flush().map_err(archive::Error::Output)) {
            Ok(()) => {}
            Err(error) => writer.fail(std::io::Error::other(error)),
        }
    });
    replay.map_err(archive::Error::Input)?;
    output.start_sum().map_err(archive::Error::Output)?;
    let made = squeeze(chunks, &mut output, tell);
    let made = made.and_then(|tar| {
        if tar.digest.as_str() != layer.diff_id.as_str() {
            return Err(Error::Damaged(layer.diff_id.clone()));
        }
        Ok(output.finish_sum().map_err(archive::Error::Output)?)
    });
    if let Err(error) = &made {
        output.fail(std::io::Error::other(error.to_string()));
    }
    made
}

/// Compresses a tar and returns its sum.
fn squeeze(
    chunks: impl Chunks,
    output: &mut BodyWriter,
    tell: &mut dyn FnMut(u64),
) -> Result<Sum, Error> {
    let mut hashed = Hashed::new(chunks).map_err(archive::Error::Input)?;
    let (mut current, mut told_at) = (0, None::<Instant>);
    let next = || {
        let chunk = hashed.next()?;
        current += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told_at = Some(Instant::now());
            tell(current);
        }
        Ok(chunk)
    };
    gzip::compress(next, output).map_err(archive::Error::from_input)?;
    Ok(hashed.finish().map_err(archive::Error::from_input)?)
}

/// Writes the manifest, as Docker does; as OCI's only where Docker's has no name for a layer's compression.
fn document(
    config: Digest,
    size: u64,
    layers: &[Descriptor],
) -> Result<(&'static str, Vec<u8>), Error> {
    let is_oci = layers.iter().any(|layer| layer.media_type.ends_with("+zstd"));
    let (media_type, config_type) = match is_oci {
        true => (manifest::OCI_MANIFEST, manifest::OCI_CONFIG),
        false => (manifest::MANIFEST, manifest::CONFIG),
    };
    let layers: Vec<Descriptor> = layers
        .iter()
        .map(|layer| Descriptor {
            media_type: layer_type(&layer.media_type, is_oci),
            ..layer.clone()
        })
        .collect();
    let config = Descriptor {
        media_type: config_type.to_owned(),
        size,
        digest: config,
        urls: None,
        platform: None,
    };
    let manifest = Manifest { schema_version: 2, media_type, config, layers: &layers };
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    manifest.serialize(&mut serializer).map_err(Error::Config)?;
    Ok((media_type, bytes))
}

/// The same compression in the other vocabulary.
fn layer_type(media_type: &str, oci: bool) -> String {
    let docker = media_type.starts_with("application/vnd.docker.");
    let foreign = media_type.contains("foreign") || media_type.contains("nondistributable");
    if docker != oci || foreign {
        return media_type.to_owned();
    }
    let gzip = media_type.ends_with("gzip");
    match (oci, gzip) {
        (true, true) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (true, false) => "application/vnd.oci.image.layer.v1.tar",
        (false, true) => manifest::LAYER,
        (false, false) => "application/vnd.docker.image.rootfs.diff.tar",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_written_as_docker_does() {
        let layer = Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            size: 2,
            digest: Digest::from_sum([2; 32]),
            urls: None,
            platform: None,
        };
        let (media_type, bytes) = document(Digest::from_sum([1; 32]), 1, &[layer]).unwrap();
        assert_eq!(media_type, manifest::MANIFEST);
        let text = String::from_utf8(bytes).unwrap();
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        assert_eq!(
            text,
            format!(
                "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{}\",\n   \"config\": {{\n      \"mediaType\": \"{}\",\n      \"size\": 1,\n      \"digest\": \"sha256:{one}\"\n   }},\n   \"layers\": [\n      {{\n         \"mediaType\": \"{}\",\n         \"size\": 2,\n         \"digest\": \"sha256:{two}\"\n      }}\n   ]\n}}",
                manifest::MANIFEST,
                manifest::CONFIG,
                manifest::LAYER
            )
        );
    }

    #[test]
    fn a_layers_compression_keeps_its_name() {
        assert_eq!(
            layer_type(manifest::LAYER, true),
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(layer_type(manifest::LAYER, false), manifest::LAYER);
        let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
        assert_eq!(layer_type(zstd, true), zstd);
    }
}
