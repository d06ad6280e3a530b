//! `/dev/shm` of a container that shares it (`--ipc shareable`): a tmpfs that others can bind.
//!
//! It is the one thing that is mounted in the host's mount namespace: a mount of another container's namespace cannot be
//! bound (`open_tree(2)`, EINVAL), so what two containers share must be in neither. It goes with the task.

use std::{io, path::PathBuf};

use cleat_proto::{id::ContainerId, kind::Kind};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{Engine, Error, Result, paths};
use crate::container::Record;

impl Engine {
    /// Where it is: `ROOT/containers/<id>/shm`.
    pub(super) fn shm_path(&self, id: &ContainerId) -> PathBuf {
        self.container_dir(id).join("shm")
    }

    /// Mounts it, for a container that shares its own.
    pub(super) fn share_shm(&self, record: &Record) -> Result<()> {
        if record.host_config.ipc_mode != "shareable" {
            return Ok(());
        }
        self.unshare_shm(&record.id);
        let path = self.shm_path(&record.id);
        paths::make_private(&path)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = format!("mode=1777,size={}", record.host_config.shm_size);
        mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str())).map_err(|errno| {
            let text = format!("cannot mount {}", path.display());
            Error::with_source(Kind::Internal, text, io::Error::from(errno))
        })
    }

    /// Unmounts it; that there is none is fine. Who has it bound keeps it until he ends.
    pub(super) fn unshare_shm(&self, id: &ContainerId) {
        let path = self.shm_path(id);
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => tracing::error!(container = %id, %error, "cannot unmount a shm"),
        }
    }
}
