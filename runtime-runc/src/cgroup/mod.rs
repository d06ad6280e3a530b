//! The container's control groups: where they are, what is in them, and what they limit.
//!
//! A host has up to a dozen v1 hierarchies, one v2 ("unified") hierarchy, or both at once ("hybrid"); [`Cgroup`] has one
//! directory in each. With the driver cgroupfs directories are made and removed, and nobody is asked; with the other one they
//! belong to a unit of systemd's (`systemd/`), which is asked first.
//!
//! ```text
//! new ──▶ create ──▶ apply ──▶ joiner ── clone3 ──▶ join (in the child)
//!                                            … freeze, thaw, pids, kill …  ──▶ delete
//! ```
//!
//! **Joining.** A process that writes a pid into `cgroup.procs` makes the kernel take the lock of all thread groups for
//! writing, which waits for RCU: 5 to 10 ms. A single-threaded process that writes `0` into the `tasks` file of a v1
//! hierarchy moves itself without that lock, and `CLONE_INTO_CGROUP` starts a child in a v2 cgroup without it (20 µs each).
//! So the child joins itself ([`Joiner::join`]), and [`Cgroup::add`] is for those who cannot.
//! Source: `cgroup_procs_write_start` in the kernel's `kernel/cgroup/cgroup.c`.
//!
//! **Tracking.** Who is in the container, and whether anybody is, is asked in one hierarchy: the unified one where there is
//! one, since it alone kills in one step, freezes for sure and tells when it is empty.

mod device;
mod error;
mod file;
mod freezer;
mod hierarchy;
mod join;
mod life;
mod systemd;
#[cfg(test)]
mod tests;
mod usual;
mod v1;
mod v2;

use std::{collections::BTreeMap, path::PathBuf};

use oci_spec::runtime::LinuxResources;

pub use self::{error::Error, file::slurp, join::Joiner, systemd::Unit};
use self::{
    error::Result,
    hierarchy::{Hierarchy, from_paths, locate},
};

/// One container's directory in each hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Vec<Hierarchy>,
    /// Of the systemd driver.
    unit: Option<Unit>,
}

impl Cgroup {
    /// Finds the hierarchies and names the directories; touches nothing. `cgroups_path` as in the OCI spec: absolute is below
    /// each hierarchy's root, relative below our own cgroup; absent or empty means the container's id.
    ///
    /// Source: OCI runtime-spec, config-linux.md, "Cgroups Path".
    pub fn new(cgroups_path: Option<&str>, container_id: &str) -> Result<Self> {
        Ok(Self { hierarchies: locate(cgroups_path, container_id)?, unit: None })
    }

    /// Returns this process's own cgroup, which a container without one is in. With v1 only.
    pub fn own() -> Result<Self> {
        let mut own = Self::new(Some("below"), "")?;
        for hierarchy in &mut own.hierarchies {
            hierarchy.dir.pop();
        }
        Ok(own)
    }

    /// Returns the cgroup that [`Self::paths`] and [`Self::unit`] described.
    pub fn from_paths(paths: BTreeMap<String, String>, unit: Option<Unit>) -> Result<Self> {
        Ok(Self { hierarchies: from_paths(&paths)?, unit })
    }

    /// Returns controller → absolute path, as runc's `state.json` has them in `cgroup_paths`: `name=systemd` and the like for
    /// hierarchies without a controller, the empty name for the unified one.
    pub fn paths(&self) -> BTreeMap<String, String> {
        let path = |hierarchy: &Hierarchy| hierarchy.dir.display().to_string();
        self.hierarchies
            .iter()
            .flat_map(|h| h.names.iter().map(move |name| (name.clone(), path(h))))
            .collect()
    }

    /// Sets what a new container's resources ask for, device rules included (none in the spec: the default devices alone).
    /// Nobody should be in the cgroup yet.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let told = self.tell_systemd(resources, true)?;
        let filter = device::Filter::new(resources.devices().as_deref().unwrap_or_default())?;
        let done = if self.is_pure_v2() {
            v2::device::set(&self.tracking().dir, &filter)
        } else {
            v1::device::set(self.controller("devices", "devices")?, &filter)
        };
        match done {
            // Who is not the host's root has no right to, and no device nodes either.
            Err(error) if is_denied(&error) && crate::rootless::is_without_host_s_rights() => {}
            done => done?,
        }
        self.write(told.as_ref().unwrap_or(resources))
    }

    /// Sets what an update asks for: as [`Self::apply`], device rules left alone.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if self.is_pure_v2()
            && let Some(memory) = resources.memory()
        {
            // Before systemd is told, which would meet the OOM killer.
            v2::memory::check(&self.tracking().dir, memory)?;
        }
        let told = self.tell_systemd(resources, false)?;
        self.write(told.as_ref().unwrap_or(resources))
    }

    fn write(&self, resources: &LinuxResources) -> Result<()> {
        if self.is_pure_v2() {
            v2::set(&self.tracking().dir, resources)
        } else {
            v1::set(self, resources)
        }
    }

    /// Returns the cgroup whose directories lie below this one's as `paths` say: `PATH` for every hierarchy, or
    /// `CONTROLLER[,CONTROLLER]:PATH`. None of them is made.
    ///
    /// # Errors
    /// [`Error::BadSubPath`] for one that leads out, [`Error::UnknownController`].
    pub fn below(&self, paths: &[String]) -> Result<Self> {
        let mut below = self.clone();
        for text in paths {
            let (controllers, path) = match text.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, text.as_str()),
            };
            if path.split('/').any(|name| name == "..") {
                return Err(Error::BadSubPath(text.clone()));
            }
            let path = path.trim_matches('/');
            let Some(controllers) = controllers else {
                below.hierarchies.iter_mut().for_each(|hierarchy| hierarchy.dir.push(path));
                continue;
            };
            let mut done: Vec<usize> = Vec::new();
            for controller in controllers.split(',') {
                let bound = |h: &Hierarchy| h.names.iter().any(|name| name == controller);
                let at = below.hierarchies.iter().position(bound);
                let at = at.ok_or_else(|| Error::UnknownController(controller.to_owned()))?;
                // Two controllers of one hierarchy.
                if !done.contains(&at) {
                    below.hierarchies[at].dir.push(path);
                    done.push(at);
                }
            }
        }
        Ok(below)
    }

    fn is_pure_v2(&self) -> bool {
        matches!(self.hierarchies.as_slice(), [only] if only.is_unified())
    }

    /// Returns the directory where a v1 controller is set.
    fn controller(&self, controller: &'static str, limit: &'static str) -> Result<&PathBuf> {
        let bound = |hierarchy: &&Hierarchy| hierarchy.names.iter().any(|name| name == controller);
        let found = self.hierarchies.iter().find(bound);
        found.map(|hierarchy| &hierarchy.dir).ok_or(Error::NoController { controller, limit })
    }

    fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.is_unified())
    }

    fn tracking(&self) -> &Hierarchy {
        &self.hierarchies[self.tracking_index()]
    }

    /// See "Tracking" above. Both constructors see to it that there is at least one hierarchy.
    fn tracking_index(&self) -> usize {
        let index_of =
            |name: &str| self.hierarchies.iter().position(|h| h.names.iter().any(|n| n == name));
        ["", "freezer", "devices", "pids"].into_iter().find_map(index_of).unwrap_or(0)
    }
}

/// Returns whether a cgroup belongs to somebody with more rights.
pub fn is_denied(error: &Error) -> bool {
    match error {
        Error::DeviceFilter { source, .. }
        | Error::Write { source, .. }
        | Error::Create { source, .. } => {
            matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS))
        }
        _ => false,
    }
}
