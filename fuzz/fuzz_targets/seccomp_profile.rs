//! The worker compiles a seccomp profile: what it makes is a program of whole instructions, no more than the kernel takes, and
//! the same every time (it is cached).
#![no_main]

use cleat_runc::parsers::seccomp;

/// `sizeof(struct sock_filter)` and `BPF_MAXINSNS`.
const INSTRUCTION_BYTES: usize = 8;
const MAX_INSTRUCTIONS: usize = 4096;

libfuzzer_sys::fuzz_target!(|profile: &[u8]| {
    let Some(program) = seccomp(profile) else { return };
    assert!(!program.is_empty() && program.len() % INSTRUCTION_BYTES == 0);
    assert!(program.len() / INSTRUCTION_BYTES <= MAX_INSTRUCTIONS);
    assert_eq!(seccomp(profile), Some(program));
});
