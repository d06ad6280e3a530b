//! Limits: `HostConfig`'s resources as OCI's, and ulimits as rlimits.

use std::os::unix::fs::MetadataExt;

use cleat_proto::docker::container::{HostConfig, ThrottleDevice, Ulimit, WeightDevice};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

use super::Error;

/// `--cpus` counts in parts of this period, in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// Returns everything but the device rules, for a start and for an update.
///
/// # Errors
/// [`Error::Invalid`] for a block device that is not there.
pub fn build(host: &HostConfig) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(Some(memory(host)))
        .set_cpu(Some(cpu(host)).filter(|cpu| *cpu != LinuxCpu::default()))
        .set_pids(host.pids_limit.map(pids))
        .set_block_io(Some(block_io(host)?).filter(|io| *io != LinuxBlockIo::default()));
    Ok(resources)
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn memory(host: &HostConfig) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(positive(host.memory))
        .set_reservation(positive(host.memory_reservation))
        .set_swap(Some(host.memory_swap).filter(|&swap| swap != 0))
        .set_swappiness(host.memory_swappiness.and_then(|value| u64::try_from(value).ok()))
        .set_disable_oom_killer(host.oom_kill_disable)
        .set_kernel_tcp(positive(host.kernel_memory_tcp));
    memory
}

fn cpu(host: &HostConfig) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    cpu.set_shares(u64::try_from(host.cpu_shares).ok().filter(|&shares| shares > 0))
        .set_period(u64::try_from(host.cpu_period).ok().filter(|&period| period > 0))
        .set_quota(Some(host.cpu_quota).filter(|&quota| quota != 0))
        .set_realtime_period(
            u64::try_from(host.cpu_realtime_period).ok().filter(|&period| period > 0),
        )
        .set_realtime_runtime(Some(host.cpu_realtime_runtime).filter(|&runtime| runtime != 0))
        .set_cpus(text(&host.cpuset_cpus))
        .set_mems(text(&host.cpuset_mems));
    if host.nano_cpus > 0 {
        let quota = i128::from(host.nano_cpus) * i128::from(PERIOD_MICROS) / 1_000_000_000;
        cpu.set_period(Some(PERIOD_MICROS)).set_quota(i64::try_from(quota).ok());
    }
    cpu
}

/// 0 and below is no limit; an update has to say so.
fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(if limit > 0 { limit } else { -1 });
    pids
}

fn block_io(host: &HostConfig) -> Result<LinuxBlockIo, Error> {
    let mut io = LinuxBlockIo::default();
    io.set_weight(Some(host.blkio_weight).filter(|&weight| weight > 0))
        .set_weight_device(listed(&host.blkio_weight_device, weight)?)
        .set_throttle_read_bps_device(listed(&host.blkio_device_read_bps, throttle)?)
        .set_throttle_write_bps_device(listed(&host.blkio_device_write_bps, throttle)?)
        .set_throttle_read_iops_device(listed(&host.blkio_device_read_iops, throttle)?)
        .set_throttle_write_iops_device(listed(&host.blkio_device_write_iops, throttle)?);
    Ok(io)
}

fn listed<T, U>(
    list: &Option<Vec<T>>,
    read: impl Fn(&T) -> Result<U, Error>,
) -> Result<Option<Vec<U>>, Error> {
    let Some(list) = list.as_ref().filter(|list| !list.is_empty()) else { return Ok(None) };
    list.iter().map(read).collect::<Result<Vec<U>, Error>>().map(Some)
}

fn numbers(path: &str) -> Result<(i64, i64), Error> {
    let meta = std::fs::metadata(path)
        .map_err(|error| Error::Invalid(format!("stat {path}: {}", super::reason(&error))))?;
    Ok((nix::sys::stat::major(meta.rdev()) as i64, nix::sys::stat::minor(meta.rdev()) as i64))
}

fn weight(device: &WeightDevice) -> Result<LinuxWeightDevice, Error> {
    let (major, minor) = numbers(&device.path)?;
    Ok(LinuxWeightDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .weight(device.weight)
        .build()
        .expect("every field that has no default is given"))
}

fn throttle(device: &ThrottleDevice) -> Result<LinuxThrottleDevice, Error> {
    let (major, minor) = numbers(&device.path)?;
    Ok(LinuxThrottleDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .rate(device.rate)
        .build()
        .expect("every field that has no default is given"))
}

/// Reads one `--ulimit`; -1 is no limit.
///
/// # Errors
/// [`Error::Invalid`] for a name that is none, and for a soft limit above the hard one.
pub fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit, Error> {
    let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
    let kind: PosixRlimitType = serde_json::from_value(name.into())
        .map_err(|_| Error::Invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
    let (soft, hard) = (ulimit.soft, ulimit.hard);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(Error::Invalid(format!(
            "ulimit {}: soft limit must be less than or equal to hard limit: {soft} > {hard}",
            ulimit.name
        )));
    }
    // -1 becomes all ones, RLIM_INFINITY.
    Ok(PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft as u64)
        .hard(hard as u64)
        .build()
        .expect("every field that has no default is given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_limits_nothing() {
        let resources = build(&HostConfig::default()).unwrap();
        assert_eq!(*resources.memory(), Some(LinuxMemory::default()));
        assert!(
            resources.cpu().is_none()
                && resources.pids().is_none()
                && resources.block_io().is_none()
        );
    }

    #[test]
    fn cpus_become_a_quota_of_a_tenth_of_a_second() {
        let host = HostConfig { nano_cpus: 500_000_000, ..HostConfig::default() };
        let cpu = build(&host).unwrap().cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
    }

    #[test]
    fn no_limit_of_pids_is_said_aloud() {
        let host = HostConfig { pids_limit: Some(0), ..HostConfig::default() };
        assert_eq!(build(&host).unwrap().pids().unwrap().limit(), -1);
    }

    #[test]
    fn a_ulimit_is_checked() {
        let limit = |name: &str, soft, hard| rlimit(&Ulimit { name: name.into(), soft, hard });
        let nofile = limit("nofile", 99, 100).unwrap();
        assert_eq!(
            (nofile.typ(), nofile.soft(), nofile.hard()),
            (PosixRlimitType::RlimitNofile, 99, 100)
        );
        assert_eq!(limit("core", -1, -1).unwrap().hard(), u64::MAX);
        assert!(limit("nofile", 2, 1).unwrap_err().to_string().contains("2 > 1"));
        assert!(limit("bogus", 1, 1).is_err());
    }
}
