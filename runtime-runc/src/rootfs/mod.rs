//! The container's root filesystem: made in its own mount namespace, by its own first process, on descriptors.
//!
//! ```text
//! prepare ─▶ root mount, mounts, /dev      (hooks, console)     enter ─▶ pivot_root     finish ─▶ read-only, masks
//! ```
//! Needs Linux 5.12 (`mount_setattr`): there is no fallback to paths.

mod cgroupfs;
mod copy;
mod device;
mod flags;
pub mod layer;
mod mask;
mod mount;
mod options;
mod path;
mod pivot;

pub use cgroupfs::binds as cgroup_binds;
pub use device::{is_null, open_null};
pub use mount::clean;
pub use options::Options;
pub use path::{Kind, lies_on, lies_on_proc, open_or_make};

use crate::error::{Context, Error, Result};
use crate::spec::{Mount, Spec};
use cleat_sys::mountapi::{self, Attributes, attr};
use layer::Layer;
use mount::Mounter;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, umask};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The root of a container that is being made.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
    late: Vec<OwnedFd>,
    /// `/dev` is ours, and not bound from elsewhere.
    pub own_devices: bool,
    /// It lies on top of the old root already.
    at_slash: bool,
}

/// What a root is made from.
pub struct Site<'a> {
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub layers: Option<&'a [Layer]>,
    /// The container's directory in each cgroup hierarchy.
    pub cgroups: &'a BTreeMap<String, String>,
    pub user_namespace: bool,
    /// The host's root has no part in it.
    pub rootless: bool,
    /// The mount namespace is the container's own.
    pub own_mounts: bool,
    pub no_pivot: bool,
    /// Asks the parent for the source of the mount of that number.
    pub fetch: &'a dyn Fn(usize) -> Result<OwnedFd>,
}

impl Rootfs {
    /// Makes the root mount, every mount of the configuration, and `/dev`. Leaves the umask at 0.
    ///
    /// # Errors
    /// [`Error`] naming the mount or device.
    pub fn prepare(site: &Site<'_>) -> Result<Self> {
        umask(Mode::empty());
        let spec = site.spec;
        if site.own_mounts {
            detach_from_host(&spec.linux.rootfs_propagation, site.rootfs)?;
        }
        let (root, at_slash) = match site.layers {
            Some(layers) => (layer::mount_all(layers)?, true),
            None => (bind_root(site.rootfs)?, false),
        };
        let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
        mountapi::set_attributes(&root, private, false)
            .context(|| "error preparing rootfs".to_owned())?;
        let mut mounter = Mounter { root: &root, site, late: Vec::new() };
        for (index, mount) in spec.mounts.iter().enumerate() {
            mounter.add(index, mount)?;
        }
        let late = mounter.late;
        let own_devices = needs_devices(spec);
        if own_devices {
            device::make_all(&root, &spec.linux.devices, site.user_namespace)?;
        }
        Ok(Self { root, late, own_devices, at_slash })
    }

    /// Makes it the root of the mount namespace, or of this process alone.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn enter(&self, site: &Site<'_>) -> Result<()> {
        let wanted = &site.spec.linux.rootfs_propagation;
        if !site.own_mounts {
            return pivot::change_root(&self.root);
        }
        if site.no_pivot {
            pivot::cover_slash(&self.root, self.at_slash)?;
        } else {
            pivot::enter(&self.root)?;
        }
        // Slave and private it is already; the others would have reached the host before.
        match propagation(wanted)? {
            Some(flags) if flags.contains(MsFlags::MS_SHARED) => set_propagation(flags),
            _ => Ok(()),
        }
    }

    /// Makes read-only and hides what should be.
    ///
    /// # Errors
    /// [`Error`] naming the path.
    pub fn finish(&self, spec: &Spec) -> Result<()> {
        let read_only = Attributes { set: attr::RDONLY, ..Attributes::default() };
        for mount in &self.late {
            mountapi::set_attributes(mount, read_only, false)
                .context(|| "cannot make a mount read-only".to_owned())?;
        }
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            mountapi::set_attributes(&self.root, read_only, false)
                .context(|| "error setting rootfs as readonly".to_owned())?;
        }
        mask::make_read_only(&self.root, &spec.linux.readonly_paths)?;
        mask::hide(&self.root, &spec.linux.masked_paths)?;
        // The last of all: what is read-only or hidden is bound.
        let own_mounts = spec.linux.namespaces.iter().any(|namespace| namespace.kind == "mount");
        match propagation(&spec.linux.rootfs_propagation)? {
            Some(flags) if own_mounts && flags.contains(MsFlags::MS_UNBINDABLE) => {
                set_propagation(flags)
            }
            _ => Ok(()),
        }
    }
}

fn set_propagation(flags: MsFlags) -> Result<()> {
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context(|| "unable to apply root propagation flags".to_owned())
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Returns where `path` leads to below `rootfs`, with its links followed as the container sees them.
///
/// # Errors
/// `ENOENT` where it leads nowhere.
pub fn real_path(rootfs: &Path, path: &Path) -> cleat_sys::Result<PathBuf> {
    use nix::fcntl::{OFlag, open};
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(rootfs, flags, Mode::empty())?;
    let found = cleat_sys::openat2::open_in_root(&root, path, libc::O_PATH, 0)?;
    let name = |fd: &OwnedFd| {
        nix::fcntl::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())
            .map(PathBuf::from)
    };
    let (root, found) = (name(&root)?, name(&found)?);
    let below = found.strip_prefix(&root).map_err(|_| cleat_sys::Errno::ENOENT)?;
    Ok(Path::new("/").join(below))
}

