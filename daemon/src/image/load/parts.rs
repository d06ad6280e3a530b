//! The files of an image archive, as they come by.

use std::{collections::HashMap, io, thread};

use bytes::Bytes;
use cleat_proto::digest::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use super::{ArchiveLayer, Error, Images, Unpacked, invalid};
use crate::{
    archive::{
        self, Limits,
        chunks::{ChunkReader, Chunks, pipe},
        compression::Compression,
        reader::{BLOCK, Entry, Kind, TarReader},
    },
    image::{bound::decompressed_within, config, unpack::unpack},
    snapshot,
};

/// What all JSON files of an archive may have together: they are kept in memory.
const JSON_MAX: u64 = 64 << 20;
/// How many files and links of an archive are remembered.
const PARTS_MAX: usize = 100_000;
/// What their names may have together.
const NAMES_MAX: usize = 16 << 20;
/// A chain of links in an archive.
const LINKS_MAX: usize = 8;

/// What one file of the archive turned out to be.
enum Part {
    Json(Vec<u8>),
    Layer(ArchiveLayer),
    /// A layer that the store has already; its bytes were hashed and thrown away.
    Known {
        digest: Digest,
    },
    /// It looked like a layer and was none.
    Broken(String),
    TooLarge,
    /// Nothing that an image is made of.
    Other,
    Link(String),
}

impl Part {
    /// What is remembered of it in words.
    fn text(&self) -> &str {
        match self {
            Self::Link(text) | Self::Broken(text) => text,
            Self::Json(_) | Self::Layer(_) | Self::Known { .. } | Self::TooLarge | Self::Other => {
                ""
            }
        }
    }
}

/// All files of an archive that matter.
pub(super) struct Parts {
    parts: HashMap<String, Part>,
    remembered: HashMap<DiffId, snapshot::Layer>,
    json: u64,
    names: usize,
}

impl Parts {
    /// Reads an archive to its end.
    pub(super) fn read<C: Chunks>(images: &Images, archive: ChunkReader<C>) -> Result<Self, Error> {
        let mut tar = TarReader::new(archive, Limits::DEFAULT, None);
        let mut all = Self { parts: HashMap::new(), remembered: HashMap::new(), json: 0, names: 0 };
        while let Some(entry) = tar.next_entry()? {
            let name = joined(&entry.name);
            let part = match entry.kind {
                Kind::Regular if entry.sparse.is_none() => {
                    all.file(images, &mut tar, &name, &entry)?
                }
                // A repeated layer in archives of old.
                Kind::Symlink => Some(Part::Link(beside(&name, &entry.link))),
                Kind::HardLink => Some(Part::Link(joined(&entry.link))),
                _ => None,
            };
            if let Some(part) = part {
                all.names += name.len() + part.text().len();
                if all.parts.len() >= PARTS_MAX || all.names > NAMES_MAX {
                    return Err(invalid("the archive has too many files"));
                }
                all.parts.insert(name, part);
            }
        }
        tar.finish()?;
        Ok(all)
    }

