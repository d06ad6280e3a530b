//! Files of a container: `docker cp` in both directions, `diff`, `export`, `commit`.
//!
//! Of a container that runs, the tree is its own root, with all that is mounted in it. Of one that does not, it is the
//! layers, as a mount that is attached nowhere, and its volumes beside it. Either way a path is walked from descriptor
//! to descriptor, and no name of the host is ever formed of it.

use std::{collections::BTreeMap, fs::File, io, os::fd::OwnedFd, sync::Arc};

use cleat_proto::{digest::ImageId, docker::container::Config, kind::Kind};
use tokio::sync::mpsc::Receiver;

use super::{Engine, Error, Result, create::top_layer};
use crate::{
    archive::{
        self,
        apply::{Flavor, apply, reader},
        chunks::{self, BodyWriter, ChunkReader, Received},
        compression::decompressed,
        pack::Packer,
        view::{Node, View, is_dir, is_link},
    },
    container::{Container, Record, mount_point::Source, names::ContainerRef},
    image::{Commit, Images, Reference},
    snapshot::diff::Change,
    spec,
};

/// A body that is produced while it is sent.
pub type Chunks = Receiver<io::Result<bytes::Bytes>>;

/// One path of a container, as `stat` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of what was asked for.
    pub name: String,
    /// In bytes.
    pub size: i64,
    /// As `stat(2)` has it.
    pub mode: u32,
    /// Nanoseconds since the epoch.
    pub mtime_nanos: i64,
    /// Where a link leads in the end.
    pub link_target: String,
}

/// What is put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    /// Refuse to replace a directory by something else, and the other way round.
    pub keep_kind: bool,
    /// Everything belongs to the container's user.
    pub own: bool,
}

