//! `cpu`: shares, quota, real time. Source: the kernel's scheduler/sched-bwc.rst and sched-rt-group.rst.

use std::path::Path;

use oci_spec::runtime::LinuxCpu;

use super::super::{
    error::{Error, Result},
    file,
};

/// What the kernel takes; it would silently move others to the nearer end.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// Returns whether there is anything to set.
pub fn is_set(cpu: &LinuxCpu) -> bool {
    let amounts = [cpu.shares(), cpu.period(), cpu.realtime_period()];
    amounts.iter().any(|amount| amount.unwrap_or(0) != 0)
        || cpu.quota().unwrap_or(0) != 0
        || cpu.realtime_runtime().unwrap_or(0) != 0
        || cpu.burst().is_some()
        || cpu.idle().is_some()
}

/// Sets what is not zero.
pub fn set(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    match cpu.shares() {
        None | Some(0) => {}
        Some(shares @ MIN_SHARES..=MAX_SHARES) => file::write(dir, "cpu.shares", shares)?,
        Some(shares) => {
            let (end, bound) =
                if shares < MIN_SHARES { ("minimum", MIN_SHARES) } else { ("maximum", MAX_SHARES) };
            return Err(Error::InvalidLimit(format!("the {end} allowed cpu-shares is {bound}")));
        }
    }
    set_bandwidth(dir, cpu)?;
    if let Some(idle) = cpu.idle() {
        file::write(dir, "cpu.idle", idle)?;
    }
    set_real_time(dir, cpu)
}

fn set_bandwidth(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    // A smaller period may not fit the old quota, or a bigger quota the old period: what is refused first may be taken last.
    let retry_period = try_first(dir, "cpu.cfs_period_us", period, quota.is_some())?;
    let retry_burst = try_first(dir, "cpu.cfs_burst_us", cpu.burst(), quota.is_some())?;
    if let Some(quota) = quota {
        file::write(dir, "cpu.cfs_quota_us", quota)?;
    }
    if let Some(period) = retry_period {
        file::write(dir, "cpu.cfs_period_us", period)?;
    }
    retry_burst.map_or(Ok(()), |burst| file::write(dir, "cpu.cfs_burst_us", burst))
}

fn set_real_time(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let period = cpu.realtime_period().filter(|period| *period != 0);
    let retry = try_first(dir, "cpu.rt_period_us", period, runtime.is_some())?;
    if let Some(runtime) = runtime {
        file::write(dir, "cpu.rt_runtime_us", runtime)?;
    }
    retry.map_or(Ok(()), |period| file::write(dir, "cpu.rt_period_us", period))
}

/// Writes the value, and returns it if the kernel finds that it does not fit yet and it `may_fit_later`.
fn try_first(
    dir: &Path,
    name: &str,
    value: Option<u64>,
    may_fit_later: bool,
) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    match file::write(dir, name, value) {
        Err(error) if may_fit_later && file::errno(&error) == Some(libc::EINVAL) => Ok(Some(value)),
        other => other.map(|()| None),
    }
}
