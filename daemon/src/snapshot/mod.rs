//! Filesystem states: committed ones are an image's layers, active ones a container's own, all as overlayfs directories.
//!
//! `ROOT/snapshots/<n>/fs` is a committed layer, recorded by its chain id; `ROOT/snapshots/init/fs` is below every container; `ROOT/snapshots/active/<container id>/{fs,work}` is a
//! container's, found by its name alone: one without a container's record is swept. Nothing is ever mounted in the
//! host's mount namespace: whoever needs the merged view gets mounts to make, or a detached one as a descriptor.
//!
//! ```text
//!  draft() ──▶ Draft ── unpacked, synced ──▶ put(tx), adopt() ──▶ layer ── forget(tx), discard() ──▶ trash ──▶ (gone)
//!                └─ dropped ─▶ trash                              prepare() ─▶ active ── remove() ──▶ trash
//! ```
//! A layer's directory is whole before its record is written, so at start a numbered directory without a record is the
//! rest of an unfinished import and goes to the trash.

pub mod diff;
mod init;
mod layer;
mod merged;
mod nursery;
mod trash;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cleat_proto::{containerd::types::Mount, digest::ChainId, id::ContainerId, kind::Kind};
use cleat_sys::mountapi::Overlay;

use crate::metadata::{self, Database};

pub use layer::{Draft, Layer, Lease};
use nursery::Nursery;
use trash::Trash;

/// Switched off because a layer must be complete by itself: with these an upper directory may hold a file's metadata or
/// a directory's name without what belongs to it.
const OVERLAY_OPTIONS: [&str; 3] = ["redirect_dir=off", "metacopy=off", "index=off"];

/// What can go wrong with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image's layer is not in the store.
    #[error("layer does not exist: {0}")]
    NoLayer(ChainId),
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
    /// The record could not be read or written.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoLayer(_) => Kind::NotFound,
            Self::Io { .. } => Kind::Internal,
            Self::Metadata(error) => error.kind(),
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The store of filesystem states. Clones share it.
#[derive(Clone)]
pub struct Snapshots(Arc<Store>);

struct Store {
    root: PathBuf,
    layers: RwLock<HashMap<ChainId, Arc<Layer>>>,
    leases: layer::Leases,
    /// The number of the next committed layer's directory.
    next: AtomicU64,
    nursery: Nursery,
    trash: Trash,
}

impl Snapshots {
    /// Opens the store in `root` and sweeps what an interrupted import or removal left. A layer whose record or directory is
    /// damaged is left out, with a warning: it makes its images unusable, not the daemon.
    ///
    /// # Errors
    /// [`Error::Io`] if the directories cannot be made, [`Error::Metadata`].
    pub fn open(root: &Path, database: &Database) -> Result<Self, Error> {
        for dir in [root, &root.join("active")] {
            make_private_dir(dir)?;
        }
        let nursery = Nursery::open(&root.join("nursery"))?;
        init::make(&root.join("init/fs"))?;
        let trash = Trash::open(&root.join("trash"))?;
        let layers = layer::load(root, database)?;
        let next = layer::sweep(root, &layers, &trash)?;
        Ok(Self(Arc::new(Store {
            root: root.to_owned(),
            layers: RwLock::new(layers),
            leases: layer::Leases::default(),
            next: AtomicU64::new(next),
            nursery,
            trash,
        })))
    }

