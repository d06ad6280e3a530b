//! Leaving the host's mounts behind.

use crate::error::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use std::os::fd::AsFd;

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
