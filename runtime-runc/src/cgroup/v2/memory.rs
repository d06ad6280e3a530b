//! `memory`: limits of memory and of swap, each by itself.

use std::path::Path;

use oci_spec::runtime::LinuxMemory;

use super::super::{
    error::{Error, Result},
    file,
};

/// Refuses a limit below the memory in use, where that is asked for.
pub fn check(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    match memory.limit() {
        Some(limit @ 1..) if memory.check_before_update() == Some(true) => {
            refuse_in_use(dir, limit)
        }
        _ => Ok(()),
    }
}

/// Sets what is not zero; -1 is no limit.
pub fn set(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().unwrap_or(0);
    check(dir, memory)?;
    if let Some(swap) = swap_max(memory.swap().unwrap_or(0), limit)? {
        let written = file::optional(file::write(dir, "memory.swap.max", text_of(swap)))?;
        // Where swap is not accounted for there is nothing to say about none and about all of it.
        if written.is_none() && swap > 0 {
            let text = format!("cannot limit swap to {swap}: the kernel does not account for swap");
            return Err(Error::InvalidLimit(text));
        }
    }
    if limit != 0 {
        file::write(dir, "memory.max", text_of(limit))?;
    }
    match memory.reservation() {
        None | Some(0) => Ok(()),
        Some(reservation) => file::write(dir, "memory.low", text_of(reservation)),
    }
}

fn text_of(amount: i64) -> String {
    if amount < 0 { "max".to_owned() } else { amount.to_string() }
}

/// Takes v1's limit of memory and swap together to v2's limit of swap. `None`: not set.
pub fn swap_max(with_swap: i64, limit: i64) -> Result<Option<i64>> {
    let invalid = |text: String| Err(Error::InvalidLimit(text));
    match (with_swap, limit) {
        (0, -1) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(-1)),
        (swap, -1) => Ok(Some(swap)),
        (_, 0) => invalid("unable to set swap limit without memory limit".to_owned()),
        (_, limit) if limit < 0 => invalid(format!("invalid memory value: {limit}")),
        (swap, limit) if swap < limit => {
            invalid("memory+swap limit should be >= memory limit".to_owned())
        }
        (swap, limit) => Ok(Some(swap - limit)),
    }
}

/// Lowering `memory.max` below the usage would meet the OOM killer, not an error.
fn refuse_in_use(dir: &Path, limit: i64) -> Result<()> {
    let usage = file::read(dir, "memory.current")?;
    if usage.parse::<i64>().is_ok_and(|usage| usage > limit) {
        let peak = file::optional(file::read(dir, "memory.peak"))?.unwrap_or_else(|| usage.clone());
        return Err(Error::MemoryInUse { limit, usage, peak });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_together_become_swap_alone() {
        for ((with_swap, limit), expected) in [
            ((0, 0), None),
            ((0, 100), None),
            ((0, -1), Some(-1)),
            ((-1, 100), Some(-1)),
            ((300, 100), Some(200)),
            ((100, 100), Some(0)),
            ((50, -1), Some(50)),
        ] {
            assert_eq!(swap_max(with_swap, limit).unwrap(), expected, "{with_swap} {limit}");
        }
        for (with_swap, limit) in [(50, 100), (50, 0), (50, -2)] {
            assert!(swap_max(with_swap, limit).is_err(), "{with_swap} {limit}");
        }
    }
}
