//! Files as tar streams and back, with docker's rules for what a copied thing is called.
//!
//! The rules (docs.docker.com, "docker container cp"): a source that ends in `/.` means a directory's content; a target that is
//! a directory takes the source under its own name; any other target is the copy's new name.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use crate::go;

/// One end of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where it is, its trailing `/` or `/.` kept.
    pub path: String,
    /// There is something.
    pub exists: bool,
    /// It is a directory.
    pub is_dir: bool,
    /// What it shall be called instead of the last part of its path; empty for no change.
    pub rename: String,
}

/// Cleans a path, and keeps what its end says about directories.
pub fn absolute(path: &str) -> Option<String> {
    let mut clean = go::absolute_path(path)?;
    if is_dot(path) && !is_dot(&clean) {
        if !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push('.');
    }
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    Some(clean)
}

fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some("") | None => "/",
        Some(base) => base,
    }
}

fn is_dot(path: &str) -> bool {
    path == "." || base(path) == "."
}

fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || is_dot(path)
}

/// Directory and last part of a path; the last part of `a/.` is the dot.
pub fn split(path: &str) -> (String, String) {
    let mut clean = go::clean_path(path);
    if is_dot(path) {
        clean.push_str("/.");
    }
    match clean.rsplit_once('/') {
        None => (".".into(), clean),
        Some(("", "")) => ("/".into(), "/".into()),
        Some(("", base)) => ("/".into(), base.to_owned()),
        Some((directory, base)) => (directory.to_owned(), base.to_owned()),
    }
}

/// Looks at a source on the host.
///
/// # Errors
/// There is none.
pub fn source(path: &str, follow_link: bool) -> Result<Place, String> {
    let lstat = |path: &str| {
        std::fs::symlink_metadata(path)
            .map_err(|error| go::path_error("lstat", path.trim_end_matches('/'), &error))
    };
    let mut rename = String::new();
    let resolved = if follow_link {
        lstat(path)?;
        let target =
            std::fs::canonicalize(path).map_err(|error| go::path_error("lstat", path, &error))?;
        let (target, new_name) = rebase_name(path, &target.to_string_lossy());
        rename = new_name;
        target
    } else {
        let (directory, last) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = if directory.is_empty() { "/" } else { directory };
        lstat(directory)?;
        let directory = std::fs::canonicalize(directory)
            .map_err(|error| go::path_error("lstat", directory, &error))?;
        let directory = directory.to_string_lossy();
        let resolved = format!("{}/{last}", directory.trim_end_matches('/'));
        if path.ends_with('/') && base(path) != base(&resolved) {
            base(path).clone_into(&mut rename);
        }
        resolved
    };
    let found = lstat(&resolved)?;
    Ok(Place { path: resolved, exists: true, is_dir: found.is_dir(), rename })
}

/// The resolved path with the end of the original, and the original's name where they differ.
pub fn rebase_name(path: &str, resolved: &str) -> (String, String) {
    let mut resolved = resolved.to_owned();
    if is_dot(path) && !is_dot(&resolved) {
        resolved.push_str("/.");
    }
    if path.ends_with('/') && !resolved.ends_with('/') {
        resolved.push('/');
    }
    let rename = if base(path) == base(&resolved) { String::new() } else { base(path).to_owned() };
    (resolved, rename)
}

/// Looks at a target on the host; links are followed to where they lead.
///
/// # Errors
/// Its directory is missing, or links lead in a circle.
pub fn target(path: &str) -> Result<Place, String> {
    let mut path = path.to_owned();
    for _ in 0..=10 {
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let link = std::fs::read_link(&path)
                    .map_err(|error| go::path_error("readlink", &path, &error))?;
                let link = link.to_string_lossy().into_owned();
                path = if link.starts_with('/') {
                    link
                } else {
                    go::clean_path(&format!("{}/{link}", split(&path).0))
                };
            }
            Ok(found) => {
                return Ok(Place {
                    path,
                    exists: true,
                    is_dir: found.is_dir(),
                    ..Place::default()
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, _) = split(&path);
                let found = std::fs::metadata(&parent)
                    .map_err(|error| go::path_error("stat", &parent, &error))?;
                if !found.is_dir() {
                    return Err("not a directory".into());
                }
                return Ok(Place { path, ..Place::default() });
            }
            Err(error) => return Err(go::path_error("lstat", &path, &error)),
        }
    }
    Err(format!("too many symlinks in {path}"))
}