/// What a commit is told.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The image's name.
    pub reference: Option<Reference>,
    /// Instead of the container's configuration.
    pub config: Option<Config>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Who.
    pub author: String,
    /// Why.
    pub comment: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Looks at a path; a link at its end is not followed.
    ///
    /// # Errors
    /// `Could not find the file …`
    pub async fn stat_path(&self, reference: &ContainerRef, path: String) -> Result<PathStat> {
        let container = self.container(reference)?;
        let called = reference.0.clone();
        self.blocking(move |engine| {
            let view = engine.view_of(&container, false)?;
            let node = find(&view, &path, &called)?;
            stat_of(&view, &node, &path)
        })
        .await
    }

    /// Packs a path; a link at its end is packed as such.
    ///
    /// # Errors
    /// `Could not find the file …`
    pub async fn get_path(
        &self,
        reference: &ContainerRef,
        path: String,
    ) -> Result<(PathStat, Chunks)> {
        let container = self.container(reference)?;
        let (called, seen) = (reference.0.clone(), Arc::clone(&container));
        let (view, node, stat, name) = self
            .blocking(move |engine| {
                let view = engine.view_of(&seen, false)?;
                let node = find(&view, &path, &called)?;
                let stat = stat_of(&view, &node, &path)?;
                let name = name_in_archive(&path);
                Ok((view, node, stat, name))
            })
            .await?;
        let chunks = self.pack("archive", move |packer| packer.node(&view, &node, &name));
        self.publish(&container, "archive-path", BTreeMap::new());
        Ok((stat, chunks))
    }

    /// Unpacks an archive into a directory.
    ///
    /// # Errors
    /// If there is no such directory, or it may not be written, or the archive is none.
    pub async fn put_path(
        &self,
        reference: &ContainerRef,
        path: String,
        options: PutOptions,
        tar: Received,
    ) -> Result<()> {
        let entry = self.entry(reference)?;
        let (engine, put, called) = (self.clone(), Arc::clone(&entry), reference.0.clone());
        let work = async move {
            let container = put.view();
            let (view, container) = (engine.clone(), container);
            view.blocking(move |engine| engine.put(&container, &called, &path, options, tar)).await
        };
        // Not between the look at whether it runs and a start, which would mount the same directories.
        if entry.view().state.is_running() {
            work.await?
        } else {
            entry.queue.run(work).await?
        }
        self.publish(&entry.view(), "extract-to-dir", BTreeMap::new());
        Ok(())
    }

    fn put(
        &self,
        container: &Container,
        called: &str,
        path: &str,
        options: PutOptions,
        tar: Received,
    ) -> Result<()> {
        let view = self.view_of(container, true)?;
        let node = view.find(&clean(path), true).map_err(|error| not_found(error, path, called))?;
        let mode = node.stat().map_err(|error| not_found(error, path, called))?.st_mode;
        if !is_dir(mode) {
            let missing = path.ends_with('/') || path.ends_with("/.");
            return Err(if missing {
                could_not_find(path, called)
            } else {
                Error::new(Kind::InvalidArgument, "extraction point is not a directory")
            });
        }
        check_writable(&container.record, &node.path)?;
        let owner = if options.own { self.owner_in(container)? } else { None };
        let chunks = decompressed(tar)?;
        let mut tar = reader(ChunkReader::new(chunks), None);
        let flavor = Flavor::Copy { keep_kind: options.keep_kind, owner };
        apply(&mut tar, &view, &node.path, flavor)?;
        Ok(())
    }

    /// Who a container's processes are; `None` if it does not say.
    fn owner_in(&self, container: &Container) -> Result<Option<(u32, u32)>> {
        let record = &container.record;
        if record.config.user.is_empty() {
            return Ok(None);
        }
        let view = self.view_of(container, false)?;
        let read = |path: &str| read_small(&view, path);
        let files = spec::user::Files::read(&read)?;
        let user = spec::user::resolve(&record.config.user, &[], &files)?;
        Ok(Some((user.uid(), user.gid())))
    }

    /// Packs all of a container's files, without what is mounted in it.
    ///
    /// # Errors
    /// `No such container: …`
    pub async fn export(&self, reference: &ContainerRef) -> Result<Chunks> {
        let container = self.container(reference)?;
        let record = Arc::clone(&container.record);
        let view = self
            .blocking(move |engine| {
                let top = top_layer(&record)?;
                Ok(View::new(engine.snapshots().open_root_read_only(&record.id, top.as_ref())?))
            })
            .await?;
        let chunks = self.pack("export", move |packer| {
            let root = view.find(b"/", true).map_err(archive::Error::Input)?;
            packer.contents(&view, &root)
        });
        self.publish(&container, "export", BTreeMap::new());
        Ok(chunks)
    }

    /// Lists what a container changed.
    ///
    /// # Errors
    /// `No such container: …`
    pub async fn changes(&self, reference: &ContainerRef) -> Result<Vec<Change>> {
        let container = self.container(reference)?;
        self.blocking(move |engine| {
            let top = top_layer(&container.record)?;
            Ok(engine.snapshots().changes(&container.record.id, top.as_ref())?)
        })
        .await
    }

    /// Makes an image of a container as it is now.
    ///
    /// # Errors
    /// If a change makes no sense, or the container is being removed.
    pub async fn commit_container(
        &self,
        reference: &ContainerRef,
        request: CommitRequest,
    ) -> Result<ImageId> {
        let container = self.container(reference)?;
        let record = &container.record;
        let own = ContainerRef(record.id.to_string());
        let mut config = request.config.unwrap_or_else(|| record.config.clone());
        Images::change(&mut config, &request.changes)?;
        super::defaults::merge_image(&mut config, &record.config);
        let commit = Commit {
            container: record.id.to_string(),
            top_layer: top_layer(record)?,
            parent: record.image_id.parse().ok(),
            config,
            command: record.config.cmd.as_ref().map(|cmd| cmd.0.join(" ")).unwrap_or_default(),
            reference: request.reference.clone(),
            author: request.author,
            comment: request.comment.clone(),
        };
        let frozen =
            request.pause && container.state.is_running() && self.pause(&own).await.is_ok();
        let upper = self.snapshots().upper_dir(&record.id);
        let made =
            self.blocking(move |engine| Ok(engine.images().commit_container(&upper, commit)?));
        let made = made.await;
        if frozen {
            self.unpause(&own).await?;
        }
        let image = made?;
        let name = request.reference.as_ref().map(Reference::familiar).unwrap_or_default();
        self.publish_image(&image, "create", image.id.as_str());
        if !name.is_empty() {
            self.publish_image(&image, "tag", &name);
        }
        let attributes =
            [("comment", request.comment), ("imageID", image.id.to_string()), ("imageRef", name)];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
        self.publish(&container, "commit", attributes);
        Ok(image.id.clone())
    }

    /// Packs in a thread of its own, as fast as the answer is read.
    fn pack(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Packer<BodyWriter>) -> Result<(), archive::Error> + Send + 'static,
    ) -> Chunks {
        let (writer, chunks) = chunks::body();
        tokio::task::spawn_blocking(move || {
            let mut packer = Packer::new(writer);
            let packed = work(&mut packer);
            let failed = match packed {
                Ok(()) => packer.finish_or_give_back().err(),
                Err(error) => Some((packer.into_output(), error)),
            };
            if let Some((writer, error)) = failed {
                let error = Error::from(error);
                tracing::debug!(what, error = error.whole(), "a tar did not come to its end");
                writer.fail(io::Error::other(error.whole()));
            }
        });
        chunks
    }

    /// Opens a container's tree.
    fn view_of(&self, container: &Container, write: bool) -> Result<View> {
        let record = &container.record;
        if container.state.is_running() {
            let root = format!("/proc/{}/root", container.state.pid());
            if let Ok(root) = File::open(root) {
                return Ok(View::new(OwnedFd::from(root)));
            }
            // It has just ended.
        }
        let top = top_layer(record)?;
        let root = if write {
            self.snapshots().open_root(&record.id, top.as_ref())?
        } else {
            self.snapshots().open_root_read_only(&record.id, top.as_ref())?
        };
        let mut view = View::new(root);
        if record.host_config.readonly_rootfs {
            view.set_read_only();
        }
        for mount in &record.mounts {
            let Some(source) = self.source_of(&mount.source)? else { continue };
            view.insert(mount.destination.as_bytes(), source, !mount.rw);
        }
        // What the last run saw there; before the first there is nothing.
        for name in ["hostname", "hosts", "resolv.conf"] {
            if let Some(file) = open_path(&self.container_dir(&record.id).join(name)) {
                let path = format!("/etc/{name}");
                let shadowed = record.mounts.iter().any(|mount| mount.destination == path);
                if !shadowed && record.run.started_at_nanos != 0 {
                    view.insert(path.as_bytes(), file, false);
                }
            }
        }
        Ok(view)
    }

    /// Opens what is mounted; `None` if it is not there, or comes into being at the start only.
    fn source_of(&self, source: &Source) -> Result<Option<OwnedFd>> {
        let (path, below) = match source {
            Source::Bind { path, .. } => (path.clone(), ""),
            Source::Volume { name, subpath, .. } => match self.volumes().content(name)? {
                crate::volume::Content::Directory(path) => (path, subpath.as_str()),
                crate::volume::Content::Filesystem { .. } => return Ok(None),
            },
            Source::Image { top_layer, subpath, .. } => {
                let top = top_layer.as_deref().and_then(|top| top.parse().ok());
                let shown = self.snapshots().open_shown(top.as_ref(), subpath.as_ref());
                return shown.map_err(|error| {
                    let text = format!("cannot open {subpath:?} of an image");
                    Error::with_source(Kind::Internal, text, error)
                });
            }
            Source::Tmpfs { .. } => return Ok(None),
        };
        let Some(fd) = open_path(&path) else { return Ok(None) };
        if below.is_empty() {
            return Ok(Some(fd));
        }
        let below = std::path::Path::new(below.trim_start_matches('/'));
        Ok(cleat_sys::openat2::open_in_root(&fd, below, libc::O_PATH, 0).ok())
    }
}

