//! Makes a tar of files.
//!
//! Headers are ustar, with a pax header in front where that is not enough. Times are whole seconds, names are sorted, so
//! that the same tree makes the same bytes. From a layer's own directory (overlayfs's upper one) whiteouts and opaque
//! directories come out as OCI image-spec, layer.md has them.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

use cleat_sys::xattr;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, fstat, fstatat, major, minor},
};
use tar::{EntryType, Header};

use super::{
    Error,
    reader::BLOCK,
    view::{Node, View, is_dir, open_path},
};

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;
/// What a name field and a link field of ustar hold.
const NAME_MAX: usize = 100;
/// What seven octal digits hold: user and group ids.
const ID_MAX: u32 = 0o7_777_777;
/// What eleven octal digits hold: sizes.
const SIZE_MAX: u64 = 0o77_777_777_777;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Names and values of extended attributes.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes a tar.
pub struct Packer<W> {
    output: W,
    /// The first name of each inode with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    overlay: bool,
    buffer: Vec<u8>,
}

/// What a header says beside the name.
struct Meta<'a> {
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    device: (u32, u32),
    link: &'a [u8],
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Packer<W> {
    /// Begins a tar of what a tree shows.
    pub fn new(output: W) -> Self {
        Self { output, links: HashMap::new(), overlay: false, buffer: Vec::new() }
    }

    /// Begins a tar of a layer's own directory.
    pub fn of_layer(output: W) -> Self {
        Self { overlay: true, ..Self::new(output) }
    }

    /// Adds a file, or a directory with all below it, under a name of its own. The empty name is the root: `/`, `/bin/` …
    ///
    /// # Errors
    /// [`Error`].
    pub fn node(&mut self, view: &View, node: &Node, name: &[u8]) -> Result<(), Error> {
        let stat = node.stat().map_err(Error::io("look at", name))?;
        if is_dir(stat.st_mode) {
            self.directory_entry(&node.fd, &stat, name)?;
            return self.children(view, &node.fd, &node.path, &[name, b"/"].concat());
        }
        self.leaf(None, &node.fd, OsStr::new(""), &stat, name)
    }

    /// Adds all below a directory, but not itself.
    ///
    /// # Errors
    /// [`Error`].
    pub fn contents(&mut self, view: &View, node: &Node) -> Result<(), Error> {
        self.children(view, &node.fd, &node.path, b"")
    }

    /// Adds a small file that is in no tree.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn bytes(&mut self, name: &[u8], mode: u32, mtime: i64, bytes: &[u8]) -> Result<(), Error> {
        self.begin_file(name, mode, mtime, bytes.len() as u64)?;
        self.output.write_all(bytes).map_err(Error::Output)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds a directory that is in no tree.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn directory(&mut self, name: &[u8], mtime: i64) -> Result<(), Error> {
        self.header(&[name, b"/"].concat(), &Meta::plain(EntryType::Directory, 0o755, mtime, 0))
    }

    /// Begins a file whose `size` bytes the caller writes to [`Self::output`], and ends with [`Self::pad`].
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn begin_file(
        &mut self,
        name: &[u8],
        mode: u32,
        mtime: i64,
        size: u64,
    ) -> Result<(), Error> {
        self.header(name, &Meta::plain(EntryType::Regular, mode, mtime, size))
    }

    /// Where a file's bytes go.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }

    /// Fills the last block of a file up.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn pad(&mut self, size: u64) -> Result<(), Error> {
        let rest = (size % BLOCK as u64) as usize;
        let padding = if rest == 0 { 0 } else { BLOCK - rest };
        self.output.write_all(&[0; BLOCK][..padding]).map_err(Error::Output)
    }

    /// Writes the end.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn finish(mut self) -> Result<W, Error> {
        let end = self.output.write_all(&[0; 2 * BLOCK]).and_then(|()| self.output.flush());
        end.map_err(Error::Output)?;
        Ok(self.output)
    }

    /// Writes the end; on failure the output is given back, so that its reader can be told.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn finish_or_give_back(mut self) -> Result<W, (W, Error)> {
        match self.output.write_all(&[0; 2 * BLOCK]).and_then(|()| self.output.flush()) {
            Ok(()) => Ok(self.output),
            Err(error) => Err((self.output, Error::Output(error))),
        }
    }

    /// Gives the output back, with no end written.
    pub fn into_output(self) -> W {
        self.output
    }

    fn children(
        &mut self,
        view: &View,
        dir: &Arc<OwnedFd>,
        path: &[u8],
        prefix: &[u8],
    ) -> Result<(), Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let listing =
            openat(dir, ".", flags, Mode::empty()).map_err(Error::errno("list", prefix))?;
        for child in sorted_names(listing).map_err(Error::errno("list", prefix))? {
            let inside = [path, b"/", &child].concat();
            let outside = [prefix, &child].concat();
            match view.inside(&inside) {
                Some(root) => {
                    let node = Node { fd: Arc::clone(root), path: inside };
                    self.node(view, &node, &outside)?;
                }
                None => self.child(view, dir, &child, &inside, &outside)?,
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        view: &View,
        dir: &Arc<OwnedFd>,
        child: &[u8],
        inside: &[u8],
        outside: &[u8],
    ) -> Result<(), Error> {
        let name = OsStr::from_bytes(child);
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Gone since it was listed.
            Err(Errno::ENOENT) => return Ok(()),
            other => other.map_err(Error::errno("look at", outside))?,
        };
        if !is_dir(stat.st_mode) {
            return self.leaf(Some(dir), dir, name, &stat, outside);
        }
        let fd = match open_path(dir, child) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => Arc::new(other.map_err(Error::io("open", outside))?),
        };
        // What is there now counts, whatever it was a moment ago.
        let stat = fstat(&fd).map_err(Error::errno("look at", outside))?;
        if !is_dir(stat.st_mode) {
            return self.leaf(None, &fd, OsStr::new(""), &stat, outside);
        }
        self.directory_entry(&fd, &stat, outside)?;
        self.children(view, &fd, inside, &[outside, b"/"].concat())
    }

    fn directory_entry(&mut self, fd: &OwnedFd, stat: &FileStat, name: &[u8]) -> Result<(), Error> {
        let mut meta = Meta::of(EntryType::Directory, stat);
        meta.xattrs = xattrs(fd).map_err(Error::errno("read the attributes of", name))?;
        self.header(&[name, b"/"].concat(), &meta)?;
        if !self.overlay {
            return Ok(());
        }
        let opaque =
            xattr::get(fd, OPAQUE).map_err(Error::errno("read the attributes of", name))?;
        if opaque.is_some_and(|value| value == b"y") {
            meta.kind = EntryType::Regular;
            meta.xattrs.clear();
            self.header(&[name, b"/", OPAQUE_MARK].concat(), &meta)?;
        }
        Ok(())
    }

    /// Adds what is no directory: by its name in `dir`, or by an `O_PATH` descriptor of it.
    fn leaf(
        &mut self,
        dir: Option<&Arc<OwnedFd>>,
        fd: &Arc<OwnedFd>,
        name: &OsStr,
        stat: &FileStat,
        outside: &[u8],
    ) -> Result<(), Error> {
        let format = stat.st_mode & libc::S_IFMT;
        if self.overlay && format == libc::S_IFCHR && stat.st_rdev == 0 {
            return self.whiteout(stat, outside);
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode).cloned() {
                let mut meta = Meta::of(EntryType::Link, stat);
                meta.link = &first;
                return self.header(outside, &meta);
            }
            self.links.insert(inode, outside.to_vec());
        }
        match format {
            libc::S_IFREG => self.file(dir, fd, name, outside),
            libc::S_IFLNK => {
                let target =
                    readlinkat(fd, name).map_err(Error::errno("read the link", outside))?;
                let mut meta = Meta::of(EntryType::Symlink, stat);
                meta.link = target.as_bytes();
                self.header(outside, &meta)
            }
            libc::S_IFCHR => self.header(outside, &Meta::of(EntryType::Char, stat)),
            libc::S_IFBLK => self.header(outside, &Meta::of(EntryType::Block, stat)),
            libc::S_IFIFO => self.header(outside, &Meta::of(EntryType::Fifo, stat)),
            // Sockets: a tar has no word for them.
            _ => Ok(()),
        }
    }

    fn whiteout(&mut self, stat: &FileStat, outside: &[u8]) -> Result<(), Error> {
        let split = outside.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (parent, name) = outside.split_at(split);
        let mut meta = Meta::of(EntryType::Regular, stat);
        meta.mode = 0o600;
        self.header(&[parent, WHITEOUT, name].concat(), &meta)
    }

    fn file(
        &mut self,
        dir: Option<&Arc<OwnedFd>>,
        fd: &Arc<OwnedFd>,
        name: &OsStr,
        outside: &[u8],
    ) -> Result<(), Error> {
        let file = match dir {
            Some(dir) => open_regular(dir, name),
            None => super::view::reopen(fd),
        };
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("open", outside))?,
        };
        let stat = fstat(&file).map_err(Error::errno("look at", outside))?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        let mut meta = Meta::of(EntryType::Regular, &stat);
        meta.size = u64::try_from(stat.st_size).unwrap_or(0);
        meta.xattrs = xattrs(&file).map_err(Error::errno("read the attributes of", outside))?;
        self.header(outside, &meta)?;
        self.data(file, meta.size, outside)
    }

    /// Writes exactly `size` bytes: a file that shrinks meanwhile is filled up with zeros, as tar(1) does.
    fn data(&mut self, mut file: File, size: u64, outside: &[u8]) -> Result<(), Error> {
        let mut left = size;
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut self.buffer[..want]).map_err(Error::io("read", outside))?;
            let count = match count {
                0 => {
                    self.buffer[..want].fill(0);
                    want
                }
                count => count,
            };
            self.output.write_all(&self.buffer[..count]).map_err(Error::Output)?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn header(&mut self, name: &[u8], meta: &Meta<'_>) -> Result<(), Error> {
        let mut header = Header::new_ustar();
        let mut pax = Vec::new();
        set_name(&mut header, name, &mut pax);
        if meta.link.len() > NAME_MAX || !meta.link.is_ascii() {
            record(&mut pax, b"linkpath", meta.link);
        } else {
            header.as_old_mut().linkname[..meta.link.len()].copy_from_slice(meta.link);
        }
        let id = |key: &[u8], id: u32, pax: &mut Vec<u8>| {
            if id > ID_MAX {
                record(pax, key, id.to_string().as_bytes());
                return 0;
            }
            u64::from(id)
        };
        header.set_uid(id(b"uid", meta.uid, &mut pax));
        header.set_gid(id(b"gid", meta.gid, &mut pax));
        if meta.size > SIZE_MAX {
            record(&mut pax, b"size", meta.size.to_string().as_bytes());
            header.set_size(0);
        } else {
            header.set_size(meta.size);
        }
        match u64::try_from(meta.mtime) {
            Ok(mtime) if mtime <= SIZE_MAX => header.set_mtime(mtime),
            _ => {
                record(&mut pax, b"mtime", meta.mtime.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        for (key, value) in &meta.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        header.set_mode(meta.mode & 0o7777);
        header.set_entry_type(meta.kind);
        // The header is ustar, which has these fields, and the numbers were checked.
        let _ = header.set_device_major(meta.device.0);
        let _ = header.set_device_minor(meta.device.1);
        header.set_cksum();
        if !pax.is_empty() {
            self.pax(name, &pax)?;
        }
        self.output.write_all(header.as_bytes()).map_err(Error::Output)
    }

    /// Writes a pax header: an entry of its own in front, named after the entry.
    fn pax(&mut self, name: &[u8], records: &[u8]) -> Result<(), Error> {
        let base =
            name.split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or(b"root");
        let shown: Vec<u8> = base.iter().copied().filter(u8::is_ascii).take(80).collect();
        let mut header = Header::new_ustar();
        let title = [b"PaxHeaders.0/", shown.as_slice()].concat();
        header.as_old_mut().name[..title.len()].copy_from_slice(&title);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.output.write_all(header.as_bytes()).map_err(Error::Output)?;
        self.output.write_all(records).map_err(Error::Output)?;
        self.pad(records.len() as u64)
    }
}

impl Meta<'_> {
    fn of(kind: EntryType, stat: &FileStat) -> Self {
        Self {
            kind,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            size: 0,
            device: if matches!(kind, EntryType::Char | EntryType::Block) {
                (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32)
            } else {
                (0, 0)
            },
            link: b"",
            xattrs: Vec::new(),
        }
    }

    fn plain(kind: EntryType, mode: u32, mtime: i64, size: u64) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            size,
            device: (0, 0),
            link: b"",
            xattrs: Vec::new(),
        }
    }
}

