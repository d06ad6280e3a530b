//! The worker's own executable cannot be written from a container (CVE-2019-5736).
//!
//! Which defence holds: while a process of ours is inside a container, its `/proc/<pid>/exe` leads to the worker's file, and a
//! program of the image may be a link or a script that runs `/proc/self/exe`. Not being dumpable keeps strangers off, but not
//! a container with CAP_SYS_PTRACE, and not the second way. So the worker never enters a container from the host's file: it
//! first executes itself from a place where nobody can write, the first of these that can be had:
//!
//! 1. a file system of its own, an overlay of the directory its file is in without a layer for changes (0.1 ms);
//! 2. a detached, read-only copy of the mount its file is on: what is opened through it, by whatever link, cannot be opened for
//!    writing (`EROFS`), and it is in no namespace where it could be changed;
//! 3. a sealed memfd, which takes no rights but copies the file.
//!
//! A caller that starts the worker through such a mount already (`/proc/self/fd/N` of
//! `cleat_sys::mountapi::read_only_clone`, or a read-only bind mount) saves the second `execve`; so does a host with a read-only
//! `/usr`.

use crate::error::{Context, Result};
use crate::log;
use cleat_sys::{Errno, clone, mountapi};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::stat;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

const EXE: &str = "/proc/self/exe";

/// Returns at once when this process runs from where nobody can write; else executes itself again from such a place.
///
/// `root` is a directory elsewhere, which need not be there yet.
///
/// # Errors
/// Where no way works: then it must not go near a container.
pub fn protect(root: &Path) -> Result<()> {
    if is_protected()? {
        log::debug(|| "runc exeseal: using /proc/self/exe clone".to_owned());
        return Ok(());
    }
    let args: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
        })
        .collect();
    let what = || "unable to create safe /proc/self/exe clone".to_owned();
    let copy = match sealed_in_place(root) {
        Some(copy) => copy,
        None => sealed_copy().context(what)?,
    };
    let what = || "unable to run from the safe /proc/self/exe clone".to_owned();
    clone::execute(copy, &args, &env).context(what).map(drop)
}

/// Tries the ways that leave the file where it is.
fn sealed_in_place(root: &Path) -> Option<OwnedFd> {
    let path = std::fs::read_link(EXE).ok()?;
    // The name may be another file's by now, or in this mount namespace.
    let (named, own) = (stat(&path).ok()?, stat(EXE).ok()?);
    if (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino) {
        return None;
    }
    let overlay = || {
        let elsewhere = root.ancestors().find(|directory| directory.is_dir())?;
        // The kernel would refuse it, and say so in its log every time.
        if overlap(path.parent()?, elsewhere) {
            return None;
        }
        let sealed = mountapi::sealed_overlay(&path, elsewhere).ok()?;
        log::debug(|| "runc exeseal: using overlayfs for sealed /proc/self/exe".to_owned());
        Some(sealed)
    };
    overlay().or_else(|| mountapi::read_only_clone(&path).ok())
}

/// Returns whether one directory lies in the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn is_protected() -> Result<bool> {
    let read_only =
        statvfs(EXE).context(|| format!("statfs {EXE}"))?.flags().contains(FsFlags::ST_RDONLY);
    // A memfd says so in its name; its seals tell that it is ours and whole.
    Ok(read_only
        || (std::fs::read_link(EXE)
            .is_ok_and(|path| path.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
            && is_sealed()))
}

fn is_sealed() -> bool {
    let seals =
        std::fs::File::open(EXE).ok().and_then(|file| fcntl(&file, FcntlArg::F_GET_SEALS).ok());
    seals.is_some_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE))
}

fn sealed_copy() -> std::result::Result<OwnedFd, Errno> {
    let io = |error: std::io::Error| crate::error::errno_of(&error);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create("cleat-runc", flags)?);
    std::io::copy(&mut std::fs::File::open(EXE).map_err(io)?, &mut file).map_err(io)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: &str, other: &str, expected: bool) {
        assert_eq!(overlap(Path::new(one), Path::new(other)), expected);
        assert_eq!(overlap(Path::new(other), Path::new(one)), expected);
    }

    #[test]
    fn directories_overlap_where_one_lies_in_the_other() {
        check("/usr/bin", "/", true);
        check("/usr/bin", "/usr/bin", true);
        check("/opt/x/bin", "/opt/x", true);
        check("/opt/x/bin", "/opt/x/run", false);
        check("/usr/bin", "/usr/binary", false);
    }
}
