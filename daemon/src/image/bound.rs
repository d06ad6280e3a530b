//! How much a tar may unpack to: bombs end here, whatever brought them (pull, load, import).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    archive::{self, chunks::Chunks, compression::decompressed},
    snapshot::Snapshots,
};

/// What every tar may unpack to …
const FLOOR: u64 = 1 << 30;
/// … and what it may beyond that, by the bytes that came of it: zeros in gzip are 1:1000, and no layer is mostly that.
const RATIO: u64 = 300;
/// What is left free on the disk, whatever a tar wants.
const RESERVE_BYTES: u64 = 128 << 20;
/// How often the disk is looked at.
const LOOK_EVERY: u64 = 32 << 20;

/// Decompresses a stream, and ends it with an error where it is too much for what it came from, or for the disk.
///
/// # Errors
/// Those of the decompressor.
pub(super) fn decompressed_within(
    snapshots: &Snapshots,
    source: impl Chunks + 'static,
) -> Result<impl Chunks + 'static, archive::Error> {
    let came = Arc::new(AtomicU64::new(0));
    let inner = decompressed(Counted { inner: source, came: Arc::clone(&came) })?;
    Ok(Bounded { inner, came, passed: 0, snapshots: snapshots.clone() })
}

/// Refuses what would not even leave the reserve with its bytes as they come, before one of them has: a size may be a lie.
///
/// # Errors
/// [`archive::Error::Full`].
pub(super) fn check_room(snapshots: &Snapshots, coming: u64) -> Result<(), archive::Error> {
    // What is small is let through, as what is unpacked is.
    let is_too_much =
        |free: u64| coming > LOOK_EVERY && free < coming.saturating_add(RESERVE_BYTES);
    match snapshots.free_bytes() {
        Some(free) if is_too_much(free) => Err(archive::Error::Full(RESERVE_BYTES)),
        _ => Ok(()),
    }
}

/// Counts what comes.
struct Counted<C> {
    inner: C,
    came: Arc<AtomicU64>,
}

impl<C: Chunks> Chunks for Counted<C> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = self.inner.next()?;
        let length = chunk.as_ref().map_or(0, Bytes::len) as u64;
        self.came.fetch_add(length, Ordering::Relaxed);
        Ok(chunk)
    }
}

struct Bounded<C> {
    inner: C,
    came: Arc<AtomicU64>,
    passed: u64,
    snapshots: Snapshots,
}

impl<C: Chunks> Chunks for Bounded<C> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(chunk) = self.inner.next()? else { return Ok(None) };
        let before = self.passed / LOOK_EVERY;
        self.passed += chunk.len() as u64;
        let limit = limit(self.came.load(Ordering::Relaxed));
        if self.passed > limit {
            return Err(io::Error::other(archive::Error::Bomb(limit)));
        }
        if self.passed / LOOK_EVERY != before
            && self.snapshots.free_bytes().is_some_and(|free| free < RESERVE_BYTES)
        {
            return Err(io::Error::other(archive::Error::Full(RESERVE_BYTES)));
        }
        Ok(Some(chunk))
    }
}

/// How much so many bytes may unpack to.
fn limit(size: u64) -> u64 {
    FLOOR.saturating_add(size.saturating_mul(RATIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Database;

    struct Pieces(Vec<usize>);

    impl Chunks for Pieces {
        fn next(&mut self) -> io::Result<Option<Bytes>> {
            Ok(self.0.pop().map(|length| Bytes::from(vec![0; length])))
        }
    }

    fn bounded(pieces: Vec<usize>, came: u64, passed: u64) -> (tempfile::TempDir, Bounded<Pieces>) {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("meta.redb")).unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots"), &database).unwrap();
        let came = Arc::new(AtomicU64::new(came));
        (dir, Bounded { inner: Pieces(pieces), came, passed, snapshots })
    }

    #[test]
    fn a_tar_that_is_too_much_for_what_came_of_it_ends_with_an_error() {
        let (_dir, mut tar) = bounded(vec![1, 60, 40], 0, FLOOR - 100);
        assert_eq!(tar.next().unwrap().unwrap().len(), 40);
        assert_eq!(tar.next().unwrap().unwrap().len(), 60);
        let error = archive::Error::from_input(tar.next().unwrap_err());
        assert!(matches!(error, archive::Error::Bomb(FLOOR)), "{error}");
        assert_eq!(error.kind(), cleat_proto::kind::Kind::InvalidArgument);
        // What is large because much came is no bomb.
        let (_dir, mut tar) = bounded(vec![1], 10, FLOOR);
        assert_eq!(tar.next().unwrap().unwrap().len(), 1);
    }

    #[test]
    fn what_may_come_of_a_stream_follows_its_size() {
        assert_eq!(limit(0), 1 << 30);
        assert_eq!(limit(1 << 20), (1 << 30) + (300 << 20));
        assert_eq!(limit(u64::MAX), u64::MAX);
    }
}
