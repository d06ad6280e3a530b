//! Limits in v1 hierarchies, a file per controller. Source: the kernel's Documentation/admin-guide/cgroup-v1/.

mod blkio;
mod cpu;
pub mod cpuset;
pub mod device;
mod hugetlb;
mod memory;
mod net;
mod pids;

use oci_spec::runtime::LinuxResources;

use super::{
    Cgroup,
    error::{Error, Result},
    v2,
};

/// Sets what `resources` has, each in its controller's hierarchy. A controller that nothing is set for may be missing.
pub fn set(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::UnifiedOnV1);
    }
    if let Some(cpu) = resources.cpu() {
        if cpuset::is_set(cpu) {
            cpuset::set(cgroup.controller("cpuset", "cpuset")?, cpu)?;
        }
        if cpu::is_set(cpu) {
            cpu::set(cgroup.controller("cpu", "cpu")?, cpu)?;
        }
    }
    if let Some(memory) = resources.memory().as_ref().filter(|memory| memory::is_set(memory)) {
        memory::set(cgroup.controller("memory", "memory")?, memory)?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        pids::set(cgroup.controller("pids", "pids")?, limit)?;
    }
    if let Some(block_io) = resources.block_io().as_ref().filter(|block_io| blkio::is_set(block_io))
    {
        blkio::set(cgroup.controller("blkio", "blkio")?, block_io)?;
    }
    if let Some(limits) = resources.hugepage_limits().as_ref().filter(|limits| !limits.is_empty()) {
        match cgroup.controller("hugetlb", "hugetlb") {
            Ok(dir) => hugetlb::set(dir, limits)?,
            Err(missing) => {
                // A hybrid host may have bound this one to v2.
                let unified = cgroup.unified().ok_or(missing)?;
                v2::enable_one(&unified.root, &unified.dir, "hugetlb")?;
                v2::hugetlb::set(&unified.dir, limits)?;
            }
        }
    }
    if let Some(network) = resources.network() {
        net::set(cgroup, network)?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        v2::set_rdma(cgroup.controller("rdma", "rdma")?, device, limits)?;
    }
    Ok(())
}
