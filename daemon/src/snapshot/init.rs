//! What every container has, whatever its image lacks: the places that are mounted over, and two that Docker's users look for.
//!
//! It is one directory, below the image's layers, so that the image's own come first and nothing of it counts as a
//! change of the container's.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::Path,
};

use super::Error;

const DIRECTORIES: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
const FILES: [&str; 5] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
const MODE: u32 = 0o755;

/// Makes the directory; what is there stays.
pub(super) fn make(root: &Path) -> Result<(), Error> {
    super::make_private_dir(root)?;
    super::set_mode(root, MODE)?;
    for name in DIRECTORIES {
        let path = root.join(name);
        exists_or(fs::create_dir(&path)).map_err(Error::io("make", &path))?;
        super::set_mode(&path, MODE)?;
    }
    for name in FILES {
        let path = root.join(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
        exists_or(made.map(drop)).map_err(Error::io("make", &path))?;
        super::set_mode(&path, MODE)?;
    }
    let mtab = root.join("etc/mtab");
    exists_or(symlink("/proc/mounts", &mtab)).map_err(Error::io("make", &mtab))
}

fn exists_or(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
