//! Flags of inodes, `ioctl_iflags(2)`.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `chattr +T`; `linux/fs.h`.
const FS_TOPDIR_FL: libc::c_int = 0x0002_0000;

/// Says that the directories to be made in `directory` have nothing to do with each other: ext4 then puts each of them, with
/// all below it, into another part of the disk.
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP` where the filesystem has no such flag.
pub fn spread_subdirectories(directory: impl AsFd) -> Result<(), Errno> {
    let flags = flags(&directory)? | FS_TOPDIR_FL;
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: despite its number FS_IOC_SETFLAGS reads one int through the pointer, which lives until after the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS, &raw const flags) }).map(drop)
}

fn flags(file: impl AsFd) -> Result<libc::c_int, Errno> {
    let mut flags: libc::c_int = 0;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: despite its number FS_IOC_GETFLAGS writes one int through the pointer, which lives until after the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_set_where_the_filesystem_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(dir.path()).unwrap();
        match spread_subdirectories(&file) {
            Ok(()) => assert_ne!(flags(&file).unwrap() & FS_TOPDIR_FL, 0),
            Err(error) => assert!(matches!(error, Errno::ENOTTY | Errno::EOPNOTSUPP), "{error}"),
        }
    }
}
