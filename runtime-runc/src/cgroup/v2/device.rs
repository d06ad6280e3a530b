//! Devices in v2: there is no controller, a BPF program attached to the cgroup is asked.
//!
//! It gets a `struct bpf_cgroup_dev_ctx` { access_type (type in the low, access in the high 16 bits), major, minor } and returns
//! 1 to allow. Sources: bpf(2); the kernel's include/uapi/linux/bpf.h, `BPF_PROG_TYPE_CGROUP_DEVICE`.

use std::{fs::File, os::fd::AsFd, path::Path};

use cleat_sys::bpf::{self, Instruction, Register::*};

use super::super::{
    device::{Access, Class, Filter},
    error::{Error, Result},
};

const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// Attaches the filter, in place of what was there.
pub fn set(dir: &Path, filter: &Filter) -> Result<()> {
    let failed = |source| Error::DeviceFilter { path: dir.to_owned(), source };
    let cgroup = File::open(dir).map_err(failed)?;
    bpf::replace_device_filter(cgroup.as_fd(), &program(filter))
        .map_err(|errno| failed(errno.into()))
}

/// Assembles the program: a block per exception, each of which falls through to the next one where it does not match.
fn program(filter: &Filter) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load_word(R2, R1, 0),
        Instruction::and(R2, 0xffff), // the type
        Instruction::load_word(R3, R1, 0),
        Instruction::shift_right(R3, 16), // the access asked for
        Instruction::load_word(R4, R1, 4),
        Instruction::load_word(R5, R1, 8),
    ];
    for (class, access) in &filter.exceptions {
        program.extend(block(*class, *access, !filter.allows_by_default));
    }
    program.push(Instruction::set(R0, filter.allows_by_default.into()));
    program.push(Instruction::EXIT);
    program
}

fn block(class: Class, access: Access, allow: bool) -> Vec<Instruction> {
    // From the last instruction to the first, since a jump needs to know how much follows it.
    let mut block = vec![Instruction::EXIT, Instruction::set(R0, allow.into())];
    let skip_unless = |block: &mut Vec<Instruction>, register, value| {
        let length = block.len() as i16;
        block.push(Instruction::jump_if_not(register, value, length));
    };
    if let Some(minor) = class.minor {
        skip_unless(&mut block, R5, minor as i32);
    }
    if let Some(major) = class.major {
        skip_unless(&mut block, R4, major as i32);
    }
    if access != Access::ALL {
        // An exception that allows must have every bit asked for; one that denies, any of them.
        let length = block.len() as i16;
        if allow {
            block.push(Instruction::jump_if_not(R1, 0, length));
            block.push(Instruction::and(R1, !i32::from(access.0)));
        } else {
            block.push(Instruction::jump_if(R1, 0, length));
            block.push(Instruction::and(R1, access.0.into()));
        }
        block.push(Instruction::copy(R1, R3));
    }
    skip_unless(&mut block, R2, if class.is_block { BLOCK } else { CHAR });
    block.reverse();
    block
}
