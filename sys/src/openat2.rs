//! `openat2(2)`: opening below a root that somebody else may change at any moment.

use crate::{Errno, Result, c_string, owned_fd};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `RESOLVE_NO_XDEV`: no step onto another mount.
pub const NO_XDEV: u64 = 0x01;
/// `RESOLVE_NO_MAGICLINKS`: no step through a link such as /proc/self/fd/3.
pub const NO_MAGICLINKS: u64 = 0x02;
/// `RESOLVE_NO_SYMLINKS`: no link at all.
pub const NO_SYMLINKS: u64 = 0x04;
/// `RESOLVE_BENEATH`: a path that leaves the directory is an error.
pub const BENEATH: u64 = 0x08;
/// `RESOLVE_IN_ROOT`: the directory is the root, for absolute paths, links and `..`.
pub const IN_ROOT: u64 = 0x10;

/// The kernel's `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` from `directory` under the rules of `resolve`; always close-on-exec.
///
/// `flags` are `libc::O_*`; `mode` counts with `O_CREAT` and `O_TMPFILE` only. Waits out a rename that races with the look-up.
///
/// # Errors
/// `EXDEV` and `ELOOP` where the path breaks a rule, `ENOSYS` before Linux 5.6. Source: `openat2(2)`.
pub fn openat2(
    directory: impl AsFd,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    let text = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
    let path = c_string(text.as_bytes())?;
    let creates = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u32 as u64,
        mode: if creates { u64::from(mode) } else { 0 },
        resolve,
    };
    // The kernel gives EAGAIN when a rename anywhere may have hidden a step across `..`; each try is a fresh chance.
    for _ in 0..128 {
        // SAFETY: `path` and `how` live across the call, and the size is that of `how`.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_fd().as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        match owned_fd(raw) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens `path` as a process with root directory `root` would, links included, but never through a magic link.
///
/// # Errors
/// Those of [`openat2`].
pub fn open_in_root(root: impl AsFd, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat2(root, path, flags, mode, IN_ROOT | NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    fn root() -> (std::path::PathBuf, File) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("cleat-openat2-{}-{count}", std::process::id()));
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/hosts"), "inside").unwrap();
        let file = File::open(&path).unwrap();
        (path, file)
    }

    #[test]
    fn a_link_to_an_absolute_path_stays_in_the_root() {
        let (path, root) = root();
        symlink("/etc/hosts", path.join("link")).unwrap();
        let fd = open_in_root(&root, Path::new("/link"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(std::io::read_to_string(File::from(fd)).unwrap(), "inside");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn dots_do_not_climb_out() {
        let (path, root) = root();
        let fd = open_in_root(&root, Path::new("../../../etc/hosts"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(std::io::read_to_string(File::from(fd)).unwrap(), "inside");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_magic_link_is_refused() {
        let proc = File::open("/proc").unwrap();
        let answer = open_in_root(&proc, Path::new("self/root/etc"), libc::O_PATH, 0);
        assert_eq!(answer.unwrap_err(), Errno::ELOOP);
    }
}
