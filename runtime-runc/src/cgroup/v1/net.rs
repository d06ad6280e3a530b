//! `net_cls` and `net_prio`: marks and priorities of traffic. Sources: cgroup-v1/net_cls.rst, net_prio.rst.

use oci_spec::runtime::{LinuxInterfacePriority, LinuxNetwork};

use super::super::{Cgroup, error::Result, file};

/// Sets what is there.
pub fn set(cgroup: &Cgroup, network: &LinuxNetwork) -> Result<()> {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        file::write(cgroup.controller("net_cls", "net_cls")?, "net_cls.classid", class)?;
    }
    let priorities = network.priorities().as_deref().unwrap_or_default();
    if priorities.is_empty() {
        return Ok(());
    }
    let line =
        |priority: &LinuxInterfacePriority| format!("{} {}", priority.name(), priority.priority());
    let lines: Vec<String> = priorities.iter().map(line).collect();
    file::write_each(cgroup.controller("net_prio", "net_prio")?, "net_prio.ifpriomap", &lines)
}
