//! One layer: network → partial file and sha256 → decompress → sha256 of the tar → files, each step a thread of its own,
//! queues of a few chunks between them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cleat_proto::{
    digest::{DiffId, Digest},
    kind::Kind,
};
use sha2::{Digest as _, Sha256};

use super::{Claim, LayerStep, PullStep, Slot, Tell};
use crate::{
    archive::{
        self,
        chunks::{CHUNK, Chunks, Received, pipe},
    },
    content::Partial,
    image::{
        Error, Images,
        bound::decompressed_within,
        unpack::{Unpacked, unpack},
    },
    registry::{Session, manifest::Descriptor},
    snapshot::Snapshots,
};

/// Clients draw no faster than this.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Whether a media type is a layer's. OCI image-spec, media-types.md, and Docker's own.
pub fn is_layer(media_type: &str) -> bool {
    const DOCKER: [&str; 4] = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    const OCI: [&str; 2] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ];
    let oci = |base: &str| {
        media_type.strip_prefix(base).is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd"))
    };
    DOCKER.contains(&media_type) || OCI.into_iter().any(oci)
}

impl Images {
    /// Fetches and unpacks one layer.
    pub(super) async fn fetch_layer(
        &self,
        session: &Session,
        layer: &Descriptor,
        diff_id: DiffId,
        claim: Arc<Claim>,
        tell: &Tell,
    ) -> Result<Unpacked, Error> {
        let _slot = self.0.transfers.slot().await;
        let had_some = self.content().partial(&layer.digest)?.length() > 0;
        let in_parts = AtomicBool::new(false);
        let spare = || {
            let slot = self.0.transfers.spare_slot()?;
            in_parts.store(true, Ordering::Relaxed);
            Some(slot)
        };
        let first =
            self.fetch_once(session, layer, &diff_id, Arc::clone(&claim), &spare, tell).await;
        match first {
            // What was on the disk may be what a power cut left, and not every server is right about its ranges: once more,
            // all of it, by one connection.
            Err(Error::LayerDigest(_)) if had_some || in_parts.load(Ordering::Relaxed) => {
                self.fetch_once(session, layer, &diff_id, claim, &|| None, tell).await
            }
            other => other,
        }
    }

    async fn fetch_once<'a>(
        &'a self,
        session: &Session,
        layer: &Descriptor,
        diff_id: &DiffId,
        claim: Arc<Claim>,
        spare: &(dyn Fn() -> Option<Slot<'a>> + Sync),
        tell: &Tell,
    ) -> Result<Unpacked, Error> {
        let mut partial = self.content().partial(&layer.digest)?;
        if partial.length() > layer.size {
            partial.clear()?;
        }
        let have = partial.length();
        let (sender, received) = Received::channel();
        let work = Work {
            snapshots: self.snapshots().clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: diff_id.clone(),
            _claim: claim,
        };
        let job = tokio::task::spawn_blocking(move || work.run(partial, received));
        let mut progress = Progress::new(layer, have, tell);
        let downloaded = session.download(layer, have, spare, |bytes: Bytes| {
            progress.add(bytes.len() as u64);
            let sender = sender.clone();
            async move { sender.send(Ok(bytes)).await.is_ok() }
        });
        let downloaded = downloaded.await;
        if let Err(error) = &downloaded {
            let told = io::Error::other(error.to_string());
            // Whoever unpacks has failed by itself if it does not hear this.
            let _ = sender.send(Err(told)).await;
        } else {
            progress.end();
        }
        drop(sender);
        let unpacked = job.await.map_err(|error| Error::Lost(error.to_string()))?;
        downloaded?;
        let unpacked = unpacked?;
        let (current, total) = (layer.size, layer.size);
        tell(PullStep::Layer(layer.digest.clone(), LayerStep::Extracting { current, total }));
        Ok(unpacked)
    }
}

/// Tells how far a download is.
struct Progress<'a> {
    layer: &'a Descriptor,
    current: u64,
    told_at: Option<Instant>,
    tell: &'a Tell,
}

impl<'a> Progress<'a> {
    fn new(layer: &'a Descriptor, current: u64, tell: &'a Tell) -> Self {
        Self { layer, current, told_at: None, tell }
    }

