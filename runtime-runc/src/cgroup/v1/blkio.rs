//! `blkio`: weights (where the kernel has a scheduler with them) and throttles. Source: cgroup-v1/blkio-controller.rst.

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::super::{error::Result, file};

/// The four kinds of throttle.
type Throttles<'a> = [(&'static str, &'a Option<Vec<LinuxThrottleDevice>>); 4];

fn throttles(block_io: &LinuxBlockIo) -> Throttles<'_> {
    [
        ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ]
}

/// Returns whether there is anything to set.
pub fn is_set(block_io: &LinuxBlockIo) -> bool {
    [block_io.weight(), block_io.leaf_weight()].iter().any(|weight| weight.unwrap_or(0) != 0)
        || block_io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty())
        || throttles(block_io)
            .iter()
            .any(|(_, devices)| devices.as_ref().is_some_and(|devices| !devices.is_empty()))
}

/// Sets what is not zero.
pub fn set(dir: &Path, block_io: &LinuxBlockIo) -> Result<()> {
    set_weights(dir, block_io)?;
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        file::write(dir, "blkio.leaf_weight", weight)?;
    }
    for (file, devices) in throttles(block_io) {
        let line = |device: &LinuxThrottleDevice| {
            format!("{}:{} {}", device.major(), device.minor(), device.rate())
        };
        let lines: Vec<String> = devices.iter().flatten().map(line).collect();
        file::write_each(dir, file, &lines)?;
    }
    Ok(())
}

fn set_weights(dir: &Path, block_io: &LinuxBlockIo) -> Result<()> {
    let weight = block_io.weight().filter(|weight| *weight != 0);
    let devices = block_io.weight_device().as_deref().unwrap_or_default();
    if weight.is_none() && devices.is_empty() {
        return Ok(());
    }
    // The name since BFQ replaced CFQ (5.0), or the one before.
    let is_bfq = dir.join("blkio.bfq.weight").exists();
    let (file, device_file) = if is_bfq {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    } else {
        ("blkio.weight", "blkio.weight_device")
    };
    if let Some(weight) = weight {
        file::write(dir, file, weight)?;
    }
    for device in devices {
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            file::write(dir, device_file, line(weight))?;
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            file::write(dir, "blkio.leaf_weight_device", line(weight))?;
        }
    }
    Ok(())
}
