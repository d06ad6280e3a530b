//! What the store does to the disk: each lasting step of content, snapshots and the database goes through here.
//!
//! In a release these are the system calls and nothing else. A debug build raises SIGKILL on itself at the N-th of them if
//! `CLEAT_FAULT` is `disk N`. In tests of this crate `faults.rs` counts them below a root, and can fail the N-th, end there, or
//! take back what no sync had brought to the disk: a power cut.

#[cfg(test)]
pub mod faults;

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::Path,
};

#[cfg(test)]
use faults::Step;

/// Says that a step is about to be done; in a release nothing.
macro_rules! about_to {
    ($step:expr) => {
        #[cfg(debug_assertions)]
        end_daemon_if_asked();
        #[cfg(test)]
        faults::before(&$step)?;
    };
}

/// A file of the store that is written.
#[derive(Debug)]
pub struct File {
    inner: fs::File,
    #[cfg(test)]
    path: std::path::PathBuf,
}

impl File {
    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        about_to!(Step::Make(path));
        Ok(Self::of(fs::File::create_new(path)?, path))
    }

    /// Opens a file to read it and to add to its end; makes it if it is not there.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.read(true).append(true);
        if !path.exists() {
            about_to!(Step::Make(path));
            options.create(true);
        }
        Ok(Self::of(options.open(path)?, path))
    }

    #[cfg_attr(not(test), expect(unused_variables, reason = "only faults need it"))]
    fn of(inner: fs::File, path: &Path) -> Self {
        Self {
            inner,
            #[cfg(test)]
            path: path.to_owned(),
        }
    }

    /// Returns what is known of it.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn metadata(&self) -> io::Result<fs::Metadata> {
        self.inner.metadata()
    }

    /// Cuts it, or makes it longer.
    ///
    /// # Errors
    /// Those of `ftruncate(2)`.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        about_to!(Step::Write(&self.path));
        self.inner.set_len(length)
    }

    /// Brings its bytes to the disk.
    ///
    /// # Errors
    /// Those of `fdatasync(2)`.
    pub fn sync_data(&self) -> io::Result<()> {
        about_to!(Step::SyncFile(&self.path));
        self.inner.sync_data()?;
        #[cfg(test)]
        faults::after(&Step::SyncFile(&self.path));
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        about_to!(Step::Write(&self.path));
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Makes a directory that only root may enter, and those above it. One that is there is fine.
///
/// # Errors
/// Those of `mkdir(2)`.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    about_to!(Step::Make(path));
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// Gives a file or a directory another name.
///
/// # Errors
/// Those of `rename(2)`.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    about_to!(Step::Rename(from, to));
    fs::rename(from, to)
}

/// Removes a file.
///
/// # Errors
/// Those of `unlink(2)`.
pub fn remove_file(path: &Path) -> io::Result<()> {
    about_to!(Step::Remove(path));
    fs::remove_file(path)
}

/// Removes a directory with all that is in it, whenever that may be: nothing depends on it.
///
/// # Errors
/// Those of the removal.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if faults::are_counted(path) {
        // As if the thread that does this had not come to it.
        return Ok(());
    }
    fs::remove_dir_all(path)
}

/// Brings the names in a directory to the disk.
///
/// # Errors
/// Those of `fsync(2)`.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    about_to!(Step::SyncDir(path));
    fs::File::open(path)?.sync_all()?;
    #[cfg(test)]
    faults::after(&Step::SyncDir(path));
    Ok(())
}

/// Brings all of a filesystem to the disk: that of `any`, which is at `path`.
///
/// # Errors
/// Those of `syncfs(2)`.
#[cfg_attr(not(test), expect(unused_variables, reason = "only faults need it"))]
pub fn sync_filesystem(any: impl AsFd, path: &Path) -> io::Result<()> {
    about_to!(Step::SyncAll(path));
    nix::unistd::syncfs(any)?;
    #[cfg(test)]
    faults::after(&Step::SyncAll(path));
    Ok(())
}

/// Says that something below `tree` is about to change, which the next [`sync_filesystem`] brings to the disk.
///
/// # Errors
/// Only where a test wants one.
#[cfg_attr(not(test), expect(unused_variables, reason = "only faults need it"))]
pub fn change(tree: &Path) -> io::Result<()> {
    about_to!(Step::Change(tree));
    Ok(())
}

/// Says that the database is about to commit, or has just done so: the end of the daemon between two commits.
pub fn commit() {
    #[cfg(debug_assertions)]
    end_daemon_if_asked();
}

/// Ends the daemon, as SIGKILL does, at the step that `CLEAT_FAULT` names: `disk N`.
#[cfg(debug_assertions)]
fn end_daemon_if_asked() {
    use std::sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    };
    static LEFT: OnceLock<Option<AtomicI64>> = OnceLock::new();
    let left = LEFT.get_or_init(|| {
        let text = std::env::var("CLEAT_FAULT").ok()?;
        text.strip_prefix("disk ")?.parse().ok().map(AtomicI64::new)
    });
    if left.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) == 1) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