/// Where to unpack, and how the first part of names changes on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The directory to unpack in.
    pub directory: String,
    /// The first part of names in the archive, and what it becomes. `None` for no change.
    pub rename: Option<(String, String)>,
}

/// Decides where a copy of `source` goes.
///
/// # Errors
/// A directory onto a file, or a file into a directory that does not exist.
pub fn plan(source: &Place, target: &Place) -> Result<Plan, String> {
    let (parent, name) = split(&target.path);
    if target.exists && target.is_dir {
        return Ok(Plan { directory: target.path.clone(), rename: None });
    }
    if target.exists && source.is_dir {
        return Err("cannot copy directory".into());
    }
    if !target.exists && !source.is_dir && asserts_directory(&target.path) {
        return Err("no such directory".into());
    }
    let old = if source.rename.is_empty() { split(&source.path).1 } else { source.rename.clone() };
    Ok(Plan { directory: parent, rename: Some((old, name)) })
}

/// Writes `source` as an archive whose names begin with `name`.
///
/// # Errors
/// A file cannot be read, or the reader of the archive is gone.
pub fn pack(source: &str, name: &str, out: impl Write) -> Result<(), String> {
    let mut packer = Packer { builder: Builder::new(out), links: HashMap::new() };
    packer.add(Path::new(source), Path::new(name))?;
    packer.builder.finish().map_err(|error| go::os_error(&error))
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Names of files with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn add(&mut self, path: &Path, name: &Path) -> Result<(), String> {
        let shown = path.to_string_lossy();
        let failed = |operation: &'static str| {
            let shown = shown.clone().into_owned();
            move |error: io::Error| go::path_error(operation, &shown, &error)
        };
        let found = std::fs::symlink_metadata(path).map_err(failed("lstat"))?;
        let mut header = header(&found);
        let kind = found.file_type();
        if kind.is_dir() {
            let directory = PathBuf::from(format!("{}/", name.display()));
            self.builder
                .append_data(&mut header, directory, io::empty())
                .map_err(failed("write"))?;
            let mut children: Vec<_> = std::fs::read_dir(path)
                .map_err(failed("open"))?
                .collect::<Result<_, _>>()
                .map_err(failed("read"))?;
            children.sort_by_key(std::fs::DirEntry::file_name);
            for child in children {
                self.add(&child.path(), &name.join(child.file_name()))?;
            }
        } else if kind.is_symlink() {
            let link = std::fs::read_link(path).map_err(failed("readlink"))?;
            self.builder.append_link(&mut header, name, link).map_err(failed("write"))?;
        } else if kind.is_file() {
            if found.nlink() > 1 {
                let key = (found.dev(), found.ino());
                if let Some(first) = self.links.get(&key) {
                    header.set_entry_type(EntryType::Link);
                    header.set_size(0);
                    return self
                        .builder
                        .append_link(&mut header, name, first)
                        .map_err(failed("write"));
                }
                self.links.insert(key, name.to_owned());
            }
            let file = std::fs::File::open(path).map_err(failed("open"))?;
            self.builder
                .append_data(&mut header, name, file.take(found.len()))
                .map_err(failed("read"))?;
        } else if header.entry_type() != EntryType::Regular {
            self.builder.append_data(&mut header, name, io::empty()).map_err(failed("write"))?;
        }
        Ok(())
    }
}

