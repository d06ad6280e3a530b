//! What one mount is, by `statmount(2)` (Linux 6.8): the answer of `/proc/self/mountinfo` without its other lines, however
//! many mounts a host has.

use crate::{Errno, Result, c_string};
use std::ffi::CStr;
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The same on every architecture (but alpha): `include/uapi/asm-generic/unistd.h`.
const SYS_STATMOUNT: libc::c_long = 457;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// `STATMOUNT_SB_BASIC | STATMOUNT_MNT_ROOT`.
const NEEDED: u64 = 0x01 | 0x08;
/// `STATMOUNT_MNT_OPTS`, since Linux 6.11. Where there are none it is not answered.
const OPTIONS: u64 = 0x80;

/// `struct mnt_id_req` of `<linux/mount.h>`, its first version.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    wanted: u64,
}

/// `struct statmount` of `<linux/mount.h>` as far as it is read here; the texts follow at offset 512.
#[repr(C)]
struct Answer {
    size: u32,
    options: u32,
    mask: u64,
    device: [u32; 2],
    magic: u64,
    flags: u32,
    kind: u32,
    ids: [u64; 2],
    old_ids: [u32; 2],
    attributes: u64,
    propagation: [u64; 4],
    root: u32,
    target: u32,
    unread: [u8; 512 - 112],
    texts: [u8; 1024],
}

const _: () = assert!(offset_of!(Answer, root) == 104 && offset_of!(Answer, texts) == 512);

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The filesystem's type as `statfs(2)` has it, such as `CGROUP_SUPER_MAGIC`.
    pub magic: u64,
    /// The directory of the filesystem that is mounted.
    pub root: Vec<u8>,
    /// The filesystem's own options, separated by commas; empty also where the kernel does not tell them.
    pub options: Vec<u8>,
}

/// Returns the mount that begins at `path`; nothing where none does.
///
/// # Errors
/// `ENOENT` where there is nothing, `ENOSYS` on a kernel that cannot tell, `EOVERFLOW` for texts longer than a kilobyte.
/// Source: `statmount(2)`, `statx(2)`.
pub fn mount_at(path: &Path) -> Result<Option<Mount>> {
    let path = c_string(path.as_os_str().as_bytes())?;
    let Some(mount) = mount_id(&path)? else { return Ok(None) };
    let request =
        Request { size: size_of::<Request>() as u32, spare: 0, mount, wanted: NEEDED | OPTIONS };
    // SAFETY: all zeroes is a valid `Answer`, which is made of integers.
    let mut answer: Answer = unsafe { std::mem::zeroed() };
    // SAFETY: both have the layout that the call expects and live across it; the size is that of `answer`.
    let done = unsafe {
        libc::syscall(SYS_STATMOUNT, &raw const request, &raw mut answer, size_of::<Answer>(), 0)
    };
    Errno::result(done)?;
    if answer.mask & NEEDED != NEEDED {
        return Err(Errno::ENOSYS);
    }
    let text = |offset: u32| {
        let text = answer.texts.get(offset as usize..).unwrap_or_default();
        CStr::from_bytes_until_nul(text).map(|text| text.to_bytes().to_vec())
    };
    let options = if answer.mask & OPTIONS == 0 { Ok(Vec::new()) } else { text(answer.options) };
    match (text(answer.root), options) {
        (Ok(root), Ok(options)) => Ok(Some(Mount { magic: answer.magic, root, options })),
        _ => Err(Errno::EOVERFLOW),
    }
}

/// Returns the number, never used twice, of the mount that begins at `path`.
fn mount_id(path: &CStr) -> Result<Option<u64>> {
    // SAFETY: all zeroes is a valid `statx`.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string and `found` a `statx`; both live across the call.
    let done = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            STATX_MNT_ID_UNIQUE,
            &raw mut found,
        )
    };
    Errno::result(done)?;
    if found.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
        return Err(Errno::ENOSYS);
    }
    let begins = found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0;
    Ok(begins.then_some(found.stx_mnt_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux before 6.8 cannot tell: then there is nothing to compare.
    fn known(path: &str) -> Option<Option<Mount>> {
        match mount_at(Path::new(path)) {
            Err(Errno::ENOSYS) => None,
            other => Some(other.unwrap()),
        }
    }

    #[test]
    fn a_mount_is_what_mountinfo_says() {
        let Some(found) = known("/proc") else { return };
        let found = found.expect("/proc is a mount");
        assert_eq!(found.magic, libc::PROC_SUPER_MAGIC as u64);
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc")).unwrap();
        assert_eq!(line.split(' ').nth(3).unwrap().as_bytes(), found.root);
        assert!(line.as_bytes().ends_with(&found.options), "{line}");
    }

    #[test]
    fn where_none_begins_there_is_none() {
        assert!(known("/proc/self").is_none_or(|found| found.is_none()));
        assert_eq!(mount_at(Path::new("/nowhere/at/all")), Err(Errno::ENOENT));
    }
}
