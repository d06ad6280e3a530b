//! Faults of the disk, for tests: counted steps below a root, of which the N-th fails or is the last.
//!
//! ```text
//!  arm(root, N, Fault) ─▶ steps 1 … N−1 are done ─▶ step N fails (once, or it and all after it) ─▶ power_cut(Loss) ─▶ disarm
//! ```
//! What a power cut takes is what no sync has covered. POSIX promises nothing about it, so both ends of what filesystems
//! do are tried: [`Loss::Names`], as if none of it had ever been, and [`Loss::Bytes`], where every name is there and every
//! byte is zero, or the file is empty. The database's writes are taken back all, or every other one.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// A lasting step.
#[derive(Debug)]
pub enum Step<'a> {
    /// A new file or directory.
    Make(&'a Path),
    /// Bytes, or a length, of a file.
    Write(&'a Path),
    /// Anything below a directory.
    Change(&'a Path),
    /// Another name.
    Rename(&'a Path, &'a Path),
    /// A name less.
    Remove(&'a Path),
    /// A file's bytes reach the disk.
    SyncFile(&'a Path),
    /// A directory's names do.
    SyncDir(&'a Path),
    /// Everything does.
    SyncAll(&'a Path),
}

impl Step<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Make(path)
            | Self::Write(path)
            | Self::Change(path)
            | Self::Rename(path, _)
            | Self::Remove(path)
            | Self::SyncFile(path)
            | Self::SyncDir(path)
            | Self::SyncAll(path) => path,
        }
    }
}

/// What happens at the N-th step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It alone fails, with an I/O error.
    Once,
    /// The disk is full from then on: what needs space fails.
    Full,
    /// It and all that follow are never done: the end of the daemon, or of the power.
    End,
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was never there.
    Names,
    /// Names are there, bytes are not.
    Bytes,
}

/// What is done and not yet on the disk.
#[derive(Debug)]
enum Undo {
    Made(PathBuf),
    /// A file had this length on the disk.
    Written(PathBuf, u64),
    Changed(PathBuf),
    /// What was at the new name is kept under a third.
    Renamed(PathBuf, PathBuf, Option<PathBuf>),
    Removed(PathBuf, PathBuf),
    /// A piece of a file as it was.
    Piece(PathBuf, u64, Vec<u8>),
    Length(PathBuf, u64),
}

#[derive(Debug)]
struct State {
    count: u64,
    over: bool,
    undo: Vec<Undo>,
    kept: u64,
    syncs: Syncs,
}

/// How often the disk was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syncs {
    /// Files alone; the database's are its own affair.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything at once.
    pub all: u64,
}

/// A root whose steps are counted.
#[derive(Debug)]
pub struct Faults {
    root: PathBuf,
    at: u64,
    fault: Fault,
    state: Mutex<State>,
}

static ANY: AtomicBool = AtomicBool::new(false);
static ALL: Mutex<Vec<Arc<Faults>>> = Mutex::new(Vec::new());

/// Counts the steps below `root` from now on; the one of number `at` has the fault.
pub fn arm(root: &Path, at: u64, fault: Fault) -> Arc<Faults> {
    let state = State { count: 0, over: false, undo: Vec::new(), kept: 0, syncs: Syncs::default() };
    let faults = Arc::new(Faults { root: root.to_owned(), at, fault, state: Mutex::new(state) });
    all().push(Arc::clone(&faults));
    ANY.store(true, Ordering::SeqCst);
    faults
}

fn all() -> std::sync::MutexGuard<'static, Vec<Arc<Faults>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of(path: &Path) -> Option<Arc<Faults>> {
    if !ANY.load(Ordering::SeqCst) {
        return None;
    }
    all().iter().find(|faults| path.starts_with(&faults.root)).cloned()
}

/// Whether the steps at this path are counted.
pub fn are_counted(path: &Path) -> bool {
    of(path).is_some()
}

/// Comes before every step.
pub(super) fn before(step: &Step<'_>) -> io::Result<()> {
    match of(step.path()) {
        Some(faults) => faults.before(step),
        None => Ok(()),
    }
}