/// Opens what is to be mounted, by the host's own name for it, links and all.
fn open_path(path: &std::path::Path) -> Option<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).ok()
}

/// Finds a path as `lstat` does: a link at its end counts itself, unless a slash or a dot follows it.
fn find(view: &View, path: &str, called: &str) -> Result<Node> {
    let must_be_dir = path.ends_with('/') || path.ends_with("/.") || path == ".";
    let node =
        view.find(&clean(path), must_be_dir).map_err(|error| not_found(error, path, called))?;
    let mode = node.stat().map_err(|error| not_found(error, path, called))?.st_mode;
    if must_be_dir && !is_dir(mode) {
        return Err(could_not_find(path, called));
    }
    Ok(node)
}

/// Resolves `..` in the text alone, as clients expect.
fn clean(path: &str) -> Vec<u8> {
    archive::view::absolute(&archive::clean(path.as_bytes()))
}

/// The name under which a path is packed: its last part; `.` if that is asked for, the empty name for the root.
fn name_in_archive(path: &str) -> Vec<u8> {
    if path == "." || path.ends_with("/.") {
        return b".".to_vec();
    }
    archive::clean(path.as_bytes()).last().map(|name| name.to_vec()).unwrap_or_default()
}

fn stat_of(view: &View, node: &Node, path: &str) -> Result<PathStat> {
    let failed = |error: io::Error| {
        Error::with_source(Kind::Internal, format!("cannot look at {path:?}"), error)
    };
    let stat = node.stat().map_err(failed)?;
    let link_target = if is_link(stat.st_mode) {
        link_target(view, node).map_err(failed)?
    } else {
        String::new()
    };
    let name = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
    Ok(PathStat {
        name: name.unwrap_or("/").to_owned(),
        size: stat.st_size,
        mode: stat.st_mode,
        mtime_nanos: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec,
        link_target,
    })
}

