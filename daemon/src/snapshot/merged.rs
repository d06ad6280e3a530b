//! The merged view of a stack of overlay directories, read without a mount: a small file, a sum of sizes.
//!
//! The rules are overlayfs's (kernel, Documentation/filesystems/overlayfs.rst): the uppermost entry counts, a character device
//! 0/0 is a whiteout, directories merge down to one that is opaque.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use cleat_sys::xattr;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::Mode,
};

/// As the kernel's `MAXSYMLINKS`.
const LINKS_MAX: u32 = 40;
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The directories, one per layer, that make up one directory of the view; the uppermost first.
pub(super) type Merged = Vec<Arc<OwnedFd>>;

/// Opens a directory for look-ups.
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Opens a file or directory as it is, for nothing but looking further.
pub(super) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Reads a regular file of the view of `dirs`; see [`super::Snapshots::read_file`].
pub(super) fn read_file(dirs: &[PathBuf], path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let root: Merged =
        dirs.iter().map(|dir| open_dir(dir).map(Arc::new)).collect::<io::Result<_>>()?;
    match find(&root, path)? {
        Some(Found::Other(fd)) => read_regular(&fd, limit),
        Some(Found::Directory(_)) | None => Ok(None),
    }
}

/// Returns what makes up a path of the view of `dirs`; see [`super::Snapshots::show`].
pub(super) fn show(dirs: &[PathBuf], path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let root: Merged =
        dirs.iter().map(|dir| open_dir(dir).map(Arc::new)).collect::<io::Result<_>>()?;
    let of = |fd: &OwnedFd| {
        fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)))
    };
    Ok(match find(&root, path)? {
        Some(Found::Directory(dirs)) => {
            Some(dirs.iter().map(|dir| of(dir)).collect::<io::Result<_>>()?)
        }
        Some(Found::Other(fd)) => Some(vec![of(&fd)?]),
        None => None,
    })
}

fn read_regular(fd: &OwnedFd, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // The O_PATH descriptor is asked first: opening a device or a FIFO has effects of its own.
    let seen = File::from(fd.try_clone()?).metadata()?;
    if !seen.is_file() {
        return Ok(None);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
    let file = File::from(nix::fcntl::open(path.as_str(), flags, Mode::empty())?);
    let mut bytes = Vec::with_capacity(seen.len().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(Some(bytes))
}

/// What a name in the view is.
pub(super) enum Found {
    Directory(Merged),
    /// An `O_PATH` descriptor.
    Other(OwnedFd),
}

/// Looks a path up as a process in the view would, links included.
fn find(root: &Merged, path: &Path) -> io::Result<Option<Found>> {
    use std::os::unix::ffi::OsStrExt;
    let mut pending = components(path.as_os_str().as_bytes());
    let mut stack: Vec<Merged> = vec![root.clone()];
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = stack.last().expect("the root is never popped");
        match look_up(here, &name)? {
            None => return Ok(None),
            Some(Found::Directory(merged)) => stack.push(merged),
            Some(Found::Other(fd)) => {
                if !is_link(&fd)? {
                    return Ok(pending.is_empty().then_some(Found::Other(fd)));
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP.into());
                }
                let target = readlinkat(&fd, "")?;
                if target.as_bytes().starts_with(b"/") {
                    stack.truncate(1);
                }
                pending.extend(components(target.as_bytes()));
            }
        }
    }
    Ok(stack.pop().map(Found::Directory))
}

/// Splits a path into its names, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").rev().map(<[u8]>::to_vec).collect()
}

fn is_link(fd: &OwnedFd) -> io::Result<bool> {
    Ok(File::from(fd.try_clone()?).metadata()?.is_symlink())
}

/// Looks one name up in a directory of the view.
pub(super) fn look_up(dirs: &Merged, name: &[u8]) -> io::Result<Option<Found>> {
    let mut merged = Merged::new();
    for dir in dirs {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        let meta = File::from(fd.try_clone()?).metadata()?;
        if meta.is_dir() {
            let opaque = is_opaque(&fd)?;
            merged.push(Arc::new(fd));
            if opaque {
                break;
            }
        } else if !merged.is_empty() || meta.file_type().is_char_device() && meta.rdev() == 0 {
            // A file below a directory is hidden by it; a whiteout hides all below.
            break;
        } else {
            return Ok(Some(Found::Other(fd)));
        }
    }
    Ok((!merged.is_empty()).then_some(Found::Directory(merged)))
}

pub(super) fn is_opaque(dir: impl AsFd) -> io::Result<bool> {
    Ok(xattr::get(dir, OPAQUE)?.is_some_and(|value| value == b"y"))
}

/// Lists a directory of the view.
pub(super) fn names(dirs: &Merged) -> io::Result<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for dir in dirs {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        for name in crate::archive::pack::sorted_names(openat(dir, ".", flags, Mode::empty())?)? {
            if !all.contains(&name) && look_up(dirs, &name)?.is_some() {
                all.push(name);
            }
        }
    }
    Ok(all)
}

/// Sums up the sizes of all files below `dir`, each inode once, directories not.
pub(super) fn usage(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    let mut linked = HashSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            // A container may be removing what we count.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.nlink() < 2 || linked.insert((meta.dev(), meta.ino())) {
                sum += meta.len();
            }
        }
    }
    Ok(sum)
}
