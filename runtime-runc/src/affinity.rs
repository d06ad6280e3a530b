//! Which CPUs a process may run on: `process.execCPUAffinity`, and none of what our caller was pinned to.

use crate::error::{Context, Error, Result};
use crate::log;
use cleat_sys::process::set_affinity;

/// As many CPUs as a kernel can have, `CONFIG_NR_CPUS`.
const MAX_CPUS: usize = 8192;

/// Lets this process run everywhere; a cpuset still holds it.
pub fn reset() {
    if let Err(errno) = set_affinity(&[u64::MAX; MAX_CPUS / 64]) {
        log::warn(&format!("cannot reset the CPU affinity: {}", crate::error::reason(errno)));
    }
}

/// Pins this process to `cpus`, in the notation of `cpuset(7)`, List format.
///
/// # Errors
/// [`Error::Invalid`] for what is no such list, `EINVAL` where none of them is to be had.
pub fn set(cpus: &str) -> Result<()> {
    let mask = parse(cpus)?;
    let shown = mask.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    let digits: String = mask[..shown].iter().rev().map(|word| format!("{word:016x}")).collect();
    log::debug(|| {
        format!("nsexec[{}]: affinity: 0x{}", std::process::id(), digits.trim_start_matches('0'))
    });
    set_affinity(&mask).context(|| format!("cannot set the CPU affinity {cpus:?}"))
}

/// Reads a list such as `0-2,5` into a mask.
///
/// # Errors
/// [`Error::Invalid`].
pub fn parse(cpus: &str) -> Result<Vec<u64>> {
    let wrong = || Error::Invalid(format!("invalid CPU list {cpus:?}"));
    let mut mask = vec![0; MAX_CPUS / 64];
    for part in cpus.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= MAX_CPUS {
            return Err(wrong());
        }
        (first..=last).for_each(|cpu| mask[cpu / 64] |= 1u64 << (cpu % 64));
    }
    if mask.iter().all(|word| *word == 0) { Err(wrong()) } else { Ok(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        assert_eq!(parse("0-2,5").unwrap()[0], 0b10_0111);
        assert_eq!(parse(" 64, 1 ").unwrap()[..2], [2, 1]);
        assert!(["", "x", "2-1", "8192", "1-"].iter().all(|text| parse(text).is_err()));
    }
}
