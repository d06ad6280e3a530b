//! Network namespaces as descriptors. A namespace belongs to a thread, so whatever has to be done inside one is done by a
//! thread that ends afterwards; what a socket opened there does later needs no thread.

use std::{fs::File, os::fd::OwnedFd, path::Path, thread};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Errno, Result};

/// Opens the calling thread's network namespace.
///
/// # Errors
/// Whatever `open(2)` answers for `/proc/thread-self/ns/net`.
pub fn current() -> Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Opens a network namespace by a path such as `/proc/1/ns/net`.
///
/// # Errors
/// Whatever `open(2)` answers.
pub fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Puts the calling thread into a new network namespace, for good.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at the limit of namespaces. Source: `unshare(2)`.
pub fn unshare_thread() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
}

/// Moves the calling thread into a network namespace, for good.
///
/// # Errors
/// `EPERM`, `EINVAL` if it is not a network namespace. Source: `setns(2)`.
pub fn enter_thread(namespace: &OwnedFd) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
}

/// Makes a network namespace, runs `inside` in it, and returns both.
///
/// # Errors
/// As [`unshare_thread`].
pub fn create_with<T: Send>(inside: impl FnOnce() -> T + Send) -> Result<(OwnedFd, T)> {
    on_a_thread(|| {
        unshare_thread()?;
        Ok((current()?, inside()))
    })
}

/// Runs `inside` in a network namespace.
///
/// # Errors
/// As [`enter_thread`].
pub fn enter_with<T: Send>(namespace: &OwnedFd, inside: impl FnOnce() -> T + Send) -> Result<T> {
    on_a_thread(|| {
        enter_thread(namespace)?;
        Ok(inside())
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|_| Errno::EAGAIN)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn inode(namespace: impl AsFd) -> u64 {
        nix::sys::stat::fstat(namespace).unwrap().st_ino
    }

    #[test]
    fn a_new_namespace_is_another_and_can_be_entered() {
        let (namespace, seen) = create_with(|| inode(current().unwrap())).unwrap();
        assert_eq!(seen, inode(&namespace));
        assert_ne!(seen, inode(current().unwrap()));
        assert_eq!(enter_with(&namespace, || inode(current().unwrap())).unwrap(), seen);
    }
}
