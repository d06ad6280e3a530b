//! Copy-up: a new, empty volume is filled from what the image has at the place where it is mounted.
//!
//! While that goes on, a [`MARK`] lies beside the volume's directory. One that is there at the beginning says that a copy was
//! cut short: then it is done again, and what it made before is replaced. Files of other names are left alone: another
//! container may use the volume already.
//!
//! Both trees may belong to containers that run: every step goes from a directory's descriptor to a name in it, and follows
//! no link. The one exception is the path of the place itself, whose links are followed inside the container's root, as
//! the mount will do.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use cleat_sys::{openat2::open_in_root, xattr};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
            futimens, mkdirat, mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, syncfs, unlinkat},
};

/// How deep a tree may be: each level costs two descriptors.
const DEPTH_MAX: usize = 400;
/// How many files with several names are remembered at a time; what is beyond becomes a copy of its own.
const LINKS_MAX: usize = 256;

/// The name of the mark, beside the volume's directory.
const MARK: &str = ".filling";

/// Fills the empty directory `volume` from `path` of the filesystem under `root`, owner, mode, times and xattrs included,
/// and answers whether there was something. A `volume` that is not empty is left alone, unless a copy was cut short.
/// `step` is called behind each entry. No link leads out of `root`.
///
/// # Errors
/// Whatever a file operation returned.
pub fn copy_up(
    root: BorrowedFd<'_>,
    path: &Path,
    volume: &Path,
    step: &dyn Fn(),
) -> io::Result<bool> {
    if !needs_filling(volume)? {
        return Ok(false);
    }
    let mark = mark_of(volume);
    // The volume's own path is the daemon's or the administrator's: it may lead through links.
    let volume = nix::fcntl::open(volume, directory_flags() - OFlag::O_NOFOLLOW, Mode::empty())?;
    let flags = (OFlag::O_RDONLY | OFlag::O_DIRECTORY).bits();
    let source = match open_in_root(root, path, flags, 0) {
        // Nothing is there, or a file: the mount itself will say what it thinks of that.
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
        other => other?,
    };
    let again = mark.exists();
    if !again {
        File::create_new(&mark)?;
        sync_parent(&mark)?;
    }
    let mut copy = Copy { links: HashMap::new(), again, step };
    copy.directory(&source, &volume, 0)?;
    // The bytes are to be there when the mark is not.
    syncfs(&volume)?;
    std::fs::remove_file(&mark)?;
    Ok(true)
}

/// Whether a volume is to be filled: its directory has nothing in it, or what it has was cut short.
///
/// # Errors
/// Whatever a file operation returned; a missing directory is empty.
pub fn needs_filling(volume: &Path) -> io::Result<bool> {
    Ok(is_empty_volume(volume)? || mark_of(volume).exists())
}

fn mark_of(volume: &Path) -> PathBuf {
    volume.with_file_name(MARK)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Whether a volume's directory has nothing in it: only then there is something to copy up.
///
/// # Errors
/// Whatever a file operation returned; a missing directory is empty.
fn is_empty_volume(volume: &Path) -> io::Result<bool> {
    match nix::fcntl::open(volume, directory_flags() - OFlag::O_NOFOLLOW, Mode::empty()) {
        Err(Errno::ENOENT) => Ok(true),
        other => is_empty(&other?),
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    Ok(names(directory)?.is_empty())
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    // A descriptor of its own: reading moves the offset that clones share.
    let mut directory = Dir::openat(directory, ".", directory_flags(), Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

struct Copy<'a> {
    /// The copies of files that have further names in the source.
    links: HashMap<(u64, u64), OwnedFd>,
    /// What is there already may be half of what it should be.
    again: bool,
    step: &'a dyn Fn(),
}

impl Copy<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("the directories are nested too deeply"));
        }
        for name in names(from)? {
            self.entry(from, to, &name, depth).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
            })?;
            (self.step)();
        }
        // Last: the time of a directory changes with what is put into it.
        let stat = fstat(from)?;
        set_attributes(from, to, &stat)
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if self.again {
            remove_file(to, name)?;
        }
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => {
                let from = openat(from, name, directory_flags(), Mode::empty())?;
                match mkdirat(to, name, Mode::S_IRWXU) {
                    Err(Errno::EEXIST) if self.again => {}
                    other => other?,
                }
                let to = openat(to, name, directory_flags(), Mode::empty())?;
                self.directory(&from, &to, depth + 1)
            }
            SFlag::S_IFREG => self.regular(from, to, name),
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name)?;
                symlinkat(target.as_os_str(), to, name)?;
                set_owner_and_times(to, name, &stat)
            }
            kind => {
                mknodat(to, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, stat.st_rdev)?;
                set_owner_and_times(to, name, &stat)?;
                let mode = mode_of(&stat);
                Ok(fchmodat(to, name, mode, FchmodatFlags::NoFollowSymlink)?)
            }
        }
    }

    fn regular(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
        // What was a file a moment ago may be a FIFO now: do not wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut source = File::from(openat(from, name, flags, Mode::empty())?);
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it changed while it was copied"));
        }
        let key = (metadata.dev(), metadata.ino());
        if let Some(first) = self.links.get(&key) {
            return Ok(linkat(first, c"", to, name, AtFlags::AT_EMPTY_PATH)?);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut copy = File::from(openat(to, name, flags | OFlag::O_CLOEXEC, mode)?);
        io::copy(&mut source, &mut copy)?;
        let stat = fstat(&source)?;
        set_attributes(&source, &copy, &stat)?;
        if metadata.nlink() > 1 && self.links.len() < LINKS_MAX {
            self.links.insert(key, copy.into());
        }
        Ok(())
    }
}

