//! The mount types `cgroup` and `cgroup2`: what a container sees of its own control groups.
//!
//! On a v2 host a cgroup2 mount, which the container's cgroup namespace cuts off at its own group. Where v1 hierarchies are, a
//! tmpfs with a bind of the container's own directory of each: it shows the same with and without a cgroup namespace.

use super::mount::{Mounter, adjust, new_mount};
use super::options::Options;
use super::path::{self, Kind};
use crate::error::{Context, Error, Result};
use cleat_sys::Errno;
use cleat_sys::mountapi::{self, Attributes, attr};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::CGROUP2_SUPER_MAGIC;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Where the host has its hierarchies, `file-hierarchy(7)`.
const HOST: &str = "/sys/fs/cgroup";

pub(super) fn mount(
    mounter: &mut Mounter<'_>,
    destination: &Path,
    options: &Options,
) -> Result<()> {
    let (target, _) = mounter.target(destination, Kind::Directory)?;
    let host = nix::fcntl::open(
        HOST,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    let host = host.context(|| format!("open {HOST}"))?;
    if path::lies_on(&host, CGROUP2_SUPER_MAGIC).context(|| "statfs".to_owned())? {
        let made = match new_mount("cgroup2", "cgroup", &[], options.new_mount()) {
            // Without a cgroup namespace of one's own it takes the host's root: then what the host shows, as it is.
            Err(error) if mounter.site.rootless || is_refused(&error) => {
                let tree = mountapi::clone_tree_at(&host, true).context(|| "bind".to_owned())?;
                adjust(&tree, options).context(|| "bind".to_owned())?;
                tree
            }
            made => made?,
        };
        return mountapi::attach(made, target).context(|| "move_mount".to_owned());
    }
    let base = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let tmpfs = new_mount("tmpfs", "tmpfs", &["mode=755".to_owned()], base)?;
    mountapi::attach(&tmpfs, target).context(|| "move_mount".to_owned())?;
    for (directory, controllers) in hierarchies(mounter.site.cgroups) {
        bind(&tmpfs, directory, &controllers)?;
    }
    // All of them at once: nobody sees any of it yet.
    // Mounts of the host's stay its own, even where its hierarchies are shared, as systemd has them.
    let propagation = libc::MS_PRIVATE;
    let own = Attributes { set: options.own.set | base, propagation, ..options.own };
    mountapi::set_attributes(&tmpfs, own, true).context(|| "mount_setattr".to_owned())?;
    let rest = Options { own: Attributes::default(), ..options.clone() };
    adjust(&tmpfs, &rest).context(|| "mount_setattr".to_owned())
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Kernel { errno: Errno::EPERM | Errno::EBUSY, .. })
}

/// Returns directory → controllers whose hierarchy it is in.
fn hierarchies(cgroups: &BTreeMap<String, String>) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (controller, directory) in cgroups {
        found.entry(directory).or_default().push(controller);
    }
    found
}

/// Returns (name below the mount, directory of the host) of the binds that a `cgroup` mount is made of where v1 hierarchies are.
pub fn binds(cgroups: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let found = hierarchies(cgroups).into_keys();
    let named =
        |directory: &str| Some((hierarchy_name(directory)?.to_owned(), directory.to_owned()));
    found.filter_map(named).collect()
}

/// Binds a directory under its hierarchy's name, and links the other names of the hierarchy to it.
fn bind(tmpfs: &OwnedFd, directory: &str, controllers: &[&str]) -> Result<()> {
    let Some(name) = hierarchy_name(directory) else { return Ok(()) };
    let what = || format!("cgroup {name}");
    mkdirat(tmpfs, name, Mode::from_bits_truncate(0o755)).context(what)?;
    let tree = mountapi::clone_tree(Path::new(directory), false).context(what)?;
    mountapi::attach_in(tree, tmpfs, name).context(what)?;
    for alias in controllers
        .iter()
        .filter(|alias| name.contains(',') && !alias.is_empty() && **alias != name)
    {
        path::link(name, tmpfs.as_fd(), alias).context(what)?;
    }
    Ok(())
}

/// The name below [`HOST`] is the hierarchy's.
fn hierarchy_name(directory: &str) -> Option<&str> {
    let below = Path::new(directory).strip_prefix(HOST).ok()?;
    below.iter().next().and_then(OsStr::to_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_named_after_its_mount_point() {
        assert_eq!(hierarchy_name("/sys/fs/cgroup/cpu,cpuacct/docker/x"), Some("cpu,cpuacct"));
        assert_eq!(hierarchy_name("/elsewhere/x"), None);
    }

    #[test]
    fn controllers_of_one_hierarchy_come_together() {
        let paths = [("cpu", "/c/x"), ("cpuacct", "/c/x"), ("memory", "/m/x")];
        let paths: BTreeMap<String, String> =
            paths.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let found = hierarchies(&paths);
        assert_eq!((&found["/c/x"][..], found.len()), (&["cpu", "cpuacct"][..], 2));
    }
}