    fn add(&mut self, bytes: u64) {
        self.current += bytes;
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_due {
            self.told_at = Some(Instant::now());
            let (current, total) = (self.current, self.layer.size);
            self.step(LayerStep::Downloading { current, total });
        }
    }

    fn end(&self) {
        self.step(LayerStep::Verifying);
        self.step(LayerStep::Downloaded);
    }

    fn step(&self, step: LayerStep) {
        (self.tell)(PullStep::Layer(self.layer.digest.clone(), step));
    }
}

/// The part of a fetch that blocks.
struct Work {
    snapshots: Snapshots,
    digest: Digest,
    size: u64,
    diff_id: DiffId,
    /// Nobody else touches the partial before this is over, cancelled or not.
    _claim: Arc<Claim>,
}

impl Work {
    fn run(self, mut partial: Partial, received: Received) -> Result<Unpacked, Error> {
        let (writer, chunks) = pipe();
        let snapshots = self.snapshots.clone();
        let work = thread::Builder::new()
            .name("unpack".into())
            .spawn(move || unpack(&snapshots, decompressed_within(&snapshots, chunks)?))
            .map_err(archive::Error::Input)?;
        let spooled = self.spool(&mut partial, received, &mut |chunk| writer.send(chunk));
        match &spooled {
            Ok(()) => drop(writer),
            Err(error) => writer.fail(io::Error::other(error.to_string())),
        }
        let unpacked = work.join().map_err(|_| Error::Lost("unpacking panicked".into()))?;
        match (spooled, unpacked) {
            // What did not come whole is gone on with, what is wrong is not.
            (Err(error @ (Error::LayerDigest(_) | Error::LayerSize { .. })), _) => {
                partial.remove();
                Err(error)
            }
            (Err(error), unpacked) => {
                // On a full disk what is there is in the way.
                if is_full(&error) || unpacked.is_err_and(|error| is_full(&error)) {
                    partial.remove();
                }
                Err(error)
            }
            (Ok(()), Err(error)) => {
                if error.kind() != Kind::Internal || is_full(&error) {
                    partial.remove();
                }
                Err(error)
            }
            (Ok(()), Ok(unpacked)) if unpacked.diff_id == self.diff_id => Ok(unpacked),
            (Ok(()), Ok(unpacked)) => {
                partial.remove();
                Err(Error::Invalid(format!(
                    "layers from manifest don't match image configuration: layer {} unpacks to {}, not to {}",
                    self.digest, unpacked.diff_id, self.diff_id
                )))
            }
        }
    }

    /// Takes what is there and what comes, writes it down, hashes it and passes it on.
    fn spool(
        &self,
        partial: &mut Partial,
        mut received: Received,
        pass: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<(), Error> {
        let mut hash = Sha256::new();
        // An unpacker that has failed wants no more, but whether the blob is what it says is still to be told.
        let mut wanted = true;
        let read = partial.read(CHUNK, |bytes| {
            hash.update(&bytes);
            wanted = wanted && pass(Bytes::from(bytes));
            Ok(())
        });
        read.map_err(archive::Error::Input)?;
        while let Some(chunk) = received.next().map_err(archive::Error::Input)? {
            partial.append(&chunk).map_err(archive::Error::Output)?;
            hash.update(&chunk);
            wanted = wanted && pass(chunk);
        }
        match partial.length() {
            length if length < self.size => {
                // Cancelled: what is there is right so far.
                Err(archive::Error::Input(io::ErrorKind::UnexpectedEof.into()).into())
            }
            length if length > self.size => Err(Error::LayerSize {
                digest: self.digest.clone(),
                wanted: self.size,
                found: length,
            }),
            _ if Digest::from_sum(hash.finalize()) != self.digest => {
                Err(Error::LayerDigest(self.digest.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether it was the disk that had no space left.
fn is_full(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let is_ours = matches!(error.downcast_ref(), Some(archive::Error::Full(_)));
        if is_ours
            || matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_by_their_media_type() {
        for good in [
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            assert!(is_layer(good), "{good}");
        }
        for bad in ["", "application/vnd.oci.image.layer.v1.tar+encrypted", "text/plain"] {
            assert!(!is_layer(bad), "{bad}");
        }
    }
}
