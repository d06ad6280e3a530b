//! Installing a seccomp filter, `seccomp(2)`.

use crate::{Errno, Result, owned_fd};
use std::os::fd::OwnedFd;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_odd_length_is_refused() {
        assert_eq!(install(&[0; 9], 0).unwrap_err(), Errno::EINVAL);
        assert_eq!(install(&[], 0).unwrap_err(), Errno::EINVAL);
    }
}
