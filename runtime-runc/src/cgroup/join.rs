//! How a process comes into the cgroup; see "Joining" in the module above.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::{
    Cgroup,
    error::{Error, Result},
    file,
};

/// The open files through which one process joins; made by the parent, used by the child.
#[derive(Debug)]
pub struct Joiner {
    /// The `tasks` file of each v1 hierarchy.
    tasks: Vec<(PathBuf, File)>,
    unified: Option<OwnedFd>,
}

impl Cgroup {
    /// Opens what a process needs to join by itself. Open it in the parent, call [`Joiner::join`] in the child.
    pub fn joiner(&self) -> Result<Joiner> {
        let failed =
            |path: &PathBuf, source| Error::Write { path: path.clone(), value: "0".into(), source };
        let mut joiner =
            Joiner { tasks: Vec::with_capacity(self.hierarchies.len()), unified: None };
        for hierarchy in &self.hierarchies {
            if hierarchy.is_unified() {
                let mut directory = OpenOptions::new();
                directory.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
                let opened = directory
                    .open(&hierarchy.dir)
                    .map_err(|source| failed(&hierarchy.dir, source))?;
                joiner.unified = Some(opened.into());
            } else {
                let path = hierarchy.dir.join("tasks");
                let opened = OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(|source| failed(&path, source))?;
                joiner.tasks.push((path, opened));
            }
        }
        Ok(joiner)
    }

    /// Returns the same cgroup, but in the unified hierarchy the one below it where `member` is. Once a container has moved its
    /// processes into children and handed controllers on to them (as an engine inside it does), nobody can join its own
    /// cgroup any more: `EBUSY`. Source: the kernel's admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
    pub fn of_member(&self, member: Pid) -> Result<Self> {
        let mut cgroup = self.clone();
        let path = PathBuf::from(format!("/proc/{member}/cgroup"));
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        let unified = cgroup.hierarchies.iter_mut().find(|hierarchy| hierarchy.is_unified());
        if let (Some(unified), Some(found)) = (unified, member_path(&text)) {
            // The name of the container's cgroup tells where its part of the path ends, wherever the hierarchy is mounted.
            let own = unified.dir.file_name().unwrap_or_default();
            let below: PathBuf = found.iter().skip_while(|part| *part != own).skip(1).collect();
            unified.dir.extend(&below);
        }
        Ok(cgroup)
    }

    /// Moves any process into the cgroup. Slow (see the module); a child of ours joins by [`Self::joiner`] instead.
    pub fn add(&self, pid: Pid) -> Result<()> {
        self.attach(pid)
    }

    pub(super) fn add_directly(&self, pid: Pid) -> Result<()> {
        self.hierarchies
            .iter()
            .try_for_each(|hierarchy| file::write(&hierarchy.dir, "cgroup.procs", pid))
    }
}

/// Finds the line of the unified hierarchy. Source: `cgroups(7)`, "/proc files".
fn member_path(text: &str) -> Option<&Path> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

impl Joiner {
    /// Returns the directory for `CLONE_INTO_CGROUP`, if there is a unified hierarchy (on a hybrid host too). Who clones without
    /// it leaves the child where the parent is in that hierarchy.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling, single-threaded process into the v1 hierarchies. Allocates nothing on success. To be called before
    /// `unshare(CLONE_NEWCGROUP)`, which takes where the process is for its root.
    pub fn join(&self) -> Result<()> {
        for (path, tasks) in &self.tasks {
            let mut tasks: &File = tasks;
            let written = tasks.write_all(b"0");
            written.map_err(|source| Error::Write {
                path: path.clone(),
                value: "0".into(),
                source,
            })?;
        }
        Ok(())
    }
}