/// Where a link leads: to the end if there is one, else as far as its text says.
fn link_target(view: &View, node: &Node) -> io::Result<String> {
    use std::os::unix::ffi::OsStrExt;
    if let Ok(end) = view.find(&node.path, true) {
        return Ok(String::from_utf8_lossy(&end.path).into_owned());
    }
    let target = nix::fcntl::readlinkat(&node.fd, "")?;
    let target = target.as_bytes();
    let parent = match node.path.iter().rposition(|byte| *byte == b'/') {
        Some(at) if !target.starts_with(b"/") => &node.path[..at],
        _ => b"",
    };
    let whole = [parent, b"/", target].concat();
    let whole = archive::view::absolute(&archive::clean(&whole));
    Ok(String::from_utf8_lossy(&whole).into_owned())
}

/// Reads a small regular file of a tree; never waits for a FIFO.
fn read_small(view: &View, path: &str) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    const LIMIT: u64 = 1 << 20;
    let node = match view.find(path.as_bytes(), true) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    if node.stat()?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    archive::view::reopen(&node.fd)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// The innermost mount around a path says whether it may be written, and outside of all the root filesystem.
fn check_writable(record: &Record, path: &[u8]) -> Result<()> {
    let is_around = |destination: &str| {
        let destination = clean(destination);
        path.strip_prefix(destination.as_slice())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let around = record.mounts.iter().filter(|mount| is_around(&mount.destination));
    let refused = match around.max_by_key(|mount| mount.destination.len()) {
        Some(mount) if !mount.rw => "mounted volume is marked read-only",
        None if record.host_config.readonly_rootfs => "container rootfs is marked read-only",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::InvalidArgument, refused))
}

fn not_found(error: io::Error, path: &str, called: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => could_not_find(path, called),
        _ if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENAMETOOLONG)) => {
            Error::with_source(Kind::InvalidArgument, format!("cannot find {path:?}"), error)
        }
        _ => Error::with_source(Kind::Internal, format!("cannot find {path:?}"), error),
    }
}

fn could_not_find(path: &str, called: &str) -> Error {
    Error::new(Kind::NotFound, format!("Could not find the file {path} in container {called}"))
}
