//! Mounts as descriptors: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)`.
//!
//! A mount that is made and configured detached is attached to a descriptor of its target, so no path can be swapped
//! between the check and the mount.

use crate::{Errno, Result, c_string, owned_fd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub mod attr {
    /// `MOUNT_ATTR_RDONLY`.
    pub const RDONLY: u64 = 0x01;
    /// `MOUNT_ATTR_NOSUID`.
    pub const NOSUID: u64 = 0x02;
    /// `MOUNT_ATTR_NODEV`.
    pub const NODEV: u64 = 0x04;
    /// `MOUNT_ATTR_NOEXEC`.
    pub const NOEXEC: u64 = 0x08;
    /// The field of the access-time modes; clear it before setting one (0 is relatime).
    pub const ATIME_MASK: u64 = 0x70;
    /// `MOUNT_ATTR_RELATIME`.
    pub const RELATIME: u64 = 0x00;
    /// `MOUNT_ATTR_NOATIME`.
    pub const NOATIME: u64 = 0x10;
    /// `MOUNT_ATTR_STRICTATIME`.
    pub const STRICTATIME: u64 = 0x20;
    /// `MOUNT_ATTR_NODIRATIME`.
    pub const NODIRATIME: u64 = 0x80;
    /// `MOUNT_ATTR_IDMAP`.
    pub const IDMAP: u64 = 0x0010_0000;
    /// `MOUNT_ATTR_NOSYMFOLLOW`.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// A filesystem being configured, before it exists.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins to configure a filesystem of the given type.
    ///
    /// # Errors
    /// `ENODEV` for a type that the kernel has not, `ENOSYS` before Linux 5.2. Source: `fsopen(2)`.
    pub fn open(kind: &str) -> Result<Self> {
        let kind = c_string(kind)?;
        // SAFETY: `kind` is a C string that lives across the call.
        let raw = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        owned_fd(raw).map(Self)
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// `EINVAL` where the filesystem has no such parameter; [`Self::complaint`] says more. Source: `fsconfig(2)`.
    pub fn set_string(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<()> {
        let (key, value) = (c_string(key)?, c_string(value)?);
        self.config(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())
    }

    /// Sets a parameter that has no value.
    ///
    /// # Errors
    /// Those of [`Self::set_string`].
    pub fn set_flag(&self, key: &str) -> Result<()> {
        let key = c_string(key)?;
        self.config(FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null())
    }

    /// Sets an option as `mount -o` spells it: `key` or `key=value`.
    ///
    /// # Errors
    /// Those of [`Self::set_string`].
    pub fn set_option(&self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.set_string(key, value),
            None => self.set_flag(option),
        }
    }

    fn config(
        &self,
        command: u32,
        key: *const libc::c_char,
        value: *const libc::c_char,
    ) -> Result<()> {
        // SAFETY: callers pass pointers to C strings that live across the call, or null where the command takes none.
        let answer = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0)
        };
        Errno::result(answer).map(drop)
    }

    /// Makes the filesystem and a mount of it that is attached nowhere, with the given `MOUNT_ATTR_*`.
    ///
    /// # Errors
    /// Those that `mount(2)` would give for the same options. Source: `fsconfig(2)`, `fsmount(2)`.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
        // SAFETY: all arguments are integers.
        let raw = unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32)
        };
        owned_fd(raw)
    }

    /// Returns what the filesystem said about the last error, if it said anything.
    pub fn complaint(&self) -> Option<String> {
        let mut text = Vec::new();
        let mut line = [0; 512];
        while let Ok(count @ 1..) = nix::unistd::read(&self.0, &mut line) {
            // Each read is one message: "e ", "w " or "i ", then the text.
            let message = line[..count].strip_prefix(b"e ").unwrap_or(&line[..count]);
            text.push(String::from_utf8_lossy(message).trim().to_owned());
        }
        (!text.is_empty()).then(|| text.join("; "))
    }
}

