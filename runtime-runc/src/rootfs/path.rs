//! Paths below a root that the container can change at any time: everything goes by descriptors, nothing is joined as text.

use crate::error::{Context, Error, Result};
use cleat_sys::openat2::{self, open_in_root};
use cleat_sys::{Errno, Result as SysResult};
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, fstatfs};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows, `path_resolution(7)`.
const MAX_LINKS: usize = 40;

/// What a mount point has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For a directory.
    Directory,
    /// For anything else.
    File,
}

/// Opens `path` in `root` for mounting on it (`O_PATH`); makes it, and the directories above, if it is not there. The second
/// part of the answer says whether it was there.
///
/// # Errors
/// [`Error::Kernel`].
pub fn open_or_make(root: impl AsFd, path: &Path, kind: Kind) -> SysResult<(OwnedFd, bool)> {
    match open_in_root(&root, path, libc::O_PATH, 0) {
        // Mostly just the last name is missing.
        Err(Errno::ENOENT) => {
            make_last(&root, path, kind).or_else(|_| make(&root, path, kind)).map(|fd| (fd, false))
        }
        found => found.map(|fd| (fd, true)),
    }
}

/// Makes the last name of `path`, if all above is there and nothing, no dangling link either, is in its place.
fn make_last(root: impl AsFd, path: &Path, kind: Kind) -> SysResult<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let parent = open_in_root(root, parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    make_name(&parent, name, kind)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&parent, name, flags, Mode::empty())?;
    // Somebody with the same directory may have been quicker.
    let is_link = fstat(&made)?.st_mode & libc::S_IFMT == libc::S_IFLNK;
    if is_link { Err(Errno::ELOOP) } else { Ok(made) }
}

/// Walks `path`, makes what is missing, and follows links, dangling ones too, as if `root` were `/`.
fn make(root: impl AsFd, path: &Path, kind: Kind) -> SysResult<OwnedFd> {
    let root = root.as_fd().try_clone_to_owned().map_err(|error| crate::error::errno_of(&error))?;
    let mut above = vec![root];
    let mut left: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            above.truncate((above.len() - 1).max(1));
            continue;
        }
        let parent = above.last().ok_or(Errno::ENOENT)?;
        let kind = if left.is_empty() { kind } else { Kind::Directory };
        let found = open_or_make_name(parent, &name, kind)?;
        match fstat(&found)?.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = PathBuf::from(readlinkat(&found, "")?);
                if target.is_absolute() {
                    above.truncate(1);
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            libc::S_IFDIR => above.push(found),
            _ if left.is_empty() => return Ok(found),
            _ => return Err(Errno::ENOTDIR),
        }
    }
    above.pop().ok_or(Errno::ENOENT)
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn open_or_make_name(parent: &OwnedFd, name: &OsString, kind: Kind) -> SysResult<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name.as_os_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        found => return found,
    }
    match make_name(parent, name, kind) {
        Ok(()) | Err(Errno::EEXIST) => openat(parent, name.as_os_str(), flags, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Makes an entry of a directory.
fn make_name(parent: &OwnedFd, name: &OsStr, kind: Kind) -> SysResult<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_bits_truncate(0o755)),
        Kind::File => {
            openat(parent, name, flags | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644)).map(drop)
        }
    }
}

/// Opens the directory of a path, made if need be, and returns the last name beside it.
///
/// # Errors
/// [`Error::Invalid`] for a path without a name, such as `/`.
pub fn open_parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, OsString)> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::Invalid(format!("{} has no name", path.display())))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let (directory, _) = open_or_make(root, parent, Kind::Directory)
        .context(|| format!("mkdir {}", parent.display()))?;
    Ok((directory, name.to_owned()))
}

/// Opens a path in which no component may be a link.
///
/// # Errors
/// `ELOOP` where one is.
pub fn open_plain(root: impl AsFd, path: &Path, flags: i32) -> SysResult<OwnedFd> {
    openat2::openat2(root, path, flags, 0, openat2::IN_ROOT | openat2::NO_SYMLINKS)
}

/// Returns whether `fd` lies on a filesystem of that type.
///
/// # Errors
/// Those of `fstatfs(2)`.
pub fn lies_on(fd: impl AsFd, kind: FsType) -> SysResult<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == kind)
}

/// Returns whether `fd` lies on procfs.
///
/// # Errors
/// Those of `fstatfs(2)`.
pub fn lies_on_proc(fd: impl AsFd) -> SysResult<bool> {
    lies_on(fd, PROC_SUPER_MAGIC)
}

/// Removes a name if it is there and no directory.
///
/// # Errors
/// Those of `unlinkat(2)` but `ENOENT`.
pub fn remove_file(parent: impl AsFd, name: &OsStr) -> SysResult<()> {
    match nix::unistd::unlinkat(parent, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Makes a link; what is there already stays.
///
/// # Errors
/// Those of `symlinkat(2)` but `EEXIST`.
pub fn link(target: &str, parent: impl AsFd, name: &str) -> SysResult<()> {
    match nix::unistd::symlinkat(target, parent, name) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// The flags of `fstatat(2)` for the file itself.
pub const ITSELF: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (PathBuf, File) {
        let path = std::env::temp_dir().join(format!("cleat-path-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let file = File::open(&path).unwrap();
        (path, file)
    }

    #[test]
    fn what_is_missing_is_made() {
        let (path, root) = root("made");
        let (_, existed) = open_or_make(&root, Path::new("/a/b/c"), Kind::Directory).unwrap();
        assert!(!existed && path.join("a/b/c").is_dir());
        open_or_make(&root, Path::new("/a/d/file"), Kind::File).unwrap();
        assert!(path.join("a/d/file").is_file());
        assert!(open_or_make(&root, Path::new("/a/d/file"), Kind::File).unwrap().1);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_dangling_link_is_filled_in_inside_the_root() {
        let (path, root) = root("dangling");
        fs::create_dir(path.join("etc")).unwrap();
        symlink("../../../run/resolve/conf", path.join("etc/resolv.conf")).unwrap();
        symlink("/var/lib", path.join("lib")).unwrap();
        open_or_make(&root, Path::new("/etc/resolv.conf"), Kind::File).unwrap();
        assert!(path.join("run/resolve/conf").is_file());
        open_or_make(&root, Path::new("/lib/x"), Kind::Directory).unwrap();
        assert!(path.join("var/lib/x").is_dir());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn dots_stay_inside_and_links_in_a_circle_end() {
        let (path, root) = root("dots");
        open_or_make(&root, Path::new("/../../cleat-x"), Kind::Directory).unwrap();
        assert!(path.join("cleat-x").is_dir());
        symlink("b", path.join("a")).unwrap();
        symlink("a", path.join("b")).unwrap();
        assert_eq!(open_or_make(&root, Path::new("/a/x"), Kind::File).unwrap_err(), Errno::ELOOP);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_not_a_directory() {
        let (path, root) = root("way");
        fs::write(path.join("file"), "").unwrap();
        assert_eq!(
            open_or_make(&root, Path::new("/file/x"), Kind::File).unwrap_err(),
            Errno::ENOTDIR
        );
        fs::remove_dir_all(path).unwrap();
    }
}