/// Sets the name: in one field, in two split at a slash, or in the pax header.
fn set_name(header: &mut Header, name: &[u8], pax: &mut Vec<u8>) {
    if !name.is_ascii() {
        record(pax, b"path", name);
    }
    if name.len() <= NAME_MAX {
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        return;
    }
    let split = (0..name.len().min(156))
        .rev()
        .find(|at| name[*at] == b'/' && *at > 0 && (1..=NAME_MAX).contains(&(name.len() - at - 1)));
    if let (Some(at), Some(ustar)) = (split, header.as_ustar_mut()) {
        ustar.prefix[..at].copy_from_slice(&name[..at]);
        ustar.name[..name.len() - at - 1].copy_from_slice(&name[at + 1..]);
        return;
    }
    if name.is_ascii() {
        record(pax, b"path", name);
    }
    header.as_old_mut().name.copy_from_slice(&name[..NAME_MAX]);
}

/// Appends a pax record, whose length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() != digits {
        digits += 1;
    }
    pax.extend_from_slice((rest + digits).to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// Reads what belongs to a file beyond this machine: its capabilities, and what users attached.
fn xattrs(fd: impl AsFd) -> Result<Xattrs, Errno> {
    let mut all = Vec::new();
    for key in xattr::list(&fd)? {
        let wanted = key == b"security.capability"
            || key.starts_with(b"user.") && !key.starts_with(b"user.overlay.");
        if wanted && let Some(value) = xattr::get(&fd, &key)? {
            all.push((key, value));
        }
    }
    all.sort();
    Ok(all)
}

fn open_regular(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?.into())
}

/// Lists a directory's names, sorted.
pub(crate) fn sorted_names(dir: OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut dir = nix::dir::Dir::from_fd(dir)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_bytes().to_vec());
        }
    }
    names.sort();
    Ok(names)
}
