//! Descriptors that the parent left open for us at agreed numbers.

use std::{
    collections::BTreeSet,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
};

static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes the inherited descriptor `number` and makes it close-on-exec.
///
/// To be called at the start of a program, before it opens anything itself.
///
/// # Errors
/// `EBADF` if nothing was inherited there, `EBUSY` if it has been taken before.
pub fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(Errno::EBUSY);
    }
    // SAFETY: the borrow ends with this call, which answers EBADF if the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and `TAKEN` sees to it that we hand it out once; the caller has opened nothing yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes all inherited descriptors from `first` on, up to the first number where there is none. As [`take`].
///
/// # Errors
/// `EBUSY` if one of them has been taken before.
pub fn take_from(first: RawFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut taken = Vec::new();
    for number in first.. {
        match take(number) {
            Ok(fd) => taken.push(fd),
            Err(Errno::EBADF) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(taken)
}