/// Removes what is no directory.
fn remove_file(directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT | Errno::EISDIR) => Ok(()),
        other => Ok(other?),
    }
}

/// Owner first, since it clears set-id bits and capabilities; times last.
fn set_attributes(from: &impl AsFd, to: &impl AsFd, stat: &FileStat) -> io::Result<()> {
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, mode_of(stat))?;
    for name in xattr::list(from)? {
        // Overlayfs's own bookkeeping means something else elsewhere.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(from, &name)? {
            match xattr::set(to, &name, &value) {
                Err(Errno::ENOTSUP) => {}
                other => other?,
            }
        }
    }
    let (accessed, modified) = times_of(stat);
    Ok(futimens(to, &accessed, &modified)?)
}

fn set_owner_and_times(directory: &OwnedFd, name: &CStr, stat: &FileStat) -> io::Result<()> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let (accessed, modified) = times_of(stat);
    Ok(utimensat(directory, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

fn mode_of(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn times_of(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    };

    struct Trees {
        dir: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("root/data")).unwrap();
            fs::create_dir(dir.path().join("volume")).unwrap();
            Self { dir }
        }

        fn root(&self, path: &str) -> std::path::PathBuf {
            self.dir.path().join("root").join(path)
        }

        fn volume(&self, path: &str) -> std::path::PathBuf {
            self.dir.path().join("volume").join(path)
        }

        fn copy(&self, path: &str) -> bool {
            let root = File::open(self.root("")).unwrap();
            let volume = self.dir.path().join("volume");
            copy_up(root.as_fd(), Path::new(path), &volume, &|| ()).unwrap()
        }
    }

    #[test]
    fn everything_is_copied_as_it_is() {
        let trees = Trees::new();
        let file = trees.root("data/file");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
        xattr::set(File::open(&file).unwrap(), b"trusted.mine", b"1").unwrap();
        fs::hard_link(&file, trees.root("data/other")).unwrap();
        symlink("/etc/passwd", trees.root("data/link")).unwrap();
        fs::create_dir(trees.root("data/sub")).unwrap();
        fs::write(trees.root("data/sub/x"), "").unwrap();
        nix::unistd::mkfifo(&trees.root("data/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
        fs::set_permissions(trees.root("data"), fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(trees.root("data"), Some(5), Some(6)).unwrap();

        assert!(trees.copy("/data"));

        let copied = fs::metadata(trees.volume("file")).unwrap();
        let original = fs::metadata(&file).unwrap();
        assert_eq!((copied.mode(), copied.uid(), copied.gid()), (0o104_750, 7, 8));
        assert_eq!(copied.mtime_nsec(), original.mtime_nsec());
        assert_eq!(copied.ino(), fs::metadata(trees.volume("other")).unwrap().ino());
        let value = xattr::get(File::open(trees.volume("file")).unwrap(), b"trusted.mine");
        assert_eq!(value.unwrap().unwrap(), b"1");
        assert_eq!(fs::read_link(trees.volume("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(trees.volume("sub/x").is_file());
        let fifo = fs::metadata(trees.volume("fifo")).unwrap();
        assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o777 == 0o640);
        let top = fs::metadata(trees.volume("")).unwrap();
        assert_eq!((top.mode() & 0o7777, top.uid(), top.gid()), (0o1777, 5, 6));
    }

    #[test]
    fn a_volume_with_something_in_it_is_left_alone() {
        let trees = Trees::new();
        fs::write(trees.root("data/file"), "text").unwrap();
        fs::write(trees.volume("own"), "").unwrap();
        assert!(!trees.copy("/data"));
        assert!(!trees.volume("file").exists());
    }

    #[test]
    fn a_copy_that_was_cut_short_is_done_again() {
        let trees = Trees::new();
        fs::create_dir(trees.root("data/sub")).unwrap();
        for file in ["data/file", "data/sub/x"] {
            fs::write(trees.root(file), "whole").unwrap();
        }
        fs::create_dir(trees.volume("sub")).unwrap();
        for half in ["file", "sub/x"] {
            fs::write(trees.volume(half), "wh").unwrap();
        }
        fs::write(trees.volume("own"), "kept").unwrap();
        fs::write(trees.dir.path().join(MARK), "").unwrap();
        assert!(trees.copy("/data"));
        for (file, text) in [("file", "whole"), ("sub/x", "whole"), ("own", "kept")] {
            assert_eq!(fs::read_to_string(trees.volume(file)).unwrap(), text);
        }
        assert!(!trees.dir.path().join(MARK).exists());
        assert!(!trees.copy("/data"));
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let trees = Trees::new();
        fs::create_dir(trees.dir.path().join("secret")).unwrap();
        fs::write(trees.dir.path().join("secret/key"), "key").unwrap();
        symlink(trees.dir.path().join("secret"), trees.root("absolute")).unwrap();
        symlink("../secret", trees.root("relative")).unwrap();
        symlink("/data", trees.root("inside")).unwrap();
        fs::write(trees.root("data/file"), "text").unwrap();
        assert!(!trees.copy("/absolute"));
        assert!(!trees.copy("/relative"));
        assert!(!trees.copy("/../secret"));
        assert!(!trees.copy("/data/file"));
        assert!(!trees.copy("/missing"));
        assert!(is_empty_volume(&trees.volume("")).unwrap());
        assert!(trees.copy("/inside"));
        assert!(trees.volume("file").is_file());
    }
}
