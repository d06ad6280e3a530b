//! `tmpcopyup`: a new tmpfs begins with a copy of what it covers. By descriptors and without following links: the source is an
//! image's.

use cleat_sys::{Errno, Result};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat, mknodat,
};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Copies everything below the directory `from` (`O_PATH` will do) into the directory `to`.
///
/// # Errors
/// `EMFILE` for a tree too deep, and whatever a file gives.
pub fn tree(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, ".", flags, Mode::empty())?;
    let names: Vec<CString> = {
        let mut directory = Dir::from_fd(from.try_clone().map_err(|_| Errno::EMFILE)?)?;
        let names = directory.iter().map(|entry| Ok(entry?.file_name().to_owned()));
        names.collect::<Result<_>>()?
    };
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        copy(&from, to.as_fd(), name)?;
    }
    Ok(())
}

fn copy(from: &OwnedFd, to: impl AsFd, name: &CStr) -> Result<()> {
    let to = to.as_fd();
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let below = openat(to, name, flags, Mode::empty())?;
            tree(openat(from, name, flags, Mode::empty())?, &below)?;
        }
        SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
        SFlag::S_IFREG => return copy_file(from, to, name, &stat),
        _ => mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    own(to, name, &stat)?;
    if kind == SFlag::S_IFLNK {
        return Ok(());
    }
    // After the owner, whose change takes the set-id bits away.
    fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)
}

fn copy_file(from: &OwnedFd, to: impl AsFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let source = openat(from, name, read, Mode::empty())?;
    if fstat(&source)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::ESTALE);
    }
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let target = openat(&to, name, write, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    std::io::copy(&mut source, &mut target).map_err(|error| crate::error::errno_of(&error))?;
    own(to, name, stat)?;
    fchmod(&target, Mode::from_bits_truncate(stat.st_mode & 0o7777))
}

fn own(directory: impl AsFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}
