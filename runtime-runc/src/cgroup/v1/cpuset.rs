//! `cpuset`: which CPUs and memory nodes. A new directory has none of either, and takes no process before it has some.
//! Source: cgroup-v1/cpusets.rst.

use std::path::Path;

use oci_spec::runtime::LinuxCpu;

use super::super::{error::Result, file};

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Returns whether there is anything to set.
pub fn is_set(cpu: &LinuxCpu) -> bool {
    [cpu.cpus(), cpu.mems()].iter().any(|list| list.as_deref().is_some_and(|list| !list.is_empty()))
}

/// Sets what is not empty.
pub fn set(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    for (name, list) in FILES.iter().zip([cpu.cpus(), cpu.mems()]) {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            file::write(dir, name, list)?;
        }
    }
    Ok(())
}

/// Gives `dir` what its parent has, where it has nothing itself.
pub fn inherit(dir: &Path) -> Result<()> {
    for name in FILES {
        if !file::read(dir, name)?.is_empty() {
            continue;
        }
        let Some(parent) = dir.parent() else { continue };
        let mut list = file::read(parent, name)?;
        if list.is_empty() {
            inherit(parent)?;
            list = file::read(parent, name)?;
        }
        file::write(dir, name, list)?;
    }
    Ok(())
}

/// Readies a directory that we made for containers' directories below: with this flag the kernel fills them in by itself.
pub fn prepare_parent(dir: &Path) -> Result<()> {
    inherit(dir)?;
    file::write(dir, "cgroup.clone_children", 1)
}
