//! A blob that is still coming: what is there of it stays, until it is whole and used, or wrong.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use cleat_proto::digest::Digest;

use super::{Content, Error};
use crate::disk;

const SUFFIX: &str = "partial";
/// What nobody has gone on with for so long is not kept over a start.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What has come of a blob.
pub struct Partial {
    path: PathBuf,
    file: disk::File,
    length: u64,
}

/// Whether a file of the ingest directory is a partial that may still be of use.
pub(super) fn is_fresh(path: &Path) -> bool {
    let is_partial = path.extension().is_some_and(|extension| extension == SUFFIX);
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    // A time in the future is a clock that was set: not fresh.
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    is_partial && age.is_some_and(|age| age < KEPT)
}

impl Content {
    /// Opens what there is of a blob; at first that is nothing. One at a time may have it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn partial(&self, digest: &Digest) -> Result<Partial, Error> {
        let path = self.0.ingest.join(format!("{}.{SUFFIX}", digest.hex()));
        let file = disk::File::append(&path).map_err(Error::io("open", &path))?;
        let length = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok(Partial { path, file, length })
    }

    /// Returns how much there is of a blob.
    pub fn partial_length(&self, digest: &Digest) -> u64 {
        let path = self.0.ingest.join(format!("{}.{SUFFIX}", digest.hex()));
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Removes all partials that `keep` does not want: nobody is going on with them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_partials(&self, keep: &dyn Fn(&str) -> bool) -> Result<u64, Error> {
        let dir = &self.0.ingest;
        let mut bytes = 0;
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(hex) = name.strip_suffix(&format!(".{SUFFIX}")) else { continue };
            if !keep(hex) {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                disk::remove_file(&entry.path()).map_err(Error::io("remove", &entry.path()))?;
            }
        }
        Ok(bytes)
    }

    /// Returns how many bytes of partials there are.
    #[cfg(test)]
    pub fn partial_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.0.ingest).into_iter().flatten().flatten();
        entries.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
    }
}

impl Partial {
    /// Returns how many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads all that is there from the start, in pieces of at most `piece` bytes.
    ///
    /// # Errors
    /// Those of the file, or of `take`.
    pub fn read(
        &mut self,
        piece: usize,
        mut take: impl FnMut(Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.file.rewind()?;
        let mut left = self.length;
        while left > 0 {
            let mut bytes = Vec::with_capacity(piece);
            let piece = left.min(piece as u64);
            let count = (&mut self.file).take(piece).read_to_end(&mut bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count as u64;
            take(bytes)?;
        }
        Ok(())
    }

    /// Adds to its end.
    ///
    /// # Errors
    /// Those of the file.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("empty", &self.path))?;
        self.length = 0;
        Ok(())
    }

    /// Removes it: whole and used, or wrong.
    pub fn remove(self) {
        if let Err(error) = disk::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a partial blob stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_is_there_after_a_start_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::from_sum([1; 32]);
        let content = Content::open(dir.path()).unwrap();
        content.partial(&digest).unwrap().append(b"half").unwrap();
        drop(content);
        let content = Content::open(dir.path()).unwrap();
        let mut partial = content.partial(&digest).unwrap();
        let mut read = Vec::new();
        partial
            .read(3, |bytes| {
                read.push(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(read, [b"hal".to_vec(), b"f".to_vec()]);
        partial.remove();
        assert_eq!(content.partial_bytes(), 0);
    }

    #[test]
    fn what_nobody_goes_on_with_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let [kept, gone] = [1, 2].map(|n| Digest::from_sum([n; 32]));
        content.partial(&kept).unwrap().append(b"kept").unwrap();
        content.partial(&gone).unwrap().append(b"gone!").unwrap();
        assert_eq!(content.remove_partials(&|hex| hex == kept.hex()).unwrap(), 5);
        assert_eq!(content.partial_bytes(), 4);
    }
}
