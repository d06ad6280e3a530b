//! Installing a seccomp filter, `seccomp(2)`.

use crate::{Errno, Result, owned_fd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const NEW_LISTENER: u32 = 1 << 3;

const SECCOMP_SET_MODE_FILTER: u32 = 1;
/// `sizeof(struct sock_filter)`.
const INSTRUCTION_BYTES: usize = 8;

/// Installs a BPF program, given as an array of `struct sock_filter` in native byte order, for the calling thread and all it
/// will start. With [`NEW_LISTENER`] among the flags, returns the descriptor on which decisions are asked for.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN and without no_new_privs, `EINVAL` for a program that is none or too long. Source: `seccomp(2)`.
pub fn install(program: &[u8], flags: u32) -> Result<Option<OwnedFd>> {
    let (instructions, rest) = program.as_chunks::<INSTRUCTION_BYTES>();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?;
    if !rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    // The bytes may lie anywhere; `struct sock_filter` wants its alignment.
    let aligned: Vec<u64> = instructions.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    let program = libc::sock_fprog { len: length, filter: aligned.as_ptr().cast_mut().cast() };
    // SAFETY: the program points to `length` instructions that live across the call; the kernel copies and checks them.
    let raw = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if flags & NEW_LISTENER != 0 {
        owned_fd(raw).map(Some)
    } else {
        Errno::result(raw).map(|_| None)
    }
}

/// A call that a process waits to be decided, `struct seccomp_notif` of `<linux/seccomp.h>`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Notification {
    id: u64,
    /// Who waits, as the receiver's PID namespace names it.
    pub pid: u32,
    flags: u32,
    /// The number of the call.
    pub number: i32,
    arch: u32,
    instruction: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

mod ioctl {
    #![allow(missing_docs, reason = "the macro's functions have none")]
    nix::ioctl_readwrite!(receive, b'!', 0, super::Notification);
    nix::ioctl_readwrite!(answer, b'!', 1, super::Answer);
}

/// Waits for a call that the filter of `listener` leaves to its agent.
///
/// # Errors
/// `ENOENT` where the process has ended meanwhile. Source: `seccomp_unotify(2)`.
pub fn receive(listener: impl AsFd) -> Result<Notification> {
    let mut notification = Notification::default();
    // SAFETY: the kernel writes one `struct seccomp_notif`, which `notification` is, and wants it zeroed before.
    unsafe { ioctl::receive(listener.as_fd().as_raw_fd(), &raw mut notification) }?;
    Ok(notification)
}

/// Answers a call in the kernel's place: with a value, or with an error.
///
/// # Errors
/// `ENOENT` where nobody waits any more. Source: `seccomp_unotify(2)`.
pub fn answer(
    listener: impl AsFd,
    notification: &Notification,
    result: std::result::Result<i64, Errno>,
) -> Result<()> {
    let (value, error) = result.map_or_else(|errno| (0, -(errno as i32)), |value| (value, 0));
    let mut answer = Answer { id: notification.id, value, error, flags: 0 };
    // SAFETY: the kernel reads one `struct seccomp_notif_resp`, which `answer` is.
    unsafe { ioctl::answer(listener.as_fd().as_raw_fd(), &raw mut answer) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_odd_length_is_refused() {
        assert_eq!(install(&[0; 9], 0).unwrap_err(), Errno::EINVAL);
        assert_eq!(install(&[], 0).unwrap_err(), Errno::EINVAL);
    }
}
