//! `devices`: the kernel keeps the default and its exceptions itself. Source: cgroup-v1/devices.rst.

use std::path::Path;

use super::super::{
    device::{Filter, line},
    error::Result,
    file,
};

/// Sets the filter, whatever was there before. Nobody should be in the cgroup yet: the reset is felt.
pub fn set(dir: &Path, filter: &Filter) -> Result<()> {
    let (default, exceptions) = match filter.allows_by_default {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    // Resets the exceptions too.
    file::write(dir, default, "a")?;
    let lines: Vec<String> =
        filter.exceptions.iter().map(|(class, access)| line(*class, *access)).collect();
    file::write_each(dir, exceptions, &lines)
}
