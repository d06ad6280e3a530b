//! A tree seen from its root as a process in it would: links and `..` stay inside, and other trees may stand in for some of
//! its directories (a stopped container's volumes), without a mount anywhere.
//!
//! A look-up is a walk from descriptor to descriptor, one name at a time, each opened without following. Whoever
//! renames or swaps things meanwhile changes what is found, never where it can be.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, fstat},
};

use super::clean;

/// As the kernel's `MAXSYMLINKS`.
const LINKS_MAX: u32 = 40;

/// A tree, and what stands in for parts of it.
pub struct View {
    root: Arc<OwnedFd>,
    inside: Vec<Inside>,
    read_only: bool,
}

/// A tree that is seen at a path of another.
struct Inside {
    path: Vec<u8>,
    root: Arc<OwnedFd>,
    read_only: bool,
}

/// What a look-up found.
pub struct Node {
    /// `O_PATH`: the thing itself, a link not followed.
    pub fd: Arc<OwnedFd>,
    /// Where it is, links resolved: `/a/b`; the root is empty.
    pub path: Vec<u8>,
}

impl Node {
    /// Returns what it is.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&self.fd)?)
    }
}

/// Returns whether a mode is a directory's.
pub fn is_dir(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}

/// Returns whether a mode is a symbolic link's.
pub fn is_link(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFLNK
}

impl View {
    /// Sees the tree below `root`.
    pub fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), inside: Vec::new(), read_only: false }
    }

    /// Refuses writing where no other tree stands.
    pub fn set_read_only(&mut self) {
        self.read_only = true;
    }

    /// Puts another tree (or a single file) in at `path`.
    pub fn insert(&mut self, path: &[u8], root: OwnedFd, read_only: bool) {
        let path = absolute(&clean(path));
        self.inside.retain(|inside| inside.path != path);
        self.inside.push(Inside { path, root: Arc::new(root), read_only });
    }

    /// The tree's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns whether it is one tree.
    pub fn is_plain(&self) -> bool {
        self.inside.is_empty()
    }

    /// Returns the tree that stands at exactly this path, if another does.
    pub fn inside(&self, path: &[u8]) -> Option<&Arc<OwnedFd>> {
        self.inside.iter().find(|inside| inside.path == path).map(|inside| &inside.root)
    }

    /// Returns whether a path (links resolved) may be written.
    pub fn is_writable(&self, path: &[u8]) -> bool {
        let around = self.inside.iter().filter(|inside| {
            path.strip_prefix(inside.path.as_slice())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        match around.max_by_key(|inside| inside.path.len()) {
            Some(inside) => !inside.read_only,
            None => !self.read_only,
        }
    }

    /// Looks a path up. A link at its end is followed if `follow`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP` as `open(2)`.
    pub fn find(&self, path: &[u8], follow: bool) -> io::Result<Node> {
        let mut pending = names(path);
        let mut stack: Vec<(Vec<u8>, Arc<OwnedFd>)> = vec![(Vec::new(), Arc::clone(&self.root))];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let (at, dir) = stack.last().expect("the root is never popped");
            let mut here = at.clone();
            here.push(b'/');
            here.extend_from_slice(&name);
            let fd = match self.inside(&here) {
                Some(root) => Arc::clone(root),
                None => Arc::new(open_path(dir, &name)?),
            };
            let mode = fstat(&fd)?.st_mode;
            if is_link(mode) && (follow || !pending.is_empty()) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP.into());
                }
                let target = readlinkat(&fd, "")?;
                if target.as_bytes().starts_with(b"/") {
                    stack.truncate(1);
                }
                pending.extend(names(target.as_bytes()));
                continue;
            }
            if !is_dir(mode) && !pending.is_empty() {
                return Err(Errno::ENOTDIR.into());
            }
            stack.push((here, fd));
        }
        let (path, fd) = stack.pop().expect("the root is never popped");
        Ok(Node { fd, path })
    }
}

/// Opens one name of a directory as it is: nothing followed, nothing started.
pub fn open_path(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Opens what an `O_PATH` descriptor of a regular file or directory refers to, for reading. Never blocks: a FIFO or device that took
/// its place is noticed by the caller's own look at it before.
///
/// # Errors
/// Those of `open(2)`.
pub fn reopen(fd: impl AsFd) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path.as_str(), flags, Mode::empty())?.into())
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").rev().map(<[u8]>::to_vec).collect()
}

/// Joins names to `/a/b`; no names are the root, the empty text.
pub fn absolute(names: &[&[u8]]) -> Vec<u8> {
    names.iter().flat_map(|name| [b"/", *name].concat()).collect()
}
