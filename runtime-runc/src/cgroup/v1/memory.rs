//! `memory`. Kernel memory limits are ignored, as the kernel does since 5.16. Source: cgroup-v1/memory.rst.

use std::path::Path;

use oci_spec::runtime::LinuxMemory;

use super::super::{
    error::{Error, Result},
    file,
};

const LIMIT: &str = "memory.limit_in_bytes";
const LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

/// Returns whether there is anything to set.
pub fn is_set(memory: &LinuxMemory) -> bool {
    [memory.limit(), memory.swap(), memory.reservation()]
        .iter()
        .any(|amount| amount.unwrap_or(0) != 0)
        || memory.disable_oom_killer() == Some(true)
        || memory.swappiness().is_some()
}

/// Sets what is not zero; -1 is no limit.
pub fn set(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let with_swap = memory.swap().filter(|swap| *swap != 0);
    set_limits(dir, limit, with_swap)?;
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        file::write(dir, "memory.soft_limit_in_bytes", reservation)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        file::write(dir, "memory.oom_control", 1)?;
    }
    match memory.swappiness() {
        // -1, as a C program would say "not set".
        None | Some(u64::MAX) => Ok(()),
        Some(swappiness @ 0..=100) => file::write(dir, "memory.swappiness", swappiness),
        Some(other) => Err(Error::InvalidLimit(format!(
            "invalid memory swappiness value: {other} (valid range is 0-100)"
        ))),
    }
}

/// The limit with swap is never below the one without, at any moment: which goes first depends on where they come from.
fn set_limits(dir: &Path, limit: Option<i64>, with_swap: Option<i64>) -> Result<()> {
    // Without a limit on memory there is none on memory and swap together.
    let is_implied = limit == Some(-1) && with_swap.is_none();
    let with_swap = if is_implied { Some(-1) } else { with_swap };
    let write_with_swap = || match with_swap.map(|amount| file::write(dir, LIMIT_WITH_SWAP, amount))
    {
        // Swap is not accounted for on this host.
        Some(Err(error)) if is_implied && file::errno(&error) == Some(libc::ENOENT) => Ok(()),
        Some(outcome) => outcome,
        None => Ok(()),
    };
    let Some(limit) = limit else { return write_with_swap() };
    match write_limit(dir, limit) {
        Err(error) if with_swap.is_some() && file::errno(&error) == Some(libc::EINVAL) => {
            write_with_swap()?;
            write_limit(dir, limit)
        }
        Err(error) => Err(error),
        Ok(()) => write_with_swap(),
    }
}

fn write_limit(dir: &Path, limit: i64) -> Result<()> {
    match file::write(dir, LIMIT, limit) {
        Err(error) if file::errno(&error) == Some(libc::EBUSY) => Err(Error::MemoryInUse {
            limit,
            usage: file::read(dir, "memory.usage_in_bytes")?,
            peak: file::read(dir, "memory.max_usage_in_bytes")?,
        }),
        other => other,
    }
}
