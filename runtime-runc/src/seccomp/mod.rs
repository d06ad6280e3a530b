//! The seccomp filter of an OCI spec, compiled to classic BPF by ourselves.
//!
//! ```text
//! profile ─▶ table.rs    each architecture's numbers 0…2³² in intervals with one outcome
//!         ─▶ program.rs  binary search over the intervals, argument compares, returns
//! ```
//!
//! What is said about a call, and by whom, follows libseccomp and runc, since profiles are written against those:
//! * A name that an architecture does not know is ignored.
//! * A rule with the default action is ignored. One without conditions outdoes those with; otherwise the first match decides.
//! * Calls newer than the newest in the profile answer `ENOSYS` where the default refuses: programs then try the older way
//!   instead of giving up on `EPERM`.
//! * An architecture that is not listed is killed; the host's own is always listed.
//!
//! Sources: OCI runtime-spec, config-linux.md, "Seccomp"; `seccomp(2)`; `seccomp_rule_add(3)`; runc's libcontainer/seccomp.

mod cache;
mod program;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
};

pub use self::cache::{Cached, cached};

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `struct sock_filter` after `struct sock_filter`, native byte order, at most 4096 of them; never empty.
    pub program: Vec<u8>,
    /// The flags for `seccomp(SECCOMP_SET_MODE_FILTER)`, `SECCOMP_FILTER_FLAG_NEW_LISTENER` included where the profile notifies.
    pub flags: u32,
    /// The unix socket that gets the listener, if the profile notifies.
    pub listener_path: Option<PathBuf>,
    /// What goes with it.
    pub listener_metadata: Option<String>,
}

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what config-linux.md says.
    #[error("{0}")]
    Profile(#[source] serde_json::Error),
    /// Nobody could answer: every call would wait.
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyByDefault,
    /// The listener itself is handed over by it.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// A call has six arguments.
    #[error("invalid seccomp rule for {name}: there is no argument {index}")]
    NoSuchArgument { name: String, index: usize },
    /// The kernel takes 4096 instructions.
    #[error("the seccomp profile is too big: {0} instructions, 4096 are possible")]
    TooBig(usize),
    /// We know no table of system calls for this machine.
    #[error("seccomp is not supported on {0}")]
    UnknownMachine(&'static str),
}

/// Compiles a profile.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let sections = table::sections(profile)?;
    let program = program::assemble(&sections);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooBig(program.len()));
    }
    let program = program.into_iter().flat_map(program::Instruction::to_bytes).collect();
    Ok(Filter { program, ..head(profile) })
}

/// Returns the filter without its program.
fn head(profile: &LinuxSeccomp) -> Filter {
    let mut flags = match profile.flags() {
        // runc's default: the mitigation costs every container much, and helps only against itself.
        None => bits(Flag::SeccompFilterFlagSpecAllow),
        Some(flags) => flags.iter().fold(0, |all, flag| all | bits(*flag)),
    };
    let notifies =
        profile.syscalls().iter().flatten().any(|rule| rule.action() == Action::ScmpActNotify);
    if notifies {
        flags |= cleat_sys::seccomp::NEW_LISTENER;
    }
    Filter {
        program: Vec::new(),
        flags,
        listener_path: profile.listener_path().clone().filter(|_| notifies),
        listener_metadata: profile.listener_metadata().clone().filter(|_| notifies),
    }
}

/// `SECCOMP_FILTER_FLAG_*` of `<linux/seccomp.h>`. A single thread has nobody to synchronise with.
fn bits(flag: Flag) -> u32 {
    match flag {
        Flag::SeccompFilterFlagTsync => 0,
        Flag::SeccompFilterFlagLog => 1 << 1,
        Flag::SeccompFilterFlagSpecAllow => 1 << 2,
        Flag::SeccompFilterFlagWaitKillableRecv => 1 << 5,
    }
}
