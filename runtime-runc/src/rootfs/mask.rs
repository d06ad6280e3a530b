//! Masked and read-only paths, OCI runtime-spec, config-linux.md: what of /proc and /sys a container does not see or cannot
//! write. Done on descriptors, without following links (CVE-2025-31133, CVE-2025-52881), before the container runs.

use super::device;
use super::path;
use crate::error::{Context, Result};
use cleat_sys::Errno;
use cleat_sys::mountapi::{self, Attributes, FsContext, attr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Hides `paths`: files under the null device, directories under an empty read-only one. What is not there needs no mask.
///
/// # Errors
/// [`crate::error::Error`] naming the path.
pub fn hide(root: impl AsFd, paths: &[PathBuf]) -> Result<()> {
    let root = root.as_fd();
    let (mut null, mut empty) = (None, None);
    for masked in paths {
        let what = || format!("can't mask path {:?}", masked.to_string_lossy());
        let Some(target) = open(root, masked).context(what)? else { continue };
        let is_directory =
            nix::sys::stat::fstat(&target).context(what)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_directory {
            let cover = cover(&mut empty).context(what)?;
            mountapi::attach(&cover, target).context(what)?;
            // The first one is attached and stays; the others are copies of it.
            empty.get_or_insert(cover);
        } else {
            if null.is_none() {
                null = Some(device::open_null(root, libc::O_PATH)?);
            }
            let cover = null
                .as_ref()
                .ok_or(Errno::ENOENT)
                .and_then(|null| mountapi::clone_tree_at(null, false));
            mountapi::attach(cover.context(what)?, target).context(what)?;
        }
    }
    Ok(())
}

/// Returns a detached mount of an empty directory: a new one first, then copies of the one that is attached.
fn cover(first: &mut Option<OwnedFd>) -> cleat_sys::Result<OwnedFd> {
    if let Some(first) = first {
        return mountapi::clone_tree_at(first, false);
    }
    let context = FsContext::open("tmpfs")?;
    context.set_string("source", "tmpfs")?;
    context.set_string("size", "0")?;
    context.set_string("mode", "0755")?;
    context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

/// Makes `paths`, with what is mounted below, read-only.
///
/// # Errors
/// [`crate::error::Error`] naming the path.
pub fn make_read_only(root: impl AsFd, paths: &[PathBuf]) -> Result<()> {
    for fixed in paths {
        let what = || format!("can't make {:?} read-only", fixed.to_string_lossy());
        let Some(target) = open(root.as_fd(), fixed).context(what)? else { continue };
        let tree = mountapi::clone_tree_at(&target, true).context(what)?;
        mountapi::set_attributes(
            &tree,
            Attributes { set: attr::RDONLY, ..Attributes::default() },
            false,
        )
        .context(what)?;
        mountapi::attach(tree, target).context(what)?;
    }
    Ok(())
}

fn open(root: impl AsFd, path: &Path) -> cleat_sys::Result<Option<OwnedFd>> {
    match path::open_plain(root, path, libc::O_PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
