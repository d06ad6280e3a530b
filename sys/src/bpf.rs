//! The part of bpf(2) that a device filter needs: assemble, load, attach, replace.
//!
//! Source: `bpf(2)`; the kernel's bpf/standardization/instruction-set.rst and include/uapi/linux/bpf.h.

use crate::{Errno, Result, owned_fd};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
/// How many filters one cgroup can have (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;
/// None of the helpers that need a GPL-compatible licence is called.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";

/// A register of the BPF machine: `R1` holds the context at the start, `R0` the answer at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
}

/// One instruction, as `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// Ends the program with the value of `R0`.
    pub const EXIT: Self = Self { code: 0x95, registers: 0, offset: 0, immediate: 0 };

    const fn new(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Self {
        let (to, from) = (to as u8, from as u8);
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Self { code, registers, offset, immediate }
    }

    /// `to = *(u32 *)(from + offset)`
    pub const fn load_word(to: Register, from: Register, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    /// `register &= value`, in 32 bits
    pub const fn and(register: Register, value: i32) -> Self {
        Self::new(0x54, register, Register::R0, 0, value)
    }

    /// `register >>= bits`, in 32 bits
    pub const fn shift_right(register: Register, bits: i32) -> Self {
        Self::new(0x74, register, Register::R0, 0, bits)
    }

    /// `register = value`, in 32 bits
    pub const fn set(register: Register, value: i32) -> Self {
        Self::new(0xb4, register, Register::R0, 0, value)
    }

    /// `to = from`, in 32 bits
    pub const fn copy(to: Register, from: Register) -> Self {
        Self::new(0xbc, to, from, 0, 0)
    }

    /// Skips `count` instructions if the low 32 bits of `register` are not `value`.
    pub const fn jump_if_not(register: Register, value: i32, count: i16) -> Self {
        Self::new(0x56, register, Register::R0, count, value)
    }

    /// Skips `count` instructions if the low 32 bits of `register` are `value`.
    pub const fn jump_if(register: Register, value: i32, count: i16) -> Self {
        Self::new(0x16, register, Register::R0, count, value)
    }
}

/// Loads a device program and attaches it to a v2 cgroup; the device programs that were attached there before are detached
/// afterwards, so that there is no moment without a filter.
///
/// # Errors
/// `EPERM` without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), `EINVAL` for a program that the verifier refuses.
pub fn replace_device_filter(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> Result<()> {
    let old = attached(cgroup)?;
    let program = load(program)?;
    change(BPF_PROG_ATTACH, cgroup, &program, BPF_F_ALLOW_MULTI)?;
    for id in old {
        match by_id(id) {
            Ok(program) => change(BPF_PROG_DETACH, cgroup, &program, 0)?,
            // Somebody else was faster.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn load(program: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C, align(8))]
    struct Load {
        program_type: u32,
        length: u32,
        instructions: u64,
        license: u64,
        log: [u64; 3],
        flags: u64,
    }
    let mut request = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        length: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log: [0; 3],
        flags: 0,
    };
    owned_fd(bpf(BPF_PROG_LOAD, &mut request))
}

fn change(
    command: libc::c_long,
    cgroup: BorrowedFd<'_>,
    program: &OwnedFd,
    flags: u32,
) -> Result<()> {
    #[repr(C, align(8))]
    struct Attach {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
        replaced: u32,
        rest: u32,
    }
    let mut request = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags,
        replaced: 0,
        rest: 0,
    };
    Errno::result(bpf(command, &mut request)).map(drop)
}

fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    #[repr(C, align(8))]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        rest: u32,
    }
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut request = Query {
        target: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        rest: 0,
    };
    Errno::result(bpf(BPF_PROG_QUERY, &mut request))?;
    Ok(ids[..(request.count as usize).min(MAX_PROGRAMS)].to_vec())
}

fn by_id(id: u32) -> Result<OwnedFd> {
    #[repr(C, align(8))]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
        rest: u32,
    }
    owned_fd(bpf(BPF_PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0, rest: 0 }))
}

fn bpf<T>(command: libc::c_long, request: &mut T) -> libc::c_long {
    // SAFETY: `request` is the prefix of `union bpf_attr` that the command has, and its size is told; the pointers in it lead to
    // memory of the caller's that lives across the call and is as long as the request says.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) }
}
