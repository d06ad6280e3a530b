//! What a container changed: its own directory against the layers below. Engine API v1.51, ContainerChanges.
//!
//! A directory that overlayfs copied up for the sake of a child counts as changed if something in it did, as Docker has
//! it; a file that was copied up and is the same as before does not.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::PathBuf,
    sync::Arc,
};

use cleat_sys::xattr;
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::merged::{self, Found, Merged};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0.
    Modified,
    /// 1.
    Added,
    /// 2.
    Deleted,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root: `/etc/passwd`.
    pub path: String,
    /// What became of it.
    pub kind: Kind,
}

/// Compares an upper directory with those below it, the topmost first. Sorted by path.
pub(super) fn changes(upper: &std::path::Path, lower: &[PathBuf]) -> io::Result<Vec<Change>> {
    let lower: Merged =
        lower.iter().map(|dir| merged::open_dir(dir).map(Arc::new)).collect::<io::Result<_>>()?;
    let mut changes = Vec::new();
    walk(&merged::open_dir(upper)?, &lower, "", &mut changes)?;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Compares one directory. `lower` is empty where nothing below has it.
fn walk(dir: &OwnedFd, lower: &Merged, at: &str, changes: &mut Vec<Change>) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let names = crate::archive::pack::sorted_names(openat(dir, ".", flags, Mode::empty())?)?;
    if merged::is_opaque(dir)? {
        for name in merged::names(lower)? {
            if !names.contains(&name) {
                changes.push(change(at, &name, Kind::Deleted));
            }
        }
    }
    for name in names {
        let fd = match crate::archive::view::open_path(dir, &name) {
            // The container is removing it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let meta = metadata(&fd)?;
        let before = merged::look_up(lower, &name)?;
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            if before.is_some() {
                changes.push(change(at, &name, Kind::Deleted));
            }
            continue;
        }
        let here = change(at, &name, Kind::Modified);
        if !meta.is_dir() {
            match &before {
                None => changes.push(Change { kind: Kind::Added, ..here }),
                Some(before) if differs(&fd, before)? => changes.push(here),
                Some(_) => {}
            }
            continue;
        }
        match before {
            Some(Found::Directory(below)) => {
                let count = changes.len();
                let changed = differs(&fd, &Found::Directory(below.clone()))?;
                walk(&fd, &below, &here.path, changes)?;
                if changed || changes.len() > count {
                    changes.push(here);
                }
            }
            Some(Found::Other(_)) => {
                walk(&fd, &Merged::new(), &here.path, changes)?;
                changes.push(here);
            }
            None => {
                walk(&fd, &Merged::new(), &here.path, changes)?;
                changes.push(Change { kind: Kind::Added, ..here });
            }
        }
    }
    Ok(())
}

fn change(at: &str, name: &[u8], kind: Kind) -> Change {
    Change { path: format!("{at}/{}", String::from_utf8_lossy(name)), kind }
}

fn metadata(fd: impl AsFd) -> io::Result<std::fs::Metadata> {
    File::from(fd.as_fd().try_clone_to_owned()?).metadata()
}

/// Mode, owner, device and capabilities count; for what is no directory, time and size too.
fn differs(now: &OwnedFd, before: &Found) -> io::Result<bool> {
    let before: &OwnedFd = match before {
        Found::Directory(dirs) => match dirs.first() {
            Some(dir) => dir,
            None => return Ok(true),
        },
        Found::Other(fd) => fd,
    };
    let (new, old) = (metadata(now)?, metadata(before)?);
    let facts = |meta: &std::fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
    if facts(&new) != facts(&old) {
        return Ok(true);
    }
    let bytes = |meta: &std::fs::Metadata| (meta.mtime(), meta.mtime_nsec(), meta.len());
    if !new.is_dir() && bytes(&new) != bytes(&old) {
        return Ok(true);
    }
    if new.is_symlink() {
        return Ok(false);
    }
    let capability = |fd: &OwnedFd| xattr::get(fd, b"security.capability");
    Ok(capability(now)? != capability(before)?)
}
