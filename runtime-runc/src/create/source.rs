//! Sources of mounts that init may not open itself: in a user namespace it has not the host's rights to the way there, and only
//! the host's root may map the ids of a mount. A child of this process enters init's mount namespace, where the mounts that
//! came before are to be seen, opens the source with the rights it still has, and sends it to init as if it were its parent.

use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result};
use crate::namespace::id_map;
use crate::rootfs::Options;
use crate::spec::{IdMapping, Mount};
use cleat_sys::clone::{Fork, fork};
use cleat_sys::mountapi::{self, Attributes, attr};
use cleat_sys::pidfd::PidFd;
use cleat_sys::process::set_namespaces;
use nix::sys::wait::waitpid;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Answers init's request for the source of `mount`.
///
/// # Errors
/// Where there is no process to be had; what goes wrong with the source is said to init.
pub(super) fn serve(
    channel: &Channel,
    mount: &Mount,
    bundle: &Path,
    (pid, init): (i32, &PidFd),
) -> Result<()> {
    match fork(0, None).context(|| "fork".to_owned())? {
        Fork::Child => {
            let answer = match open(mount, bundle, pid, init) {
                Ok(tree) => Message::Tree(tree),
                Err(error) => Message::Failed(error.to_string()),
            };
            let sent = channel.send(&answer);
            std::process::exit(i32::from(sent.is_err()))
        }
        Fork::Parent { pid, .. } => waitpid(pid, None).context(|| "wait".to_owned()).map(drop),
    }
}

fn open(mount: &Mount, bundle: &Path, pid: i32, init: &PidFd) -> Result<OwnedFd> {
    let options = Options::parse(mount.options.iter().map(String::as_str))?;
    let recursive = options.bind.unwrap_or(false);
    let mapped = match options.idmap(mount) {
        Some(all) => Some((user_namespace(mount, pid)?, all)),
        None => None,
    };
    set_namespaces(init, libc::CLONE_NEWNS).context(|| "enter init's mounts".to_owned())?;
    let source = bundle.join(&mount.source);
    let what = || format!("bind {}", source.display());
    let tree = mountapi::clone_tree(&source, recursive).context(what)?;
    if let Some((namespace, all)) = mapped {
        let user_namespace = namespace.as_raw_fd() as u64;
        let map = Attributes { set: attr::IDMAP, user_namespace, ..Attributes::default() };
        mountapi::set_attributes(&tree, map, all)
            .context(|| format!("failed to set MOUNT_ATTR_IDMAP on {}", source.display()))?;
    }
    Ok(tree)
}

/// Returns a user namespace with the mount's own mappings, or the container's where it has none.
fn user_namespace(mount: &Mount, init: i32) -> Result<File> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        let path = format!("/proc/{init}/ns/user");
        return File::open(&path).context(|| format!("open {path}"));
    }
    let what = || "failed to create a user namespace for the id mapping".to_owned();
    match fork(libc::CLONE_NEWUSER, None).context(what)? {
        Fork::Child => loop {
            nix::unistd::pause();
        },
        Fork::Parent { pid, pidfd } => {
            let made = map_ids(pid.as_raw(), &mount.uid_mappings, &mount.gid_mappings);
            let _ = pidfd.kill();
            let _ = waitpid(pid, None);
            made
        }
    }
}

fn map_ids(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<File> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        if mappings.is_empty() {
            let text = "an idmapped mount needs both uidMappings and gidMappings".to_owned();
            return Err(Error::Invalid(text));
        }
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, id_map(mappings)).context(|| format!("failed to write {path}"))?;
    }
    let path = format!("/proc/{pid}/ns/user");
    File::open(&path).context(|| format!("open {path}"))
}
