//! `pids`: how many tasks there may be. Source: cgroup-v1/pids.rst.

use std::path::Path;

use super::super::{error::Result, file};

/// A negative limit is none.
pub fn set(dir: &Path, limit: i64) -> Result<()> {
    if limit > 0 {
        file::write(dir, "pids.max", limit)
    } else {
        file::write(dir, "pids.max", "max")
    }
}
