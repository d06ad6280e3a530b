//! The container's control groups: where they are, what is in them, and what they limit.
//!
//! A host has up to a dozen v1 hierarchies, one v2 ("unified") hierarchy, or both at once ("hybrid"); [`Cgroup`] has one
//! directory in each. The driver is cgroupfs: directories are made and removed, nobody is asked.
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

use std::{collections::BTreeMap, os::fd::BorrowedFd};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

/// One container's directory in each hierarchy.
#[derive(Debug)]
pub struct Cgroup {}

/// The open files through which one process joins; made by the parent, used by the child.
#[derive(Debug)]
pub struct Joiner {}

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// To be replaced within the hour.
    #[error("cgroups are not there yet")]
    NotYet,
}

impl Cgroup {
    /// Finds the hierarchies and names the directories; touches nothing. `cgroups_path` as in the OCI spec: absolute is below
    /// each hierarchy's root, relative below our own cgroup; absent means the container's id.
    pub fn new(_cgroups_path: Option<&str>, _container_id: &str) -> Result<Self, Error> {
        Err(Error::NotYet)
    }

    /// Returns the cgroup that [`Self::paths`] described.
    pub fn from_paths(_paths: BTreeMap<String, String>) -> Result<Self, Error> {
        Err(Error::NotYet)
    }

    /// Returns controller → absolute path, as runc's `state.json` has them in `cgroup_paths`: `name=systemd` and the like for
    /// hierarchies without a controller, the empty name for the unified one.
    pub fn paths(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Makes the directories (parents too; those that exist stay).
    pub fn create(&mut self) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Returns whether the container's cgroup exists.
    pub fn exists(&self) -> bool {
        false
    }

    /// Sets what a new container's resources ask for, device rules included (without rules: runc's default devices and no other).
    pub fn apply(&self, _resources: &LinuxResources) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Sets what an update asks for: as [`Self::apply`], device rules left alone.
    pub fn update(&self, _resources: &LinuxResources) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Opens what a process needs to join by itself. Open it in the parent, call [`Joiner::join`] in the child.
    pub fn joiner(&self) -> Result<Joiner, Error> {
        Err(Error::NotYet)
    }

    /// Moves any process into the cgroup. Slow (see the module); a child of ours joins by [`Self::joiner`] instead.
    pub fn add(&self, _pid: Pid) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Stops every process, and returns when the kernel says that they have stopped.
    pub fn freeze(&self) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Lets them run again.
    pub fn thaw(&self) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Returns whether [`Self::freeze`] was the last of the two.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Err(Error::NotYet)
    }

    /// Returns every process in it and below.
    pub fn pids(&self) -> Result<Vec<Pid>, Error> {
        Err(Error::NotYet)
    }

    /// Kills every process in it and below. They may not have gone yet when it returns; [`Self::delete`] waits.
    pub fn kill(&self) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Removes the directories, those below included. A directory that is gone already is no error.
    pub fn delete(&self) -> Result<(), Error> {
        Err(Error::NotYet)
    }

    /// Returns the child cgroup of that name (one path component), not yet created: for an exec's processes.
    pub fn exec_child(&self, _name: &str) -> Result<Self, Error> {
        Err(Error::NotYet)
    }
}

impl Joiner {
    /// Returns the directory for `CLONE_INTO_CGROUP`, if there is a unified hierarchy (on a hybrid host too). Who clones without
    /// it leaves the child where the parent is in that hierarchy.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Moves the calling, single-threaded process into the v1 hierarchies. Allocates nothing on success. To be called before
    /// `unshare(CLONE_NEWCGROUP)`, which takes where the process is for its root.
    pub fn join(&self) -> Result<(), Error> {
        Err(Error::NotYet)
    }
}
