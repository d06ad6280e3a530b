//! `cpu`: weight and bandwidth.

use std::path::Path;

use oci_spec::runtime::LinuxCpu;

use super::super::{error::Result, file};

/// The period when only a quota is given, in microseconds: the kernel's own.
const DEFAULT_PERIOD: u64 = 100_000;

/// Sets what is not zero.
pub fn set(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        file::write(dir, "cpu.idle", idle)?;
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        file::write(dir, "cpu.weight", weight_of(shares))?;
    }
    let quota = cpu.quota().unwrap_or(0);
    let period = cpu.period().unwrap_or(0);
    // A burst may only fit the new quota.
    let burst_later = match cpu.burst().map(|burst| file::write(dir, "cpu.max.burst", burst)) {
        Some(Err(error)) if quota != 0 && file::errno(&error) == Some(libc::EINVAL) => cpu.burst(),
        Some(outcome) => outcome.map(|()| None)?,
        None => None,
    };
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        file::write(dir, "cpu.max", format!("{quota} {period}"))?;
    }
    burst_later.map_or(Ok(()), |burst| file::write(dir, "cpu.max.burst", burst))
}

/// Takes v1's shares (2 to 262144, 1024 by default) to v2's weight (1 to 10000, 100 by default), such that all three meet: a
/// parabola through the logarithms, as runc has it since 1.3.2.
pub fn weight_of(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weight_meet_at_both_ends_and_the_default() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 40, 10_000)]
        {
            assert_eq!(weight_of(shares), weight, "{shares}");
        }
    }

    #[test]
    fn more_shares_never_weigh_less() {
        assert!((2..10_000).all(|shares| weight_of(shares) <= weight_of(shares + 1)));
    }
}