    fn file<C: Chunks>(
        &mut self,
        images: &Images,
        tar: &mut TarReader<ChunkReader<C>>,
        name: &str,
        entry: &Entry,
    ) -> Result<Option<Part>, Error> {
        let start = read_start(tar, entry.size)?;
        if is_layer(&start) {
            return layer(images, tar, name, start).map(Some);
        }
        let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(first, Some(b'{' | b'[' | b'"' | b'n')) {
            return Ok(Some(Part::Other));
        }
        if entry.size > config::LIMIT {
            return Ok(Some(Part::TooLarge));
        }
        self.json += entry.size;
        if self.json > JSON_MAX {
            return Err(invalid("the archive's JSON files are too large together"));
        }
        let mut bytes = start;
        loop {
            let data = tar.data()?;
            if data.is_empty() {
                return Ok(Some(Part::Json(bytes)));
            }
            let count = data.len();
            bytes.extend_from_slice(data);
            tar.consume(count);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    fn find(&self, name: &str) -> Option<(&str, &Part)> {
        let mut name = joined(name.as_bytes());
        for _ in 0..LINKS_MAX {
            match self.parts.get_key_value(&name) {
                Some((_, Part::Link(target))) => name.clone_from(target),
                found => return found.map(|(name, part)| (name.as_str(), part)),
            }
        }
        None
    }

    /// Returns a JSON file's bytes.
    pub(super) fn json(&self, name: &str) -> Result<&[u8], Error> {
        match self.find(name) {
            Some((_, Part::Json(bytes))) => Ok(bytes),
            Some((_, Part::TooLarge)) => Err(invalid(format!(
                "{name} in the archive is larger than {} bytes",
                config::LIMIT
            ))),
            Some(_) => Err(invalid(format!("{name} in the archive is no JSON file"))),
            None => Err(invalid(format!("{name:?} is not in the archive"))),
        }
    }

    /// Checks a JSON file whose name is its digest.
    pub(super) fn check_blob(&self, name: &str) -> Result<(), Error> {
        let Some((found, Part::Json(bytes))) = self.find(name) else { return Ok(()) };
        let Some(wanted) = blob_digest(found) else { return Ok(()) };
        let digest = Digest::from_sum(Sha256::digest(bytes));
        if digest == wanted {
            return Ok(());
        }
        Err(invalid(format!("invalid digest of {name}: expected {wanted}, got {digest}")))
    }

    /// Checks that a file is the layer that an image means.
    pub(super) fn check_layer(
        &self,
        index: usize,
        name: &str,
        diff_id: &DiffId,
    ) -> Result<(), Error> {
        let (found, part) = self
            .find(name)
            .ok_or_else(|| invalid(format!("layer {name:?} is not in the archive")))?;
        let (digest, is) = match part {
            Part::Layer(layer) => (Some(&layer.digest), layer.diff_id.to_string()),
            Part::Known { digest } => (Some(digest), digest.to_string()),
            Part::Broken(why) => return Err(invalid(format!("layer {name}: {why}"))),
            Part::Json(_) | Part::TooLarge | Part::Other | Part::Link(_) => {
                return Err(invalid(format!(
                    "layer {name} is no tar: archive/tar: invalid tar header"
                )));
            }
        };
        if let (Some(wanted), Some(digest)) = (blob_digest(found), digest)
            && wanted != *digest
        {
            return Err(invalid(format!(
                "invalid digest of {name}: expected {wanted}, got {digest}"
            )));
        }
        if is != diff_id.as_str() {
            return Err(invalid(format!(
                "invalid diffID for layer {index}: expected {:?}, got {is:?}",
                diff_id.as_str()
            )));
        }
        Ok(())
    }

    /// Takes a layer's files; the first image that wants them has them.
    pub(super) fn take_layer(&mut self, name: &str) -> Option<Unpacked> {
        let name = self.find(name)?.0.to_owned();
        match self.parts.get_mut(&name) {
            Some(Part::Layer(layer)) => layer.unpacked.take(),
            _ => None,
        }
    }

    /// Notes where a layer's files went.
    pub(super) fn remember(&mut self, diff_id: &DiffId, layer: &snapshot::Layer) {
        self.remembered.insert(diff_id.clone(), layer.clone());
    }

    pub(super) fn remembered(&self, diff_id: &DiffId) -> Option<&snapshot::Layer> {
        self.remembered.get(diff_id)
    }
}

/// Reads as much of a file as tells what it is.
fn read_start<C: Chunks>(tar: &mut TarReader<ChunkReader<C>>, size: u64) -> Result<Vec<u8>, Error> {
    let wanted = BLOCK.min(usize::try_from(size).unwrap_or(BLOCK));
    let mut start = Vec::with_capacity(wanted);
    while start.len() < wanted {
        let data = tar.data()?;
        let count = data.len().min(wanted - start.len());
        start.extend_from_slice(&data[..count]);
        tar.consume(count);
    }
    Ok(start)
}

/// A tar's first block is a header with a right checksum, or zeros; or it is compressed.
fn is_layer(start: &[u8]) -> bool {
    if Compression::of(start) != Compression::None {
        return true;
    }
    start.len() == BLOCK
        && (start.iter().all(|byte| *byte == 0) || archive::reader::is_header(start))
}

/// Unpacks a layer that comes by, or only hashes it if its name says that the store has it.
fn layer<C: Chunks>(
    images: &Images,
    tar: &mut TarReader<ChunkReader<C>>,
    name: &str,
    start: Vec<u8>,
) -> Result<Part, Error> {
    if Compression::of(&start) == Compression::None
        && let Some(diff_id) = named_digest(name).map(DiffId::from)
        && images.snapshots().any_with(&diff_id).is_some()
    {
        let mut hash = Sha256::new();
        pump(tar, start, |chunk| {
            hash.update(&chunk);
            true
        })?;
        return Ok(Part::Known { digest: Digest::from_sum(hash.finalize()) });
    }
    let compressed = Compression::of(&start) != Compression::None;
    let (writer, chunks) = pipe();
    let snapshots = images.snapshots().clone();
    let work = thread::Builder::new()
        .name("unpack".into())
        .spawn(move || unpack(&snapshots, decompressed_within(&snapshots, chunks)?))
        .map_err(archive::Error::Input)?;
    let mut hash = Sha256::new();
    let pumped = pump(tar, start, |chunk| {
        if compressed {
            hash.update(&chunk);
        }
        writer.send(chunk)
    });
    match pumped {
        Ok(()) => drop(writer),
        Err(error) => {
            writer.fail(io::ErrorKind::UnexpectedEof.into());
            let _ = work.join();
            return Err(error);
        }
    }
    let unpacked = work.join().map_err(|_| archive::Error::Input(io::Error::other("panic")))?;
    Ok(match unpacked {
        Ok(unpacked) => {
            let diff_id = unpacked.diff_id.clone();
            let digest = match compressed {
                true => Digest::from_sum(hash.finalize()),
                false => Digest::from(&diff_id),
            };
            Part::Layer(ArchiveLayer { unpacked: Some(unpacked), diff_id, digest })
        }
        Err(error) if error.kind() == cleat_proto::kind::Kind::Internal => return Err(error),
        // Whether it matters is for the manifest to say.
        Err(error) => Part::Broken(cleat_proto::kind::whole(&error)),
    })
}

/// Takes a file's bytes until its end; `take` answers whether it wants more.
fn pump<C: Chunks>(
    tar: &mut TarReader<ChunkReader<C>>,
    start: Vec<u8>,
    mut take: impl FnMut(Bytes) -> bool,
) -> Result<(), Error> {
    let mut wanted = take(Bytes::from(start));
    loop {
        let data = tar.data()?;
        let count = data.len();
        if count == 0 {
            return Ok(());
        }
        if wanted {
            wanted = take(Bytes::copy_from_slice(data));
        }
        tar.consume(count);
    }
}

/// `blobs/sha256/<hex>`: OCI image-spec, image-layout.md, Blobs.
fn blob_digest(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// A digest that a name has, in a layout or in an archive of old (`<hex>/layer.tar`).
fn named_digest(name: &str) -> Option<Digest> {
    let old = || format!("sha256:{}", name.strip_suffix("/layer.tar")?).parse().ok();
    blob_digest(name).or_else(old)
}

fn joined(name: &[u8]) -> String {
    String::from_utf8_lossy(&archive::clean(name).join(&b"/"[..])).into_owned()
}

/// A symbolic link's target, as a name in the archive.
fn beside(name: &str, target: &[u8]) -> String {
    if target.starts_with(b"/") {
        return joined(target);
    }
    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
    joined(&[dir.as_bytes(), b"/", target].concat())
}