/// Copies the mount at `path` (with everything below it if `recursive`) to a detached one.
///
/// # Errors
/// Those of `open_tree(2)`; `EINVAL` for an unbindable mount.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    open_tree(libc::AT_FDCWD, &path, recursive, 0)
}

/// Copies the mount that `fd` lies on, from `fd` downwards, to a detached one.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn clone_tree_at(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    open_tree(fd.as_fd().as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH as u32)
}

fn open_tree(
    directory: RawFd,
    path: &std::ffi::CStr,
    recursive: bool,
    flags: u32,
) -> Result<OwnedFd> {
    let depth = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth | flags;
    // SAFETY: `path` is a C string that lives across the call.
    let raw = unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) };
    owned_fd(raw)
}

/// Opens the file at `path` through a read-only copy of the mount it lies on: what is opened or run through the handle can be
/// written by nobody, although the file itself stays as it is.
///
/// The copy is of the file's directory and is let go of at once, so that it belongs to no mount namespace and the file is not
/// its root: whoever gets at the file by a link in `/proc` finds nothing that could be made writable again.
///
/// # Errors
/// Those of [`clone_tree`] and [`set_attributes`]; `EINVAL` for a path without a name at its end.
pub fn read_only_clone(path: &Path) -> Result<OwnedFd> {
    let (directory, name) = (path.parent(), path.file_name());
    let (Some(directory), Some(name)) = (directory, name) else { return Err(Errno::EINVAL) };
    let tree = clone_tree(directory, false)?;
    set_attributes(&tree, Attributes { set: attr::RDONLY, ..Attributes::default() }, false)?;
    open_path_at(&tree, name.as_bytes())
}

/// Opens the file at `path` through an overlay of its directory and of `other`, which has no layer for changes: no mount of
/// it, however attached or remounted, can be written to. `other` is there because an overlay wants two layers then; neither
/// directory lies in the other.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENODEV` where there are no overlays, `EINVAL` where the directory cannot be a layer.
pub fn sealed_overlay(path: &Path, other: &Path) -> Result<OwnedFd> {
    let (directory, name) = (path.parent(), path.file_name());
    let (Some(directory), Some(name)) = (directory, name) else { return Err(Errno::EINVAL) };
    let context = FsContext::open("overlay")?;
    let layers = [directory, other].map(escape).join(&b':');
    context.set_string("lowerdir", layers)?;
    let tree = context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV)?;
    open_path_at(&tree, name.as_bytes())
}

/// Takes from `:` and `\` their meaning between layers.
fn escape(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

fn open_path_at(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, nix::sys::stat::Mode::empty())
}

/// What `mount_setattr(2)` changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace for [`attr::IDMAP`], a descriptor number.
    pub user_namespace: u64,
}

/// Changes the mount whose root is `mount`, with everything below it if `recursive`.
///
/// # Errors
/// `EINVAL` where `mount` is not a mount's root, `ENOSYS` before Linux 5.12. Source: `mount_setattr(2)`.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` has the layout of `struct mount_attr` and lives across the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Attaches a detached mount to the directory or file that `target` refers to.
///
/// # Errors
/// `ENOTDIR` where one is a directory and the other is not. Source: `move_mount(2)`.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty C strings.
    let answer =
        unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    Errno::result(answer).map(drop)
}

/// Attaches a detached mount to the entry `name` of `directory`, which is no path; a link of that name is not followed.
///
/// # Errors
/// Those of [`attach`]; `EINVAL` for a path. Source: `move_mount(2)`.
pub fn attach_in(mount: impl AsFd, directory: impl AsFd, name: &str) -> Result<()> {
    if name.contains('/') || matches!(name, "" | "." | "..") {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (mount.as_fd().as_raw_fd(), directory.as_fd().as_raw_fd());
    let name = c_string(name)?;
    // SAFETY: both paths are C strings that live across the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            c"".as_ptr(),
            to,
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(answer).map(drop)
}

/// An overlay: read-only layers, and where changes go.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// The layers, the uppermost first.
    pub lower: Vec<PathBuf>,
    /// The directory for changes and the work directory beside it; without them the overlay is read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Further options as `mount -o` spells them, such as `index=off`.
    pub options: Vec<String>,
}

