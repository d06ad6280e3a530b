//! Leaving the host's mounts behind.

use crate::error::{Context, Result};
use cleat_sys::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Makes `root`, the root of a mount in this namespace, the root of the namespace, and lets go of everything else.
///
/// Both arguments of `pivot_root(2)` may be the same directory: the old root then lies on top of the new one, and no directory
/// for it is needed (the manual page's example).
///
/// # Errors
/// [`crate::error::Error::Kernel`] with runc's wording.
pub fn enter(root: impl AsFd) -> Result<()> {
    let what = || "error jailing process inside rootfs: pivot_root .".to_owned();
    let old = nix::fcntl::open(
        "/",
        nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .context(what)?;
    fchdir(root).context(what)?;
    pivot_root(".", ".").context(what)?;
    fchdir(&old).context(what)?;
    // What is unmounted here must not be unmounted on the host: slaves send nothing back.
    mount(None::<&str>, ".", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .context(what)?;
    umount2(".", MntFlags::MNT_DETACH).context(what)?;
    chdir("/").context(|| "chdir /".to_owned())
}

/// Puts `root` over the old root instead, for a ramdisk's, which cannot be pivoted away from (`--no-pivot`). The host's procfs and
/// sysfs go first: where one is to be seen whole, a container with a user namespace could mount another without masks.
///
/// # Errors
/// [`crate::error::Error::Kernel`] with runc's wording.
pub fn cover_slash(root: impl AsFd, is_over_slash: bool) -> Result<()> {
    let what = || "error jailing process inside rootfs: move mount".to_owned();
    fchdir(&root).context(what)?;
    let own = nix::unistd::getcwd().context(what)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context(what)?;
    for point in revealing(&mounts).filter(|point| is_over_slash || !point.starts_with(&own)) {
        match umount2(&point, MntFlags::MNT_DETACH) {
            // Gone with the one above, or locked: then it is covered.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .context(what)?,
        }
    }
    if !is_over_slash {
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context(what)?;
    }
    change_root(root)
}

/// Makes `root` the root of this process, in a mount namespace that is others' as well.
///
/// # Errors
/// [`crate::error::Error::Kernel`].
pub fn change_root(root: impl AsFd) -> Result<()> {
    let what = || "error jailing process inside rootfs: chroot .".to_owned();
    fchdir(root).context(what)?;
    nix::unistd::chroot(".").context(what)?;
    chdir("/").context(|| "chdir /".to_owned())
}

/// Returns the mount points of procfs and sysfs in a text of the form of `proc_pid_mountinfo(5)`, the innermost first.
fn revealing(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().rev().filter_map(|line| {
        let (fields, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        let point = fields.split(' ').nth(4)?;
        matches!(kind, "proc" | "sysfs").then(|| PathBuf::from(point))
    })
}