/// Comes after a sync that was done.
pub(super) fn after(step: &Step<'_>) {
    if let Some(faults) = of(step.path()) {
        faults.synced(step);
    }
}

impl Faults {
    /// Whether the N-th step has come.
    pub fn was_met(&self) -> bool {
        self.lock().count >= self.at
    }

    /// Returns how often something was brought to the disk so far.
    pub fn syncs(&self) -> Syncs {
        self.lock().syncs
    }

    /// Stops counting.
    pub fn disarm(self: &Arc<Self>) {
        let mut all = all();
        all.retain(|other| !Arc::ptr_eq(self, other));
        ANY.store(!all.is_empty(), Ordering::SeqCst);
    }

    /// Takes back what was not on the disk. Whoever has the store must be gone.
    pub fn power_cut(&self, loss: Loss) -> io::Result<()> {
        let mut state = self.lock();
        state.over = true;
        let undo = std::mem::take(&mut state.undo);
        drop(state);
        for (number, undo) in undo.into_iter().rev().enumerate() {
            match loss {
                Loss::Names => take_back(undo)?,
                Loss::Bytes => hollow(undo, number)?,
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before(&self, step: &Step<'_>) -> io::Result<()> {
        let mut state = self.lock();
        self.count(&mut state, step)?;
        self.note(&mut state, step)
    }

    /// Counts a step; an error if it is not to be done.
    fn count(&self, state: &mut State, step: &Step<'_>) -> io::Result<()> {
        state.count += 1;
        match self.fault {
            Fault::Once if state.count == self.at => return Err(nix::errno::Errno::EIO.into()),
            Fault::Full
                if state.count >= self.at
                    && matches!(step, Step::Make(_) | Step::Write(_) | Step::Change(_)) =>
            {
                return Err(nix::errno::Errno::ENOSPC.into());
            }
            Fault::End if state.over || state.count >= self.at => {
                state.over = true;
                return Err(nix::errno::Errno::EIO.into());
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&self, state: &mut State, step: &Step<'_>) -> io::Result<()> {
        let mut keep = |path: &Path| -> io::Result<Option<PathBuf>> {
            if !path.is_file() {
                return Ok(None);
            }
            state.kept += 1;
            let kept = self.root.join(format!(".kept-{}", state.kept));
            fs::hard_link(path, &kept)?;
            Ok(Some(kept))
        };
        let undo = match step {
            Step::Make(path) => Some(Undo::Made(path.to_path_buf())),
            Step::Write(path) => {
                let is_known = state.undo.iter().any(
                    |undo| matches!(undo, Undo::Written(known, _) if known.as_path() == *path),
                );
                let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
                (!is_known).then(|| Undo::Written(path.to_path_buf(), length))
            }
            Step::Change(path) => {
                let is_known = state
                    .undo
                    .iter()
                    .any(|undo| matches!(undo, Undo::Changed(known) if known.as_path() == *path));
                (!is_known).then(|| Undo::Changed(path.to_path_buf()))
            }
            Step::Rename(from, to) => {
                let kept = keep(to)?;
                state.undo.iter_mut().for_each(|undo| undo.rename(from, to));
                Some(Undo::Renamed(from.to_path_buf(), to.to_path_buf(), kept))
            }
            Step::Remove(path) => keep(path)?.map(|kept| Undo::Removed(path.to_path_buf(), kept)),
            Step::SyncFile(_) | Step::SyncDir(_) | Step::SyncAll(_) => None,
        };
        state.undo.extend(undo);
        Ok(())
    }

    fn synced(&self, step: &Step<'_>) {
        let mut state = self.lock();
        let syncs = &mut state.syncs;
        match step {
            Step::SyncFile(path) if path.ends_with("meta.redb") => {}
            Step::SyncFile(_) => syncs.files += 1,
            Step::SyncDir(_) => syncs.directories += 1,
            _ => syncs.all += 1,
        }
        let gone =
            |kept: &Option<PathBuf>| kept.iter().for_each(|kept| drop(fs::remove_file(kept)));
        state.undo.retain(|undo| match (step, undo) {
            // The database is synced by itself alone.
            (Step::SyncFile(path), Undo::Piece(file, ..) | Undo::Length(file, _)) => file != path,
            (_, Undo::Piece(..) | Undo::Length(..)) => true,
            (Step::SyncFile(path), Undo::Made(file) | Undo::Written(file, _)) => file != path,
            (Step::SyncDir(dir), Undo::Renamed(_, to, kept)) => {
                let is_here = to.parent() == Some(*dir);
                if is_here {
                    gone(kept);
                }
                !is_here
            }
            (Step::SyncDir(dir), Undo::Removed(path, kept)) => {
                let is_here = path.parent() == Some(*dir);
                if is_here {
                    let _ = fs::remove_file(kept);
                }
                !is_here
            }
            (Step::SyncDir(dir), Undo::Made(path)) => path.parent() != Some(*dir),
            (Step::SyncAll(_), Undo::Renamed(_, _, kept)) => {
                gone(kept);
                false
            }
            (Step::SyncAll(_), Undo::Removed(_, kept)) => {
                let _ = fs::remove_file(kept);
                false
            }
            (Step::SyncAll(_), _) => false,
            _ => true,
        });
    }
}

impl Undo {
    /// Follows a path that gets another name.
    fn rename(&mut self, from: &Path, to: &Path) {
        let (Self::Made(path) | Self::Written(path, _) | Self::Changed(path)) = self else {
            return;
        };
        if let Ok(rest) = path.strip_prefix(from) {
            *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
        }
    }
}

fn is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn take_back(undo: Undo) -> io::Result<()> {
    is_fine(match undo {
        Undo::Made(path) if path.is_dir() => fs::remove_dir_all(path),
        Undo::Made(path) => fs::remove_file(path),
        Undo::Written(path, length) => fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(length.min(file.metadata()?.len()))),
        Undo::Changed(tree) => fs::remove_dir_all(tree.join("fs")),
        Undo::Renamed(from, to, kept) => {
            fs::rename(&to, from).and_then(|()| kept.map_or(Ok(()), |kept| fs::rename(kept, &to)))
        }
        Undo::Removed(path, kept) => fs::rename(kept, path),
        Undo::Piece(path, at, bytes) => put(&path, at, &bytes),
        Undo::Length(path, length) => set_len(&path, length),
    })
}

fn hollow(undo: Undo, number: usize) -> io::Result<()> {
    is_fine(match undo {
        Undo::Written(path, length) => {
            fs::OpenOptions::new().write(true).open(path).and_then(|file| {
                let whole = file.metadata()?.len();
                file.set_len(length.min(whole))?;
                file.set_len(whole)
            })
        }
        Undo::Changed(tree) => empty_files(&tree),
        Undo::Piece(path, at, bytes) if number.is_multiple_of(2) => put(&path, at, &bytes),
        Undo::Renamed(_, _, Some(kept)) | Undo::Removed(_, kept) => fs::remove_file(kept),
        _ => Ok(()),
    })
}

fn put(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all_at(bytes, at)
}

fn set_len(path: &Path, length: u64) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.set_len(length)
}

fn empty_files(tree: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            empty_files(&entry.path())?;
        } else if kind.is_file() {
            fs::File::create(entry.path())?.flush()?;
        }
    }
    Ok(())
}

/// The database's file, with the same faults. It takes no lock.
#[derive(Debug)]
pub struct Backend {
    file: fs::File,
    path: PathBuf,
}

impl Backend {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Notes how to take a change back, before it is made.
    fn before(&self, undo: Undo) -> io::Result<()> {
        let Some(faults) = of(&self.path) else { return Ok(()) };
        let mut state = faults.lock();
        faults.count(&mut state, &Step::Write(&self.path))?;
        state.undo.push(undo);
        Ok(())
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.before(Undo::Length(self.path.clone(), self.len()?))?;
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let step = Step::SyncFile(&self.path);
        let Some(faults) = of(&self.path) else { return self.file.sync_data() };
        faults.count(&mut faults.lock(), &step)?;
        self.file.sync_data()?;
        faults.synced(&step);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut before = vec![0; data.len()];
        self.file.read_exact_at(&mut before, offset)?;
        self.before(Undo::Piece(self.path.clone(), offset, before))?;
        self.file.write_all_at(data, offset)
    }
}
