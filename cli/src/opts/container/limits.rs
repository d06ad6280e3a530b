//! What the container may use: CPU, memory, IO, devices.

use std::collections::BTreeMap;

use cleat_proto::docker::container::{DeviceMapping, DeviceRequest, HostConfig};

use super::parsed;
use crate::flags::Flags;
use crate::opts::{blkio, device, gpus, ulimit};

/// What `--device` names.
pub struct Devices {
    mappings: Vec<DeviceMapping>,
    /// Names of the Container Device Interface.
    cdi: Vec<String>,
}

/// Reads `--device`.
///
/// # Errors
/// One that cannot be read.
pub fn devices(flags: &Flags) -> Result<Devices, String> {
    let (cdi, paths): (Vec<String>, Vec<String>) =
        flags.list("device").into_iter().partition(|name| device::is_cdi(name));
    let mappings = paths.iter().map(|path| device::parse(path)).collect::<Result<_, _>>()?;
    Ok(Devices { mappings, cdi })
}

/// The limits, in an otherwise empty host configuration.
///
/// # Errors
/// A limit that cannot be read.
pub fn limits(flags: &Flags, devices: Devices) -> Result<HostConfig, String> {
    let Devices { mappings, cdi } = devices;
    let mut device_requests = parsed(flags, "gpus", gpus::parse)?;
    if !cdi.is_empty() {
        device_requests.push(DeviceRequest {
            driver: "cdi".into(),
            device_ids: Some(cdi),
            ..DeviceRequest::default()
        });
    }
    let mut limits = BTreeMap::new();
    for limit in parsed(flags, "ulimit", ulimit::parse)? {
        limits.insert(limit.name.clone(), limit);
    }
    Ok(HostConfig {
        cgroup_parent: flags.text("cgroup-parent").into(),
        blkio_weight_device: parsed(flags, "blkio-weight-device", blkio::weight).map(Some)?,
        blkio_device_read_bps: parsed(flags, "device-read-bps", blkio::bps).map(Some)?,
        blkio_device_write_bps: parsed(flags, "device-write-bps", blkio::bps).map(Some)?,
        blkio_device_read_iops: parsed(flags, "device-read-iops", blkio::iops).map(Some)?,
        blkio_device_write_iops: parsed(flags, "device-write-iops", blkio::iops).map(Some)?,
        devices: Some(mappings),
        device_cgroup_rules: flags.slice("device-cgroup-rule"),
        device_requests: Some(device_requests).filter(|requests| !requests.is_empty()),
        memory_swappiness: Some(flags.int("memory-swappiness")),
        oom_kill_disable: Some(flags.on("oom-kill-disable")),
        pids_limit: Some(flags.int("pids-limit")),
        ulimits: Some(limits.into_values().collect()),
        cpu_count: flags.int("cpu-count"),
        cpu_percent: flags.int("cpu-percent"),
        io_maximum_iops: flags.int("io-maxiops") as u64,
        io_maximum_bandwidth: flags.bytes("io-maxbandwidth") as u64,
        ..changeable(flags)
    })
}

/// The limits that can be changed later, in an otherwise empty host configuration.
pub fn changeable(flags: &Flags) -> HostConfig {
    HostConfig {
        blkio_weight: flags.int("blkio-weight") as u16,
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").into(),
        cpuset_mems: flags.text("cpuset-mems").into(),
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: flags.bytes("memory-swap"),
        kernel_memory: flags.bytes("kernel-memory"),
        nano_cpus: flags.int("cpus"),
        ..HostConfig::default()
    }
}