/// The header of a file, without its name. Sockets have none of their own and stay regular: they are left out.
fn header(found: &std::fs::Metadata) -> Header {
    use std::os::unix::fs::FileTypeExt;
    let mut header = Header::new_gnu();
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(u64::from(found.uid()));
    header.set_gid(u64::from(found.gid()));
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_size(if found.is_file() { found.len() } else { 0 });
    let kind = found.file_type();
    header.set_entry_type(match () {
        () if kind.is_dir() => EntryType::Directory,
        () if kind.is_symlink() => EntryType::Symlink,
        () if kind.is_fifo() => EntryType::Fifo,
        () if kind.is_char_device() => EntryType::Char,
        () if kind.is_block_device() => EntryType::Block,
        () => EntryType::Regular,
    });
    if kind.is_char_device() || kind.is_block_device() {
        let device = found.rdev();
        let _ = header.set_device_major(nix::sys::stat::major(device) as u32);
        let _ = header.set_device_minor(nix::sys::stat::minor(device) as u32);
    }
    header
}

/// Unpacks an archive by a plan. Nothing is written outside the directory, nor through links the archive brought itself.
///
/// # Errors
/// The archive is broken or tries to leave the directory, or a file cannot be written.
pub fn unpack(archive: impl Read, plan: &Plan) -> Result<(), String> {
    let mut archive = Archive::new(archive);
    archive.set_preserve_permissions(true);
    let directory = Path::new(&plan.directory);
    let mut brought = HashSet::new();
    let mut directory_times = Vec::new();
    for entry in archive.entries().map_err(|error| go::os_error(&error))? {
        let mut entry = entry.map_err(|error| go::os_error(&error))?;
        let name = renamed(&entry.path().map_err(|error| go::os_error(&error))?, plan);
        let Some(relative) = inside(&name) else {
            return Err(format!(
                "{} is outside of {}",
                go::quote(&name),
                go::quote(&plan.directory)
            ));
        };
        let path = directory.join(&relative);
        if relative.ancestors().skip(1).any(|parent| brought.contains(parent)) {
            return Err(format!("{} goes through a link of the same archive", go::quote(&name)));
        }
        let kind = entry.header().entry_type();
        check_overwrite(&path, kind)?;
        let failed = |error: io::Error| go::path_error("open", &path.to_string_lossy(), &error);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match kind {
            EntryType::Link => {
                let link = entry.link_name().map_err(failed)?.unwrap_or_default();
                let Some(link) = inside(&renamed(&link, plan)) else {
                    return Err(format!("invalid hardlink {}", go::quote(&name)));
                };
                if link.ancestors().any(|part| brought.contains(part)) {
                    return Err(format!("invalid hardlink {}", go::quote(&name)));
                }
                let _ = std::fs::remove_file(&path);
                std::fs::hard_link(directory.join(link), &path).map_err(failed)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                make_node(&path, entry.header()).map_err(failed)?
            }
            EntryType::XGlobalHeader => {}
            _ => {
                entry.unpack(&path).map_err(failed)?;
                if kind == EntryType::Symlink {
                    brought.insert(relative);
                } else if kind == EntryType::Directory {
                    directory_times.push((path, entry.header().mtime().unwrap_or(0)));
                }
            }
        }
    }
    // Filling a directory changes its time; set them last, innermost first.
    for (path, seconds) in directory_times.into_iter().rev() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        if let Ok(directory) = std::fs::File::open(&path) {
            let _ = directory.set_modified(time);
        }
    }
    Ok(())
}

/// The name with its first part changed.
fn renamed(name: &Path, plan: &Plan) -> String {
    let name = name.to_string_lossy().into_owned();
    match &plan.rename {
        None => name,
        Some((old, new)) if old == "/" => format!("{new}{name}"),
        Some((old, new)) => name.replacen(old.as_str(), new, 1),
    }
}

