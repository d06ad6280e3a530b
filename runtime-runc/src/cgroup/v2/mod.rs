//! Limits in the unified hierarchy, and how v1's numbers become v2's. Source: the kernel's admin-guide/cgroup-v2.rst.

pub mod cpu;
pub mod device;
pub mod hugetlb;
mod io;
pub mod memory;

use std::{collections::HashMap, path::Path};

use oci_spec::runtime::{LinuxRdma, LinuxResources};

use super::{
    error::{Error, Result},
    file,
};

/// Sets what `resources` has; what is v1's alone (network classes, swappiness, real time, the OOM switch) has no meaning here.
pub fn set(dir: &Path, resources: &LinuxResources) -> Result<()> {
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        if limit > 0 {
            file::write(dir, "pids.max", limit)
        } else {
            file::write(dir, "pids.max", "max")
        }?;
    }
    if let Some(memory) = resources.memory() {
        memory::set(dir, memory)?;
    }
    if let Some(block_io) = resources.block_io() {
        io::set(dir, block_io)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::set(dir, cpu)?;
        for (name, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                file::write(dir, name, list)?;
            }
        }
    }
    if let Some(limits) = resources.hugepage_limits() {
        hugetlb::set(dir, limits)?;
    }
    for (name, limits) in resources.rdma().iter().flatten() {
        set_rdma(dir, name, limits)?;
    }
    resources.unified().as_ref().map_or(Ok(()), |unified| set_unified(dir, unified))
}

/// Sets the limits of one RDMA device; the file is the same in v1.
pub fn set_rdma(dir: &Path, device: &str, limits: &LinuxRdma) -> Result<()> {
    let mut line = device.to_owned();
    for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())]
    {
        if let Some(limit) = limit {
            line.push_str(&format!(" {key}={limit}"));
        }
    }
    file::write(dir, "rdma.max", line)
}

/// Writes the spec's own file names and values. Source: OCI runtime-spec, config-linux.md, "Unified".
fn set_unified(dir: &Path, unified: &HashMap<String, String>) -> Result<()> {
    for (name, value) in unified {
        if name.contains('/') {
            return Err(Error::InvalidLimit(format!(
                "unified resource {name:?} must be a file name (no slashes)"
            )));
        }
        let lines: Vec<String> = value.lines().map(str::to_owned).collect();
        let Err(error) = file::write_each(dir, name, &lines) else { continue };
        let Some((controller, _)) = name.split_once('.') else {
            let wrong =
                format!("unified resource {name:?} must be in the form CONTROLLER.PARAMETER");
            return Err(Error::InvalidLimit(wrong));
        };
        let available = file::read(dir, "cgroup.controllers")?;
        if controller != "cgroup" && !available.split(' ').any(|known| known == controller) {
            let missing = format!(
                "unified resource {name:?} can't be set: controller {controller:?} not available"
            );
            return Err(Error::InvalidLimit(missing));
        }
        return Err(error);
    }
    Ok(())
}

/// Hands every controller of the root down to `dir`, as far as the cgroups between let it.
pub fn enable_controllers(root: &Path, dir: &Path) -> Result<()> {
    let available = file::read(root, "cgroup.controllers")?;
    for_each_ancestor(root, dir, &mut |ancestor| {
        let enabled = file::read(ancestor, "cgroup.subtree_control")?;
        let is_missing = |name: &&str| !enabled.split(' ').any(|known| known == *name);
        let missing: Vec<String> =
            available.split(' ').filter(is_missing).map(|name| format!("+{name}")).collect();
        if missing.is_empty()
            || file::write(ancestor, "cgroup.subtree_control", missing.join(" ")).is_ok()
        {
            return Ok(());
        }
        // One that cannot be handed down (real-time processes keep cpu back) must not keep back the others; a limit
        // that needs it will say so.
        missing
            .into_iter()
            .for_each(|one| drop(file::write(ancestor, "cgroup.subtree_control", one)));
        Ok(())
    })
}

/// Hands one controller of the root down to `dir`.
pub fn enable_one(root: &Path, dir: &Path, controller: &str) -> Result<()> {
    for_each_ancestor(root, dir, &mut |ancestor| {
        file::write(ancestor, "cgroup.subtree_control", format!("+{controller}"))
    })
}

/// Calls for each directory from `root` down to `dir`'s parent. An empty root (unknown) calls for none.
fn for_each_ancestor(
    root: &Path,
    dir: &Path,
    call: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let Some(parent) =
        dir.parent().filter(|parent| !root.as_os_str().is_empty() && parent.starts_with(root))
    else {
        return Ok(());
    };
    if parent != root {
        for_each_ancestor(root, parent, call)?;
    }
    call(parent)
}