impl Overlay {
    /// Makes the overlay, attached nowhere, with the given `MOUNT_ATTR_*`.
    ///
    /// # Errors
    /// `EINVAL` on kernels without `lowerdir+` (before 6.5), else as `mount(2)`.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        let context = FsContext::open("overlay")?;
        context.set_string("source", "overlay")?;
        for layer in &self.lower {
            context.set_string("lowerdir+", layer.as_os_str().as_bytes())?;
        }
        if let Some((upper, work)) = &self.upper {
            context.set_string("upperdir", upper.as_os_str().as_bytes())?;
            context.set_string("workdir", work.as_os_str().as_bytes())?;
        }
        for option in &self.options {
            context.set_option(option)?;
        }
        context.mount(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openat2;
    use std::fs;

    #[test]
    fn a_detached_overlay_shows_its_layers_and_is_seen_by_nobody() {
        let base = std::env::temp_dir().join(format!("cleat-overlay-{}", std::process::id()));
        for name in ["a", "b", "up", "work"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::write(base.join("a/x"), "upper layer").unwrap();
        fs::write(base.join("b/x"), "lower layer").unwrap();
        fs::write(base.join("b/y"), "below").unwrap();
        let overlay = Overlay {
            lower: vec![base.join("a"), base.join("b")],
            upper: Some((base.join("up"), base.join("work"))),
            options: vec!["redirect_dir=off".into(), "metacopy=off".into(), "index=off".into()],
        };
        let root = overlay.mount(attr::NODEV).unwrap();
        let read = |name| {
            let fd = openat2::open_in_root(&root, Path::new(name), libc::O_RDONLY, 0).unwrap();
            std::io::read_to_string(fs::File::from(fd)).unwrap()
        };
        assert_eq!((read("x").as_str(), read("y").as_str()), ("upper layer", "below"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(base.to_str().unwrap()));
        drop(root);
        fs::remove_dir_all(base).unwrap();
    }

    /// Writing through a handle fails, and neither it nor its mount can be changed; the file itself can.
    #[track_caller]
    fn check_is_sealed(file: &OwnedFd, path: &Path) {
        let through = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = || fs::OpenOptions::new().write(true).open(&through).unwrap_err();
        assert_eq!(open().raw_os_error(), Some(libc::EROFS));
        let writable = Attributes { clear: attr::RDONLY, ..Attributes::default() };
        assert_eq!(set_attributes(file, writable, false), Err(Errno::EINVAL));
        let remount = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND;
        let nothing = None::<&str>;
        let remounted = nix::mount::mount(nothing, through.as_str(), nothing, remount, nothing);
        assert_eq!(remounted, Err(Errno::EINVAL));
        assert_eq!(open().raw_os_error(), Some(libc::EROFS));
        fs::write(path, "still writable by its own path").unwrap();
    }

    #[test]
    fn a_read_only_clone_cannot_be_written_through_nor_made_writable() {
        let path = std::env::temp_dir().join(format!("cleat-roclone-{}", std::process::id()));
        fs::write(&path, "x").unwrap();
        check_is_sealed(&read_only_clone(&path).unwrap(), &path);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_sealed_overlay_cannot_be_written_through_nor_made_writable() {
        let base = std::env::temp_dir().join(format!("cleat-seal:\\{}", std::process::id()));
        let (directory, other) = (base.join("a:b"), base.join("other"));
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(&other).unwrap();
        let path = directory.join("file");
        fs::write(&path, "x").unwrap();
        check_is_sealed(&sealed_overlay(&path, &other).unwrap(), &path);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_filesystem_says_what_it_did_not_like() {
        let context = FsContext::open("tmpfs").unwrap();
        assert_eq!(context.set_option("nonsense=1"), Err(Errno::EINVAL));
        assert!(context.complaint().is_some_and(|text| text.contains("nonsense")));
    }
}