/// The name without dots and slashes at its beginning, unless it leads out.
fn inside(name: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return None,
        }
    }
    Some(clean)
}

/// A directory is never replaced by something else, nor the other way round.
fn check_overwrite(path: &Path, kind: EntryType) -> Result<(), String> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = go::quote(&path.to_string_lossy());
    match (found.is_dir(), kind == EntryType::Directory) {
        (true, false) => {
            Err(format!("cannot overwrite directory {shown} with non-directory {shown}"))
        }
        (false, true) if !path.is_dir() => {
            Err(format!("cannot overwrite non-directory {shown} with directory {shown}"))
        }
        _ => Ok(()),
    }
}

fn make_node(path: &Path, header: &Header) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let kind = match header.entry_type() {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    let mode = Mode::from_bits_truncate(header.mode()?);
    let _ = std::fs::remove_file(path);
    mknod(path, kind, mode, makedev(u64::from(major), u64::from(minor)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_is_kept() {
        assert_eq!(absolute("/a/b/.").as_deref(), Some("/a/b/."));
        assert_eq!(absolute("/a/./b/").as_deref(), Some("/a/b/"));
        assert_eq!(split("/a/."), ("/a".into(), ".".into()));
        assert_eq!(split("/"), ("/".into(), "/".into()));
    }

    #[test]
    fn a_copy_is_named_by_its_target() {
        let file = Place { path: "/src/a".into(), exists: true, ..Place::default() };
        let directory = Place { is_dir: true, ..file.clone() };
        let into = Place { path: "/dst".into(), exists: true, is_dir: true, rename: String::new() };
        let missing = Place { path: "/dst/new".into(), ..Place::default() };
        assert_eq!(plan(&file, &into), Ok(Plan { directory: "/dst".into(), rename: None }));
        let renamed = Plan { directory: "/dst".into(), rename: Some(("a".into(), "new".into())) };
        assert_eq!(plan(&file, &missing), Ok(renamed));
        let slash = Place { path: "/dst/new/".into(), ..Place::default() };
        assert_eq!(plan(&file, &slash), Err("no such directory".into()));
        let existing = Place { path: "/dst/f".into(), exists: true, ..Place::default() };
        assert_eq!(plan(&directory, &existing), Err("cannot copy directory".into()));
    }

    #[test]
    fn a_tree_survives_the_way_through_an_archive() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("sub")).unwrap();
        std::fs::write(from.path().join("sub/two"), "2").unwrap();
        std::os::unix::fs::symlink("sub/two", from.path().join("link")).unwrap();
        std::fs::hard_link(from.path().join("sub/two"), from.path().join("sub/zwei")).unwrap();
        let mut archive = Vec::new();
        pack(&from.path().to_string_lossy(), "old", &mut archive).unwrap();
        let plan = Plan {
            directory: to.path().to_string_lossy().into_owned(),
            rename: Some(("old".into(), "new".into())),
        };
        unpack(&archive[..], &plan).unwrap();
        let new = to.path().join("new");
        assert_eq!(std::fs::read_to_string(new.join("link")).unwrap(), "2");
        assert_eq!(std::fs::metadata(new.join("sub/zwei")).unwrap().nlink(), 2);
    }

    #[test]
    fn an_archive_cannot_write_through_its_own_links() {
        let to = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let mut builder = Builder::new(Vec::new());
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "l", outside.path()).unwrap();
        let mut file = Header::new_gnu();
        file.set_size(1);
        file.set_mode(0o644);
        builder.append_data(&mut file, "l/evil", &b"x"[..]).unwrap();
        let archive = builder.into_inner().unwrap();
        let plan = Plan { directory: to.path().to_string_lossy().into_owned(), rename: None };
        assert!(
            unpack(&archive[..], &plan)
                .is_err_and(|text| text.contains("link of the same archive"))
        );
        assert!(!outside.path().join("evil").exists());
    }
}
