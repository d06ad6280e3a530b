//! Writing to procfs: what the worker tells the kernel there (security labels, sysctls, the OOM score) has to reach the kernel. It goes
//! through the host's mount, opened before any namespace of a container's is entered, where `/proc` may be anything
//! (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881), and what is opened is asked for its filesystem before it is written.

use crate::rootfs::lies_on_proc;
use cleat_sys::openat2::{self, BENEATH, NO_MAGICLINKS};
use cleat_sys::{Errno, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The host's procfs.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// Opens it. To be called in the host's mount namespace.
    ///
    /// # Errors
    /// `ENODEV` where something else lies at `/proc`.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self::check(open("/proc", flags, Mode::empty())?).map(Self)
    }

    /// Writes `text` to the file at `path`, which names it from the root of procfs on.
    ///
    /// # Errors
    /// `ENODEV` for a file that is covered by one of another filesystem, `EXDEV` and `ELOOP` for a way out; else the file's own.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NOCTTY;
        let file = openat2::openat2(&self.0, path.as_ref(), flags, 0, BENEATH | NO_MAGICLINKS)?;
        let file = Self::check(file)?;
        // One write is one value; the kernel's files take it whole or not at all.
        nix::unistd::write(file, text.as_bytes()).map(drop)
    }

    /// Returns whether there is something at `path`.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        openat2::openat2(&self.0, path.as_ref(), libc::O_PATH, 0, BENEATH | NO_MAGICLINKS).is_ok()
    }

    fn check(fd: OwnedFd) -> Result<OwnedFd> {
        if lies_on_proc(fd.as_fd())? { Ok(fd) } else { Err(Errno::ENODEV) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reaches_the_kernel() {
        let procfs = Procfs::open().unwrap();
        assert!(procfs.has("self/comm") && !procfs.has("self/nothing"));
        procfs.write("thread-self/comm", "written").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "written\n");
    }

    #[test]
    fn another_filesystem_is_not_taken_for_procfs() {
        let path = std::env::temp_dir().join(format!("cleat-procfs-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("comm"), "untouched").unwrap();
        let forged = Procfs(std::fs::File::open(&path).unwrap().into());
        assert_eq!(forged.write("comm", "written"), Err(Errno::ENODEV));
        assert_eq!(std::fs::read_to_string(path.join("comm")).unwrap(), "untouched");
        let opened = std::fs::File::open(&path).unwrap();
        assert_eq!(Procfs::check(opened.into()).unwrap_err(), Errno::ENODEV);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn there_is_no_way_out_of_it() {
        let procfs = Procfs::open().unwrap();
        assert_eq!(procfs.write("self/root/tmp/x", "x"), Err(Errno::ELOOP));
        assert_eq!(procfs.write("../tmp/x", "x"), Err(Errno::EXDEV));
    }
}
