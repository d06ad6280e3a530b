//! Blobs by digest, `ROOT/content/blobs/sha256/…`, and ingests that are still being written.
//!
//! ```text
//!  ingest ──write…──▶ (verify digest and size) ──sync──▶ rename to blobs/sha256/<hex> ──sync dir──▶ blob
//!     └─ dropped, or found at start ─▶ (gone)
//! ```
//! A partial, `ingest/<hex>.partial`, is what has come of a blob from a registry: it outlives the daemon, so that the next
//! attempt goes on where this one stopped, for a day at most.
//! A blob that no image refers to is garbage; `Images` removes it with the image, and sweeps at start.

mod partial;

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cleat_proto::{digest::Digest, kind::Kind};
use sha2::{Digest as _, Sha256};

use crate::disk;

pub use partial::Partial;

/// What can go wrong with a blob.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("blob {0} not found")]
    NotFound(Digest),
    /// It is not what its name says.
    #[error("unexpected digest {found}, wanted {wanted}")]
    Mismatch {
        /// The name.
        wanted: Digest,
        /// The bytes' own.
        found: Digest,
    },
    /// It is larger than what a reader takes.
    #[error("blob {digest} is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// How much is taken.
        limit: u64,
    },
    /// The filesystem said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Mismatch { .. } | Self::TooLarge { .. } => Kind::InvalidArgument,
            Self::Io { .. } => Kind::Internal,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The store of blobs. Clones share it.
#[derive(Clone)]
pub struct Content(Arc<Store>);

struct Store {
    blobs: PathBuf,
    ingest: PathBuf,
    next: AtomicU64,
}

impl Content {
    /// Opens the store in `root` and removes ingests that were never finished.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(root: &Path) -> Result<Self, Error> {
        let (blobs, ingest) = (root.join("blobs/sha256"), root.join("ingest"));
        for dir in [root, &blobs, &ingest] {
            disk::make_private_dir(dir).map_err(Error::io("make", dir))?;
        }
        for entry in fs::read_dir(&ingest).map_err(Error::io("list", &ingest))? {
            let path = entry.map_err(Error::io("list", &ingest))?.path();
            if partial::is_fresh(&path) {
                continue;
            }
            disk::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(Self(Arc::new(Store { blobs, ingest, next: AtomicU64::new(0) })))
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ingest(&self) -> Result<Ingest, Error> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let path = self.0.ingest.join(number.to_string());
        let file = disk::File::create_new(&path).map_err(Error::io("make", &path))?;
        Ok(Ingest { store: self.clone(), path, file, hash: Sha256::new() })
    }

    /// Stores a small blob and returns its digest. One that is there already is kept, unless it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::from_sum(Sha256::digest(bytes));
        if self.read(&digest, bytes.len() as u64).is_ok() {
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).map_err(Error::io("write", &ingest.path))?;
        ingest.commit(Some(&digest))
    }

    /// Reads a blob of at most `limit` bytes and verifies it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLarge`], [`Error::Mismatch`] for a damaged one.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let path = self.path(digest);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(digest.clone()));
            }
            other => other.map_err(Error::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { digest: digest.clone(), limit });
        }
        let found = Digest::from_sum(Sha256::digest(&bytes));
        if found != *digest {
            return Err(Error::Mismatch { wanted: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Removes a blob; one that is not there is fine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        match disk::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns all blobs, in no order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let dir = &self.0.blobs;
        let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.blobs.join(digest.hex())
    }
}

/// A blob being written. Dropped before its commit it leaves nothing.
pub struct Ingest {
    store: Content,
    path: PathBuf,
    file: disk::File,
    hash: Sha256,
}

impl Ingest {
    /// Verifies the bytes, brings them to the disk and gives them their name.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::Io`].
    pub fn commit(mut self, wanted: Option<&Digest>) -> Result<Digest, Error> {
        let found = Digest::from_sum(std::mem::take(&mut self.hash).finalize());
        if let Some(wanted) = wanted
            && *wanted != found
        {
            return Err(Error::Mismatch { wanted: wanted.clone(), found });
        }
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        let target = self.store.path(&found);
        disk::rename(&self.path, &target).map_err(Error::io("name", &target))?;
        let dir = &self.store.0.blobs;
        disk::sync_dir(dir).map_err(Error::io("sync", dir))?;
        Ok(found)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After a commit the name is gone, and that is fine.
        let _ = disk::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Content) {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        (dir, content)
    }

    fn ingests(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path().join("ingest")).unwrap().count()
    }

    #[test]
    fn a_blob_comes_back_under_its_digest() {
        let (dir, content) = open();
        let digest = content.put(b"hello").unwrap();
        assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
        assert!(matches!(content.read(&digest, 4), Err(Error::TooLarge { .. })));
        assert_eq!((content.list().unwrap(), ingests(&dir)), (vec![digest], 0));
    }

    #[test]
    fn a_wrong_digest_leaves_nothing() {
        let (dir, content) = open();
        let wanted = Digest::from_sum([0_u8; 32]);
        let mut ingest = content.ingest().unwrap();
        ingest.write_all(b"other").unwrap();
        assert!(matches!(ingest.commit(Some(&wanted)), Err(Error::Mismatch { .. })));
        assert_eq!((content.list().unwrap().len(), ingests(&dir)), (0, 0));
    }

    #[test]
    fn a_damaged_blob_is_told_from_a_whole_one() {
        let (_dir, content) = open();
        let digest = content.put(b"hello").unwrap();
        fs::write(content.path(&digest), b"jello").unwrap();
        assert!(matches!(content.read(&digest, 100), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn a_damaged_blob_is_healed_by_the_right_one() {
        let (_dir, content) = open();
        let digest = content.put(b"hello").unwrap();
        fs::write(content.path(&digest), b"jello").unwrap();
        content.put(b"hello").unwrap();
        assert_eq!(content.read(&digest, 100).unwrap(), b"hello");
    }

    #[test]
    fn unfinished_ingests_are_gone_after_a_start() {
        let (dir, content) = open();
        fs::write(dir.path().join("ingest/7"), b"half").unwrap();
        drop(content);
        Content::open(dir.path()).unwrap();
        assert_eq!(ingests(&dir), 0);
    }
}