    /// Makes a container's own directories above the layers of `top`. One that is there already is kept.
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::Io`].
    pub fn prepare(&self, id: &ContainerId, top: Option<&ChainId>) -> Result<(), Error> {
        if let Some(top) = top {
            self.chain(top)?;
        }
        let dir = self.active(id);
        make_private_dir(&dir)?;
        for name in ["fs", "work"] {
            let path = dir.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(Error::io("make", &path))?,
            }
        }
        // The root directory's own mode: what a process that is not root in the container sees as `/`.
        let root = dir.join("fs");
        set_mode(&root, 0o755)
    }

    /// Returns the mounts that make up a container's root filesystem; the worker mounts them in the container's namespace.
    ///
    /// # Errors
    /// [`Error::NoLayer`].
    pub fn mounts(&self, id: &ContainerId, top: Option<&ChainId>) -> Result<Vec<Mount>, Error> {
        let dir = self.active(id);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let lower: Vec<String> = self.below(top)?.into_iter().map(text).collect();
        let mut options = vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", text(dir.join("fs"))),
            format!("workdir={}", text(dir.join("work"))),
        ];
        options.extend(OVERLAY_OPTIONS.map(str::to_owned));
        Ok(vec![Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options,
        }])
    }

    /// Removes a container's own directories: at once from view, in the background from the disk. What is not there is fine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, id: &ContainerId) -> Result<(), Error> {
        self.0.trash.take(&self.active(id))
    }

    /// Removes the active snapshots of containers that `exists` does not know: what a crash between two steps left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self, exists: impl Fn(&ContainerId) -> bool) -> Result<(), Error> {
        let active = self.0.root.join("active");
        for entry in fs::read_dir(&active).map_err(Error::io("list", &active))? {
            let entry = entry.map_err(Error::io("list", &active))?;
            let id = entry.file_name().to_string_lossy().parse::<ContainerId>();
            if !id.is_ok_and(|id| exists(&id)) {
                self.0.trash.take(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Returns a container's root filesystem as a mount that is attached nowhere: for containers that do not run. (Of one that
    /// runs, `/proc/<pid>/root` is the root, its volumes included.)
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::Io`].
    pub fn open_root(&self, id: &ContainerId, top: Option<&ChainId>) -> Result<OwnedFd, Error> {
        let dir = self.active(id);
        let overlay = Overlay {
            lower: self.below(top)?,
            upper: Some((dir.join("fs"), dir.join("work"))),
            options: OVERLAY_OPTIONS.map(str::to_owned).to_vec(),
        };
        overlay.mount(0).map_err(io::Error::from).map_err(Error::io("mount the layers over", &dir))
    }

    /// As [`Self::open_root`], but nobody can write through it; and so it does not matter whether the container runs: the container's
    /// own directory is one more layer below, and is seen as it changes.
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::Io`].
    pub fn open_root_read_only(
        &self,
        id: &ContainerId,
        top: Option<&ChainId>,
    ) -> Result<OwnedFd, Error> {
        let upper = self.active(id).join("fs");
        let mut lower = vec![upper.clone()];
        lower.extend(self.below(top)?);
        let options = OVERLAY_OPTIONS.map(str::to_owned).to_vec();
        let overlay = Overlay { lower, upper: None, options };
        overlay.mount(0).map_err(io::Error::from).map_err(Error::io("mount the layers of", &upper))
    }

    /// Reads a small regular file of a container that does not run, links followed inside its root. `None` if there is no such
    /// file, or it is no regular one (a FIFO called passwd must not hang anybody).
    ///
    /// # Errors
    /// `FileTooLarge` for more than `limit` bytes, a missing layer, or an I/O error.
    pub fn read_file(
        &self,
        id: &ContainerId,
        top: Option<&ChainId>,
        path: &Path,
        limit: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut dirs = vec![self.active(id).join("fs")];
        dirs.extend(self.below(top).map_err(io::Error::other)?);
        merged::read_file(&dirs, path, limit)
    }

    /// Returns what shows `path` of an image, links followed inside its root: one file or directory, or several directories that are
    /// to be merged, the uppermost first. `None` if there is no such path.
    ///
    /// # Errors
    /// A missing layer, or an I/O error.
    pub fn show(&self, top: Option<&ChainId>, path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        let Some(top) = top else { return Ok(None) };
        merged::show(&self.lower(top).map_err(io::Error::other)?, path)
    }

    /// As [`Self::show`], opened: several directories as one mount that is attached nowhere and that nobody writes to.
    ///
    /// # Errors
    /// A missing layer, or an I/O error.
    pub fn open_shown(&self, top: Option<&ChainId>, path: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(paths) = self.show(top, path)? else { return Ok(None) };
        if let [only] = paths.as_slice() {
            return Ok(Some(merged::open_path(only)?));
        }
        let options = OVERLAY_OPTIONS.map(str::to_owned).to_vec();
        Ok(Some(Overlay { lower: paths, upper: None, options }.mount(0)?))
    }

    /// Returns the directory that a container's changes are in.
    pub fn upper_dir(&self, id: &ContainerId) -> PathBuf {
        self.active(id).join("fs")
    }

    /// Returns the directories of `top` and the layers below it, the topmost first.
    ///
    /// # Errors
    /// [`Error::NoLayer`].
    pub fn lower_dirs(&self, top: &ChainId) -> Result<Vec<PathBuf>, Error> {
        self.lower(top)
    }

    /// Returns the paths that `inspect` shows as the graph driver's: lower directories joined by `:`, upper and work directory.
    ///
    /// # Errors
    /// [`Error::NoLayer`].
    pub fn graph_paths(
        &self,
        id: &ContainerId,
        top: Option<&ChainId>,
    ) -> Result<(String, PathBuf, PathBuf), Error> {
        let lower = self.below(top)?;
        let lower: Vec<_> = lower.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let dir = self.active(id);
        Ok((lower.join(":"), dir.join("fs"), dir.join("work")))
    }

    /// Returns how many bytes a container's own files take (each inode once, directories not counted), as `SizeRw` has it.
    ///
    /// # Errors
    /// An I/O error.
    pub fn usage(&self, id: &ContainerId) -> io::Result<u64> {
        merged::usage(&self.active(id).join("fs"))
    }

    /// Returns what the filesystem of the layers has left for root; `None` if it does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.0.root).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }

    /// Returns how much of the filesystem of the layers is taken, in percent, as `df` has it; `None` if it does not say. What was
    /// removed before is gone by then. Blocks.
    pub fn taken_percent(&self) -> Option<u8> {
        self.0.trash.wait();
        // Some filesystems count what was removed only then.
        let synced = merged::open_dir(&self.0.root)
            .and_then(|root| crate::disk::sync_filesystem(root, &self.0.root));
        if let Err(error) = synced {
            tracing::warn!(%error, "the filesystem of the layers cannot be synced");
        }
        let stat = nix::sys::statvfs::statvfs(&self.0.root).ok()?;
        percent(stat.blocks().saturating_sub(stat.blocks_free()), stat.blocks_available())
    }

    fn active(&self, id: &ContainerId) -> PathBuf {
        self.0.root.join("active").join(id.as_str())
    }

    /// What a container's own directory stands on: its image's layers, and below all of them what every container has.
    fn below(&self, top: Option<&ChainId>) -> Result<Vec<PathBuf>, Error> {
        let mut dirs = top.map(|top| self.lower(top)).transpose()?.unwrap_or_default();
        dirs.push(self.0.root.join("init/fs"));
        Ok(dirs)
    }

    /// Returns what a container changed.
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::Io`].
    pub fn changes(
        &self,
        id: &ContainerId,
        top: Option<&ChainId>,
    ) -> Result<Vec<diff::Change>, Error> {
        let upper = self.active(id).join("fs");
        diff::changes(&upper, &self.below(top)?).map_err(Error::io("compare", &upper))
    }

    fn lower(&self, top: &ChainId) -> Result<Vec<PathBuf>, Error> {
        let chain = self.chain(top)?;
        Ok(chain.iter().map(|layer| layer.dir(&self.0.root).join("fs")).collect())
    }

    fn next_number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// How much is taken of what there is for users, rounded up.
fn percent(taken: u64, free: u64) -> Option<u8> {
    let (taken, all) = (u128::from(taken), u128::from(taken) + u128::from(free));
    u8::try_from((taken * 100).div_ceil(all.max(1))).ok()
}

fn make_private_dir(path: &Path) -> Result<(), Error> {
    crate::disk::make_private_dir(path).map_err(Error::io("make", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

#[cfg(test)]
mod tests;
