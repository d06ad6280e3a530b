//! Limits on block devices: `PATH:NUMBER`.

use cleat_proto::docker::container::{ThrottleDevice, WeightDevice};

use crate::go;

fn split(value: &str) -> Result<(&str, &str), String> {
    match value.split_once(':') {
        None | Some(("", _)) => Err(format!("bad format: {value}")),
        Some((path, _)) if !path.starts_with("/dev/") => {
            Err(format!("bad format for device path: {value}"))
        }
        Some(parts) => Ok(parts),
    }
}

/// Reads a weight between 10 and 1000, or 0.
///
/// # Errors
/// No device, or no such weight.
pub fn weight(value: &str) -> Result<WeightDevice, String> {
    let (path, number) = split(value)?;
    let weight = go::parse_uint(number, 10, 16)
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| format!("invalid weight for device: {value}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight: weight as u16 })
}

/// Reads a rate in bytes per second.
///
/// # Errors
/// No device, or no size.
pub fn bps(value: &str) -> Result<ThrottleDevice, String> {
    let (path, number) = split(value)?;
    let rate = super::size::ram_in_bytes(number).map_err(|_| {
        format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate: rate as u64 })
}

/// Reads a rate in operations per second.
///
/// # Errors
/// No device, or no number.
pub fn iops(value: &str) -> Result<ThrottleDevice, String> {
    let (path, number) = split(value)?;
    let rate = go::parse_uint(number, 10, 64).map_err(|_| {
        format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}