/// Makes every mount point of `mounts` below `rootfs` that is not there, those in the sources of bind mounts too, as a creation
/// does. What is mounted for that is seen by nobody else, and gone afterwards.
///
/// # Errors
/// [`Error::Kernel`] naming the mount.
pub fn make_mount_points(rootfs: &Path, bundle: &Path, mounts: &[Mount]) -> Result<()> {
    use cleat_sys::clone::{Fork, fork};
    let what = || "make mount points".to_owned();
    match fork(libc::CLONE_NEWNS, None).context(what)? {
        Fork::Child => {
            let made = mount_points(rootfs, bundle, mounts);
            if let Err(error) = &made {
                crate::log::error(&error.to_string());
            }
            std::process::exit(i32::from(made.is_err()))
        }
        Fork::Parent { pid, .. } => match nix::sys::wait::waitpid(pid, None).context(what)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(Error::State("cannot make the mount points".to_owned())),
        },
    }
}

fn mount_points(rootfs: &Path, bundle: &Path, mounts: &[Mount]) -> Result<()> {
    detach_from_host("rprivate", rootfs)?;
    let root = bind_root(rootfs)?;
    let lies_on_tmpfs = |mount: &Mount| {
        mounts.iter().any(|other| {
            other.kind == "tmpfs"
                && other.destination != mount.destination
                && mount.destination.starts_with(&other.destination)
        })
    };
    for mount in mounts.iter().filter(|mount| mount.kind != "cgroup" && !lies_on_tmpfs(mount)) {
        let what = || format!("create mountpoint for {} mount", mount.destination.display());
        let options = Options::parse(mount.options.iter().map(String::as_str))?;
        let bind = options.bind.or((mount.kind == "bind").then_some(false));
        let tree = match bind {
            Some(recursive) => {
                Some(mountapi::clone_tree(&bundle.join(&mount.source), recursive).context(what)?)
            }
            None => None,
        };
        let mode = tree.as_ref().map(nix::sys::stat::fstat).transpose().context(what)?;
        let is_file = mode.is_some_and(|stat| stat.st_mode & libc::S_IFMT != libc::S_IFDIR);
        let kind = if is_file { Kind::File } else { Kind::Directory };
        let (target, _) = open_or_make(&root, &mount.destination, kind).context(what)?;
        if let Some(tree) = tree {
            mountapi::attach(tree, target).context(what)?;
        }
    }
    Ok(())
}

/// Stops mounts of this namespace from reaching the host's (and, unless asked for, keeps those of the host coming in).
fn detach_from_host(wanted: &str, rootfs: &Path) -> Result<()> {
    let what = || "error preparing rootfs".to_owned();
    let set = |path: &Path, flags| {
        nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
    };
    let mut flags = propagation(wanted)?.unwrap_or(MsFlags::MS_SLAVE | MsFlags::MS_REC);
    if flags.contains(MsFlags::MS_UNBINDABLE) {
        // Not before everything is bound.
        flags = flags.difference(MsFlags::MS_UNBINDABLE) | MsFlags::MS_PRIVATE;
    }
    set(Path::new("/"), flags).context(what)?;
    if flags.contains(MsFlags::MS_SHARED) {
        // The new root is attached to the mount it lies on, which must reach nobody, and pivot_root wants it so.
        for path in rootfs.ancestors().chain([Path::new("/")]) {
            match set(path, MsFlags::MS_PRIVATE) {
                Err(cleat_sys::Errno::EINVAL) => {} // no mount begins here
                done => return done.context(what),
            }
        }
    }
    Ok(())
}

fn propagation(word: &str) -> Result<Option<MsFlags>> {
    let (word, depth) = match word.strip_prefix('r') {
        Some(word) => (word, MsFlags::MS_REC),
        None => (word, MsFlags::empty()),
    };
    let flag = match word {
        "" => return Ok(None),
        "private" => MsFlags::MS_PRIVATE,
        "slave" => MsFlags::MS_SLAVE,
        "shared" => MsFlags::MS_SHARED,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        other => return Err(Error::Invalid(format!("rootfsPropagation={other} is not supported"))),
    };
    Ok(Some(flag | depth))
}

/// Copies the tree at `rootfs` and puts it on top of the place itself, so that sources below it show what was mounted there.
fn bind_root(rootfs: &Path) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    let what = || format!("invalid rootfs: stat {}", rootfs.display());
    let place = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let place = place.context(what)?;
    let tree = mountapi::clone_tree_at(&place, true).context(what)?;
    mountapi::attach(&tree, place).context(what)?;
    Ok(tree)
}

/// A `/dev` that is bound from elsewhere is left as it is.
fn needs_devices(spec: &Spec) -> bool {
    let is_bind = |mount: &crate::spec::Mount| {
        mount.kind == "bind"
            || mount.options.iter().any(|option| option == "bind" || option == "rbind")
    };
    !spec
        .mounts
        .iter()
        .any(|mount| clean(&mount.destination) == Path::new("/dev") && is_bind(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_words_are_those_of_the_spec() {
        assert_eq!(propagation("").unwrap(), None);
        assert_eq!(propagation("rshared").unwrap(), Some(MsFlags::MS_SHARED | MsFlags::MS_REC));
        assert_eq!(propagation("slave").unwrap(), Some(MsFlags::MS_SLAVE));
        assert!(propagation("open").is_err());
    }
}
