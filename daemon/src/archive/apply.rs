//! Makes files of a tar's entries.
//!
//! ```text
//!  entry ─▶ clean name ─▶ directory of it (descriptor, cached; made if missing) ─▶ what is there gives way ─▶ make ─▶ owner, mode,
//!           attributes, time. A directory's mode and time come last of all, since what is made inside changes them.
//! ```
//! In a layer (OCI image-spec, layer.md) `.wh.` names are whiteouts, which become overlayfs's own kind, and what a later
//! entry replaces is kept aside for the recipe. In a copy (`docker cp`) all names are just names.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{BufRead, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::Path,
    sync::Arc,
};

use cleat_sys::{openat2, xattr};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::{
        stat::{
            FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens,
            makedev, mkdirat, mknodat, umask, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};

use super::{
    Error, Limits, clean,
    reader::{Entry, Kind, TarReader},
    recipe,
    view::{View, absolute, is_dir},
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Other names that AUFS kept for itself.
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// The overlay's own attributes: never taken from an archive, which could point into other directories with them.
const OVERLAY_PRIVATE: &[u8] = b"trusted.overlay.";
/// How many directories stay open.
const CACHE: usize = 128;
/// Directories that an archive uses without having them.
const IMPLIED_MODE: u32 = 0o755;
const SPECIAL_BITS: u32 = 0o7000;

/// What the entries mean.
pub enum Flavor<'a> {
    /// A layer, into an empty directory. What is replaced goes to the directory given here (made when needed).
    Layer {
        /// The layer's own directory, beside its root.
        aside: &'a Path,
    },
    /// A copy into a tree that is in use.
    Copy {
        /// Refuse to replace a directory by something else, and the other way round.
        keep_kind: bool,
        /// Who gets everything, whatever the archive says.
        owner: Option<(u32, u32)>,
    },
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What the files take, each inode once, directories not.
    pub size: u64,
    /// Something was replaced, so that `size` counts too much and has to be counted anew.
    pub replaced: bool,
}

/// Applies all entries of an archive below `prefix` of `view`, in a thread of its own (whose umask is nobody else's).
///
/// # Errors
/// [`Error`]. What was made so far stays.
pub fn apply<R: BufRead + Send>(
    reader: &mut TarReader<R>,
    view: &View,
    prefix: &[u8],
    flavor: Flavor<'_>,
) -> Result<Applied, Error> {
    std::thread::scope(|scope| {
        let work = || {
            // A new thread shares its umask with the process until told otherwise.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)
                .map_err(Error::errno("prepare to apply", b""))?;
            umask(Mode::empty());
            Applier::new(view, prefix, flavor).run(reader)
        };
        let thread = std::thread::Builder::new().name("apply".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(Error::Input)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts to read an archive with the default limits.
pub fn reader<R: BufRead>(input: R, recipe: Option<recipe::Writer>) -> TarReader<R> {
    TarReader::new(input, Limits::DEFAULT, recipe)
}

/// What the directories of an archive may take in memory until its end, with their names and attributes: some half a million.
const FINISHING_MAX: usize = 64 << 20;
/// How many entries may take the place of an earlier one of their own layer: to make the tar again, all are looked through each time.
const ASIDE_MAX: u32 = 10_000;

struct Applier<'a> {
    view: &'a View,
    prefix: Vec<Vec<u8>>,
    flavor: Flavor<'a>,
    cache: HashMap<Vec<u8>, Dir>,
    last: Option<(Vec<u8>, Dir)>,
    finishing: Vec<Finish>,
    finishing_bytes: usize,
    aside: Option<OwnedFd>,
    aside_count: u32,
    applied: Applied,
}

/// A directory that entries go to.
#[derive(Clone)]
struct Dir {
    fd: Arc<OwnedFd>,
    /// Where it is, links resolved.
    path: Arc<[u8]>,
}

/// What a directory gets when all is made.
struct Finish {
    /// Where it is, links resolved. Not a descriptor: there may be more directories than those.
    path: Vec<u8>,
    mode: u32,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Finish {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        let xattrs = self.xattrs.iter();
        let xattrs: usize = xattrs.map(|(name, value)| 64 + name.len() + value.len()).sum();
        size_of::<Self>() + self.path.len() + xattrs
    }
}

/// Where an entry goes.
struct Place {
    dir: Dir,
    name: Vec<u8>,
}

impl Place {
    fn path(&self) -> Vec<u8> {
        [&self.dir.path[..], b"/", &self.name].concat()
    }

    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

impl<'a> Applier<'a> {
    fn new(view: &'a View, prefix: &[u8], flavor: Flavor<'a>) -> Self {
        Self {
            view,
            prefix: clean(prefix).into_iter().map(<[u8]>::to_vec).collect(),
            flavor,
            cache: HashMap::new(),
            last: None,
            finishing: Vec::new(),
            finishing_bytes: 0,
            aside: None,
            aside_count: 0,
            applied: Applied::default(),
        }
    }

    fn run<R: BufRead>(mut self, reader: &mut TarReader<R>) -> Result<Applied, Error> {
        while let Some(entry) = reader.next_entry()? {
            if let Flavor::Layer { aside } = self.flavor {
                crate::disk::change(aside).map_err(Error::io("make", &entry.name))?;
            }
            self.entry(reader, &entry)?;
        }
        self.finish()?;
        Ok(self.applied)
    }

    fn is_layer(&self) -> bool {
        matches!(self.flavor, Flavor::Layer { .. })
    }

    fn entry<R: BufRead>(&mut self, reader: &mut TarReader<R>, entry: &Entry) -> Result<(), Error> {
        let names = clean(&entry.name);
        let Some((name, parents)) = names.split_last() else {
            // The root itself: it is there, and it keeps what it has.
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(Error::entry(&entry.name, "it would replace the root")),
            };
        };
        let dir = self.directory(parents, &entry.name)?;
        if !self.view.is_writable(&[&dir.path[..], b"/", name].concat()) {
            return Err(Error::ReadOnly { name: super::text(&entry.name) });
        }
        if self.is_layer() && name.starts_with(WHITEOUT) {
            return self.whiteout(reader, &dir, name, entry);
        }
        let place = Place { dir, name: name.to_vec() };
        match entry.kind {
            Kind::Directory => self.make_directory(reader, &place, entry),
            Kind::Regular => self.make_file(reader, &place, entry),
            Kind::HardLink => self.make_hard_link(reader, &place, entry),
            Kind::Symlink => self.make_symlink(reader, &place, entry),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.make_node(reader, &place, entry)
            }
        }
    }

    /// Returns the directory of these names, made if it is missing.
    fn directory(&mut self, names: &[&[u8]], entry: &[u8]) -> Result<Dir, Error> {
        let prefix = self.prefix.clone();
        let names: Vec<&[u8]> =
            prefix.iter().map(Vec::as_slice).chain(names.iter().copied()).collect();
        let key = absolute(&names);
        if let Some((last, dir)) = &self.last
            && *last == key
        {
            return Ok(dir.clone());
        }
        let dir = match self.cache.get(&key) {
            Some(dir) => dir.clone(),
            None => {
                let dir = self.open_or_make(&names, entry)?;
                if self.cache.len() >= CACHE {
                    self.cache.clear();
                }
                self.cache.insert(key.clone(), dir.clone());
                dir
            }
        };
        self.last = Some((key, dir.clone()));
        Ok(dir)
    }

    fn open_or_make(&mut self, names: &[&[u8]], entry: &[u8]) -> Result<Dir, Error> {
        match self.open_dir(&absolute(names)) {
            Ok(dir) => return Ok(dir),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::errno("find the directory of", entry)(errno)),
        }
        let (name, parents) = names.split_last().ok_or(Error::entry(entry, "the root is gone"))?;
        let parent = self.open_or_make(parents, entry)?;
        if !self.view.is_writable(&[&parent.path[..], b"/", name].concat()) {
            return Err(Error::ReadOnly { name: super::text(entry) });
        }
        match mkdirat(&parent.fd, OsStr::from_bytes(name), Mode::from_bits_truncate(IMPLIED_MODE)) {
            // A link that leads nowhere is such a name, and stays one.
            Err(Errno::EEXIST) | Ok(()) => {}
            Err(errno) => return Err(Error::errno("make the directory of", entry)(errno)),
        }
        if let Flavor::Copy { owner: Some((uid, gid)), .. } = self.flavor {
            set_owner(&parent.fd, name, uid, gid)
                .map_err(Error::errno("set the owner of", entry))?;
        }
        self.open_dir(&absolute(names)).map_err(Error::errno("find the directory of", entry))
    }

    /// Opens a directory as a process in the tree would.
    fn open_dir(&self, path: &[u8]) -> Result<Dir, Errno> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let text = Path::new(OsStr::from_bytes(path));
        if self.view.is_plain() {
            let plain = openat2::IN_ROOT | openat2::NO_MAGICLINKS | openat2::NO_SYMLINKS;
            match openat2::openat2(self.view.root(), relative(text), flags, 0, plain) {
                Ok(fd) => return Ok(Dir { fd: Arc::new(fd), path: path.into() }),
                Err(Errno::ELOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        // A link is on the way, or another tree: step by step, so that we learn where it leads.
        let node = self.view.find(path, true).map_err(errno_of)?;
        let mode = node.stat().map_err(errno_of)?.st_mode;
        if !is_dir(mode) {
            return Err(Errno::ENOTDIR);
        }
        Ok(Dir { fd: node.fd, path: node.path.into() })
    }

    fn make_directory<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        loop {
            match mkdirat(&place.dir.fd, place.name(), Mode::from_bits_truncate(0o700)) {
                Ok(()) => break,
                Err(Errno::EEXIST) => {
                    if self.give_way(reader, place, entry)? == Way::Kept {
                        break;
                    }
                }
                Err(errno) => return Err(Error::errno("make the directory", &entry.name)(errno)),
            }
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match self.view.inside(&place.path()) {
            Some(root) => Arc::clone(root),
            None => Arc::new(
                openat(&place.dir.fd, place.name(), flags, Mode::empty())
                    .map_err(Error::errno("open the directory", &entry.name))?,
            ),
        };
        let (uid, gid) = self.owner(entry);
        if !(self.is_layer() && (uid, gid) == (0, 0)) {
            fchownat(
                &fd,
                "",
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::AT_EMPTY_PATH,
            )
            .map_err(Error::errno("set the owner of", &entry.name))?;
        }
        if !self.is_layer() {
            // Whoever is in the tree sees the directory meanwhile.
            set_mode(&fd, entry.mode).map_err(Error::errno("set the mode of", &entry.name))?;
        }
        let finish = Finish {
            path: place.path(),
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        self.finishing_bytes += finish.bytes();
        if self.finishing_bytes > FINISHING_MAX {
            return Err(Error::TooMany("directories"));
        }
        self.finishing.push(finish);
        Ok(())
    }

    fn make_file<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(entry.mode & !SPECIAL_BITS);
        let fd = loop {
            match openat(&place.dir.fd, place.name(), flags, mode) {
                Ok(fd) => break fd,
                Err(Errno::EEXIST) => self.clear(reader, place, entry)?,
                Err(errno) => return Err(Error::errno("make the file", &entry.name)(errno)),
            }
        };
        let mut file = File::from(fd);
        match &entry.sparse {
            None => {
                if reader.has_recipe() {
                    reader.refer(&place.path())?;
                }
                copy_data(reader, &mut file, entry)?;
            }
            Some(map) => copy_sparse(reader, &file, entry, map)?,
        }
        self.applied.size += entry.size;
        let (uid, gid) = self.owner(entry);
        let owned = self.is_layer() && (uid, gid) == (0, 0);
        if !owned {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(Error::errno("set the owner of", &entry.name))?;
        }
        // The owner's change clears these bits, and so would a write.
        if entry.mode & SPECIAL_BITS != 0 || !self.is_layer() {
            fchmod(&file, Mode::from_bits_truncate(entry.mode))
                .map_err(Error::errno("set the mode of", &entry.name))?;
        }
        set_xattrs(&file, &entry.xattrs, &entry.name)?;
        let time = timespec(entry.mtime);
        futimens(&file, &time, &time).map_err(Error::errno("set the time of", &entry.name))
    }

    fn make_hard_link<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        let names = clean(&entry.link);
        let Some((target, parents)) = names.split_last() else {
            return Err(Error::entry(&entry.name, "a hard link to the root"));
        };
        let prefix = self.prefix.iter().map(Vec::as_slice);
        let parents: Vec<&[u8]> = prefix.chain(parents.iter().copied()).collect();
        let from = self
            .open_dir(&absolute(&parents))
            .map_err(Error::errno("find the target of the hard link", &entry.name))?;
        if (&from.path, *target) == (&place.dir.path, place.name.as_slice()) {
            return Err(Error::entry(&entry.name, "a hard link to itself"));
        }
        let target = OsStr::from_bytes(target);
        loop {
            match linkat(&from.fd, target, &place.dir.fd, place.name(), LinkatFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::EEXIST) => self.clear(reader, place, entry)?,
                Err(errno) => return Err(Error::errno("make the hard link", &entry.name)(errno)),
            }
        }
    }

    fn make_symlink<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        let target = OsStr::from_bytes(&entry.link);
        loop {
            match symlinkat(target, &place.dir.fd, place.name()) {
                Ok(()) => break,
                Err(Errno::EEXIST) => self.clear(reader, place, entry)?,
                Err(errno) => return Err(Error::errno("make the link", &entry.name)(errno)),
            }
        }
        self.applied.size += entry.link.len() as u64;
        self.dress(place, entry)
    }

    fn make_node<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        let kind = match entry.kind {
            Kind::CharDevice => SFlag::S_IFCHR,
            Kind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let device = makedev(entry.device.0.into(), entry.device.1.into());
        let mode = Mode::from_bits_truncate(entry.mode);
        loop {
            match mknodat(&place.dir.fd, place.name(), kind, mode, device) {
                Ok(()) => break,
                Err(Errno::EEXIST) => self.clear(reader, place, entry)?,
                Err(errno) => return Err(Error::errno("make the node", &entry.name)(errno)),
            }
        }
        self.dress(place, entry)?;
        let at = FchmodatFlags::FollowSymlink;
        // Not a link: we have just made it, and in a layer nobody else is there. In a copy somebody may be, so there the mode is
        // that of its making.
        if self.is_layer() && entry.mode & SPECIAL_BITS != 0 {
            fchmodat(&place.dir.fd, place.name(), mode, at)
                .map_err(Error::errno("set the mode of", &entry.name))?;
        }
        Ok(())
    }

    /// Owner, attributes and time of what is neither file nor directory.
    fn dress(&self, place: &Place, entry: &Entry) -> Result<(), Error> {
        let (uid, gid) = self.owner(entry);
        if !(self.is_layer() && (uid, gid) == (0, 0)) {
            set_owner(&place.dir.fd, &place.name, uid, gid)
                .map_err(Error::errno("set the owner of", &entry.name))?;
        }
        if !entry.xattrs.is_empty() {
            let fd = super::view::open_path(&place.dir.fd, &place.name)
                .map_err(Error::io("open", &entry.name))?;
            set_xattrs(&fd, &entry.xattrs, &entry.name)?;
        }
        let time = timespec(entry.mtime);
        utimensat(&place.dir.fd, place.name(), &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(Error::errno("set the time of", &entry.name))
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        match self.flavor {
            Flavor::Copy { owner: Some(owner), .. } => owner,
            _ => (entry.uid, entry.gid),
        }
    }

    /// Makes room for what is no directory.
    fn clear<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<(), Error> {
        self.give_way(reader, place, entry).map(|_| ())
    }

    /// Makes room where an entry goes. A directory stays if the entry is one too.
    fn give_way<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
    ) -> Result<Way, Error> {
        let stat = match fstatat(&place.dir.fd, place.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(Way::Free),
            other => other.map_err(Error::errno("look at", &entry.name))?,
        };
        let was_dir = is_dir(stat.st_mode);
        let is_dir = entry.kind == Kind::Directory;
        if let Flavor::Copy { keep_kind: true, .. } = self.flavor {
            refuse_other_kind(was_dir, is_dir, place, entry)?;
        }
        if was_dir && is_dir {
            return Ok(Way::Kept);
        }
        if self.view.inside(&place.path()).is_some() {
            return Err(Error::entry(&entry.name, "it would replace a mount point"));
        }
        self.cache.clear();
        self.last = None;
        if self.is_layer() && stat.st_rdev == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFCHR {
            // A whiteout of this layer, or what is as good as one: a directory in its place hides what is below.
            unlinkat(&place.dir.fd, place.name(), UnlinkatFlags::NoRemoveDir)
                .map_err(Error::errno("replace", &entry.name))?;
            if is_dir {
                self.make_opaque_directory(place, &entry.name)?;
            }
            return Ok(Way::Free);
        }
        self.applied.replaced = true;
        match self.flavor {
            Flavor::Layer { aside } => self.set_aside(reader, place, entry, aside)?,
            Flavor::Copy { .. } if was_dir => {
                remove_tree(&place.dir.fd, place.name())
                    .map_err(Error::errno("replace", &entry.name))?;
            }
            Flavor::Copy { .. } => {
                match unlinkat(&place.dir.fd, place.name(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(Error::errno("replace", &entry.name)(errno)),
                }
            }
        }
        Ok(Way::Free)
    }

    fn make_opaque_directory(&self, place: &Place, entry: &[u8]) -> Result<(), Error> {
        mkdirat(&place.dir.fd, place.name(), Mode::from_bits_truncate(0o700))
            .map_err(Error::errno("make the directory", entry))?;
        let fd =
            super::view::open_path(&place.dir.fd, &place.name).map_err(Error::io("open", entry))?;
        xattr::set(&fd, OPAQUE, b"y").map_err(Error::errno("mark as opaque", entry))
    }

    /// Keeps what an entry replaces, since the layer's tar has its bytes too.
    fn set_aside<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        place: &Place,
        entry: &Entry,
        aside: &Path,
    ) -> Result<(), Error> {
        let fail = |errno| Error::errno("set aside what is replaced by", &entry.name)(errno);
        if self.aside.is_none() {
            let dir = aside.join("old");
            match nix::unistd::mkdir(&dir, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            self.aside = Some(nix::fcntl::open(&dir, flags, Mode::empty()).map_err(fail)?);
        }
        let Some(old) = &self.aside else { return Ok(()) };
        let number = self.aside_count;
        if number >= ASIDE_MAX {
            return Err(Error::TooMany("entries of the same name"));
        }
        self.aside_count += 1;
        renameat(&place.dir.fd, place.name(), old, number.to_string().as_str()).map_err(fail)?;
        reader.moved(&place.path(), number)
    }

    /// `.wh.name` hides `name` of the layers below, `.wh..wh..opq` hides all of its directory there. Either way, what this layer
    /// itself has stays. OCI image-spec, layer.md, Whiteouts.
    fn whiteout<R: BufRead>(
        &mut self,
        reader: &mut TarReader<R>,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        reader.data_into_recipe(|_| Ok(()))?;
        if name == OPAQUE_MARK {
            return xattr::set(&dir.fd, OPAQUE, b"y")
                .map_err(Error::errno("mark as opaque", &entry.name));
        }
        if name.starts_with(META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::entry(&entry.name, "a whiteout of nothing"));
        }
        let place = Place { dir: dir.clone(), name: hidden.to_vec() };
        match mknodat(&dir.fd, place.name(), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => self.hide_below(&place, &entry.name),
            Err(errno) => Err(Error::errno("make the whiteout", &entry.name)(errno)),
        }
    }

    /// A file of this layer hides what is below by itself; a directory has to be opaque.
    fn hide_below(&self, place: &Place, entry: &[u8]) -> Result<(), Error> {
        let fd =
            super::view::open_path(&place.dir.fd, &place.name).map_err(Error::io("open", entry))?;
        let stat = nix::sys::stat::fstat(&fd).map_err(Error::errno("look at", entry))?;
        if is_dir(stat.st_mode) {
            xattr::set(&fd, OPAQUE, b"y").map_err(Error::errno("mark as opaque", entry))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        // In the archive's order: if a directory came twice, the last word counts.
        for finish in std::mem::take(&mut self.finishing) {
            let fd = match self.reopen_dir(&finish.path) {
                // Something else has taken its place since, in the archive or in the tree.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                other => other.map_err(Error::errno("open the directory", &finish.path))?,
            };
            finish.apply(&fd, self.is_layer())?;
        }
        Ok(())
    }

    /// Opens a directory that was made before, no link followed any more.
    fn reopen_dir(&self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        if self.view.is_plain() {
            let how = openat2::IN_ROOT | openat2::NO_MAGICLINKS | openat2::NO_SYMLINKS;
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let path = Path::new(OsStr::from_bytes(path));
            return openat2::openat2(self.view.root(), relative(path), flags, 0, how).map(Arc::new);
        }
        let node = self.view.find(path, false).map_err(errno_of)?;
        let is_it = node.path == path && is_dir(node.stat().map_err(errno_of)?.st_mode);
        if is_it { Ok(node.fd) } else { Err(Errno::ENOTDIR) }
    }
}

/// What became of what was there.
#[derive(PartialEq, Eq)]
enum Way {
    /// It stays: a directory, and a directory is wanted.
    Kept,
    /// It is gone.
    Free,
}

impl Finish {
    fn apply(self, fd: &OwnedFd, layer: bool) -> Result<(), Error> {
        let name = &self.path;
        set_xattrs(fd, &self.xattrs, name)?;
        if layer {
            set_mode(fd, self.mode).map_err(Error::errno("set the mode of", name))?;
        }
        set_time(fd, self.mtime).map_err(Error::errno("set the time of", name))
    }
}

fn refuse_other_kind(
    was_dir: bool,
    is_dir: bool,
    place: &Place,
    entry: &Entry,
) -> Result<(), Error> {
    let (there, new) = (super::text(&place.path()), super::text(&entry.name));
    match (was_dir, is_dir) {
        (true, false) => Err(Error::Overwrite(format!(
            "cannot overwrite directory {there:?} with non-directory {new:?}"
        ))),
        (false, true) => Err(Error::Overwrite(format!(
            "cannot overwrite non-directory {there:?} with directory {new:?}"
        ))),
        _ => Ok(()),
    }
}

fn copy_data<R: BufRead>(
    reader: &mut TarReader<R>,
    file: &mut File,
    entry: &Entry,
) -> Result<(), Error> {
    loop {
        let data = reader.data()?;
        if data.is_empty() {
            return Ok(());
        }
        let count = data.len();
        file.write_all(data).map_err(Error::io("write", &entry.name))?;
        reader.consume(count);
    }
}

/// The holes of a sparse file stay holes; its bytes are in the recipe, since they lie apart in the file.
fn copy_sparse<R: BufRead>(
    reader: &mut TarReader<R>,
    file: &File,
    entry: &Entry,
    map: &[(u64, u64)],
) -> Result<(), Error> {
    file.set_len(entry.size).map_err(Error::io("write", &entry.name))?;
    let mut pieces = map.iter().copied();
    let (mut offset, mut left) = (0, 0);
    reader.data_into_recipe(|mut data| {
        while !data.is_empty() {
            while left == 0 {
                let piece = pieces.next();
                (offset, left) =
                    piece.ok_or(Error::entry(&entry.name, "its sparse map is too short"))?;
            }
            let count = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all_at(&data[..count], offset).map_err(Error::io("write", &entry.name))?;
            offset += count as u64;
            left -= count as u64;
            data = &data[count..];
        }
        Ok(())
    })
}

fn set_owner(dir: impl AsFd, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(dir, OsStr::from_bytes(name), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Sets the mode of what an `O_PATH` descriptor refers to: `fchmod(2)` refuses those.
fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    fchmodat(
        nix::fcntl::AT_FDCWD,
        path.as_str(),
        Mode::from_bits_truncate(mode),
        FchmodatFlags::FollowSymlink,
    )
}

fn set_time(fd: impl AsFd, mtime: (i64, u32)) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let time = timespec(mtime);
    utimensat(nix::fcntl::AT_FDCWD, path.as_str(), &time, &time, UtimensatFlags::FollowSymlink)
}

/// Sets an entry's attributes. What the filesystem has not, or what we may not set, is left out, as Docker does.
fn set_xattrs(fd: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)], name: &[u8]) -> Result<(), Error> {
    for (key, value) in xattrs {
        if key.starts_with(OVERLAY_PRIVATE) {
            tracing::debug!(entry = %super::text(name), "an overlay's private attribute is left out");
            continue;
        }
        match xattr::set(&fd, key, value) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => {}
            Err(errno) => return Err(Error::errno("set an attribute of", name)(errno)),
        }
    }
    Ok(())
}

/// Removes a directory with all below it, from descriptor to descriptor.
pub(crate) fn remove_tree(dir: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut below = nix::dir::Dir::openat(&dir, name, flags, Mode::empty())?;
    let entries: Vec<_> = below.iter().collect::<Result<_, _>>()?;
    let fd = openat(&dir, name, flags, Mode::empty())?;
    for entry in entries {
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        match unlinkat(&fd, child, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => remove_tree(&fd, child)?,
            Err(errno) => return Err(errno),
        }
    }
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
}

fn timespec((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanos.into())
}

fn errno_of(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// `openat2` wants no leading slash's meaning of its own: below a root both are the same, and an empty path is the root.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
