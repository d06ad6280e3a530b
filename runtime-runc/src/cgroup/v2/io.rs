//! `io`: weights and limits of block devices.

use std::path::Path;

use oci_spec::runtime::LinuxBlockIo;

use super::super::{error::Result, file};

/// Sets what is not zero.
pub fn set(dir: &Path, block_io: &LinuxBlockIo) -> Result<()> {
    set_weights(dir, block_io)?;
    let limits = [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ];
    for (key, devices) in limits {
        for device in devices.iter().flatten() {
            let rate =
                if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            file::write(
                dir,
                "io.max",
                format!("{}:{} {key}={rate}", device.major(), device.minor()),
            )?;
        }
    }
    Ok(())
}

fn set_weights(dir: &Path, block_io: &LinuxBlockIo) -> Result<()> {
    let weight = block_io.weight().filter(|weight| *weight != 0);
    let devices = block_io.weight_device().as_deref().unwrap_or_default();
    if weight.is_none() && devices.is_empty() {
        return Ok(());
    }
    let is_bfq = dir.join("io.bfq.weight").exists();
    let file = if is_bfq { "io.bfq.weight" } else { "io.weight" };
    let scaled = |weight| if is_bfq { u64::from(weight) } else { weight_of(weight) };
    if let Some(weight) = weight {
        file::write(dir, file, scaled(weight))?;
    }
    for device in devices {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            file::write(
                dir,
                file,
                format!("{}:{} {}", device.major(), device.minor(), scaled(weight)),
            )?;
        }
    }
    Ok(())
}

/// Takes v1's weight (10 to 1000) to v2's (1 to 10000), end to end.
fn weight_of(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_at_both_ends() {
        assert_eq!([10, 500, 1000].map(weight_of), [1, 4950, 10_000]);
    }
}
