//! The one crate with `unsafe`: owned handles and `Errno` over Linux system calls, no policy.
//!
//! What `nix` has is used from there; this crate adds what it lacks.

pub mod bpf;
pub mod capability;
pub mod clone;
pub mod fdpass;
pub mod inherited;
pub mod inode_flags;
pub mod keyring;
pub mod link;
pub mod memory;
pub mod mountapi;
pub mod netlink;
pub mod netns;
pub mod openat2;
pub mod pidfd;
pub mod pipe;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod spawn;
pub mod statmount;
pub mod tty;
pub mod xattr;

pub use nix::errno::Errno;

/// What a system call answers.
pub type Result<T> = std::result::Result<T, Errno>;

/// Makes a C string of `bytes`; `EINVAL` where a zero byte is inside.
pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> Result<std::ffi::CString> {
    std::ffi::CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Takes ownership of the descriptor that a raw system call has just returned.
pub(crate) fn owned_fd(raw: libc::c_long) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let raw = Errno::result(raw)?;
    // SAFETY: the call that returned `raw` succeeded, so it is an open descriptor that nothing else owns.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(raw as std::os::fd::RawFd) })
}
