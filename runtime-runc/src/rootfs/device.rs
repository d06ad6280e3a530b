//! `/dev`: the nodes every container has, those of the spec, and the links, OCI runtime-spec, config-linux.md, Default Devices
//! and runtime-linux.md, Dev symbolic links.

use super::path::{self, Kind};
use crate::error::{Context, Error, Result};
use crate::spec::Device;
use cleat_sys::{Errno, mountapi};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Path, major, minor: character devices for everybody.
const DEFAULTS: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Makes all of it. In a user namespace nodes cannot be made: the host's are bound.
///
/// # Errors
/// [`Error::Invalid`] for a device that cannot be, [`Error::Kernel`].
pub fn make_all(root: impl AsFd, devices: &[Device], user_namespace: bool) -> Result<()> {
    let root = root.as_fd();
    let (dev, _) = path::open_or_make(root, Path::new("/dev"), Kind::Directory)
        .context(|| "mkdir /dev".to_owned())?;
    for (path, major, minor) in DEFAULTS {
        let path = PathBuf::from(path);
        if devices.iter().all(|device| device.path != path) {
            let device = Device { path, kind: "c".to_owned(), major, minor, ..Device::default() };
            make_in(&dev, device.path.file_name().unwrap_or_default(), &device, user_namespace)?;
        }
    }
    for device in devices.iter().filter(|device| device.path != Path::new("/dev/ptmx")) {
        let (parent, name) = path::open_parent(root, &device.path)?;
        make_in(&parent, &name, device, user_namespace)?;
    }
    links(&dev)
}

fn links(dev: &OwnedFd) -> Result<()> {
    let what = || "error setting up /dev symlinks".to_owned();
    path::remove_file(dev, OsStr::new("ptmx")).context(what)?;
    path::link("pts/ptmx", dev, "ptmx").context(what)?;
    for (target, name) in LINKS {
        path::link(target, dev, name).context(what)?;
    }
    if Path::new("/proc/kcore").exists() {
        path::link("/proc/kcore", dev, "core").context(what)?;
    }
    Ok(())
}

fn make_in(parent: &OwnedFd, name: &OsStr, device: &Device, user_namespace: bool) -> Result<()> {
    let what = || format!("error creating device node {:?}", device.path);
    if user_namespace {
        return bind(parent, name, &device.path).context(what);
    }
    let (kind, mode) =
        (kind_of(device)?, Mode::from_bits_truncate(device.file_mode.unwrap_or(0o666) & 0o7777));
    let number =
        if kind == SFlag::S_IFIFO { 0 } else { makedev(device.major as u64, device.minor as u64) };
    match mknodat(parent, name, kind, mode, number) {
        Ok(()) => {}
        // Root of a user namespace that is not the container's own, as under Podman without root, or without CAP_MKNOD.
        Err(Errno::EPERM) => return bind(parent, name, &device.path).context(what),
        Err(Errno::EEXIST) => {
            let found = fstatat(parent, name, path::ITSELF).context(what)?;
            if (found.st_mode, found.st_rdev) != (kind.bits() | mode.bits(), number) {
                // An image's own file of that name, which may be a link, or become one at any moment: nothing here follows one.
                path::remove_file(parent, name).context(what)?;
                match mknodat(parent, name, kind, mode, number) {
                    // The kernel says this first only where there is no such name.
                    Err(Errno::EPERM) => return bind(parent, name, &device.path).context(what),
                    other => other.context(what)?,
                }
            }
        }
        other => other.context(what)?,
    }
    if device.uid.unwrap_or(0) != 0 || device.gid.unwrap_or(0) != 0 {
        let (uid, gid) =
            (Uid::from_raw(device.uid.unwrap_or(0)), Gid::from_raw(device.gid.unwrap_or(0)));
        fchownat(parent, name, Some(uid), Some(gid), path::ITSELF).context(what)?;
    }
    Ok(())
}

fn kind_of(device: &Device) -> Result<SFlag> {
    match device.kind.as_str() {
        "c" | "u" => Ok(SFlag::S_IFCHR),
        "b" => Ok(SFlag::S_IFBLK),
        "p" => Ok(SFlag::S_IFIFO),
        other => Err(Error::Invalid(format!(
            "invalid device type {other:?} for {}",
            device.path.display()
        ))),
    }
}

fn bind(parent: &OwnedFd, name: &OsStr, source: &Path) -> cleat_sys::Result<()> {
    let (target, _) = path::open_or_make(parent, Path::new(name), Kind::File)?;
    mountapi::attach(mountapi::clone_tree(source, false)?, target)
}

/// Opens the container's `/dev/null`, made sure to be it.
///
/// # Errors
/// [`Error::Invalid`] where it is something else.
pub fn open_null(root: impl AsFd, flags: i32) -> Result<OwnedFd> {
    let null = path::open_plain(root, Path::new("/dev/null"), flags)
        .context(|| "open /dev/null".to_owned())?;
    if is_null(&null).context(|| "stat /dev/null".to_owned())? {
        return Ok(null);
    }
    Err(Error::Invalid("the container's /dev/null is not the null device".to_owned()))
}

/// Returns whether `fd` is the null device.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn is_null(fd: impl AsFd) -> cleat_sys::Result<bool> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == makedev(1, 3))
}
