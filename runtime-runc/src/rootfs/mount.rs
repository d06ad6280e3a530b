//! The mounts of the configuration. Each is made detached, configured, and attached to a descriptor of its target that was
//! found below the root without leaving it: there is no moment between check and mount (CVE-2021-30465).

use super::Site;
use super::flags;
use super::options::Options;
use super::path::{self, Kind};
use crate::error::{Context, Error, Result, reason};
use crate::spec::Mount;
use cleat_sys::Errno;
use cleat_sys::mountapi::{self, Attributes, FsContext, attr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The files of procfs that may be covered: those that lxcfs and the like emulate.
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Mounts below one root.
pub struct Mounter<'a> {
    /// The container's root.
    pub root: &'a OwnedFd,
    pub site: &'a Site<'a>,
    /// What becomes read-only once everything is in place.
    pub late: Vec<OwnedFd>,
}

impl Mounter<'_> {
    /// Makes one mount.
    ///
    /// # Errors
    /// [`Error`] naming source and target as runc does.
    pub fn add(&mut self, index: usize, mount: &Mount) -> Result<()> {
        self.try_add(index, mount).map_err(|error| {
            let source = &mount.source;
            Error::Invalid(format!(
                "error mounting {source:?} to rootfs at {:?}: {error}",
                mount.destination
            ))
        })
    }

    fn try_add(&mut self, index: usize, mount: &Mount) -> Result<()> {
        let options = Options::parse(mount.options.iter().map(String::as_str))?;
        // Some name it as the host sees it.
        let below = mount.destination.strip_prefix(self.site.rootfs);
        let destination = Path::new("/").join(below.unwrap_or(&mount.destination));
        if destination.components().count() < 2 {
            return Err(Error::Invalid("mounts on the root itself are not supported".to_owned()));
        }
        if let Some(recursive) = options.bind.or((mount.kind == "bind").then_some(false)) {
            let tree = self.source(index, mount, recursive, &options)?;
            return self.bind(tree, mount, &destination, &options);
        }
        if options.idmap(mount).is_some() {
            let text = "id mappings are for bind mounts only: the mount is a new filesystem";
            return Err(Error::Invalid(text.to_owned()));
        }
        if options.copy_up && mount.kind != "tmpfs" {
            return Err(Error::Invalid("tmpcopyup is for tmpfs only".to_owned()));
        }
        match mount.kind.as_str() {
            "cgroup" | "cgroup2" => super::cgroupfs::mount(self, &destination, &options),
            "proc" | "sysfs" => {
                let target = self.plain_directory(&destination, &mount.kind)?;
                self.new_filesystem(mount, &options, &options.filesystem, target)
            }
            "tmpfs" => {
                let (target, existed) = self.target(&destination, Kind::Directory)?;
                let mut data = options.filesystem.clone();
                if existed && !data.iter().any(|option| option.starts_with("mode=")) {
                    let stat = nix::sys::stat::fstat(&target).context(|| "stat".to_owned())?;
                    data.push(format!("mode={:04o}", stat.st_mode & 0o7777));
                }
                self.new_filesystem(mount, &options, &data, target)
            }
            "" => Err(Error::Invalid("a mount without a type must be a bind mount".to_owned())),
            _ => {
                let (target, _) = self.target(&destination, Kind::Directory)?;
                self.new_filesystem(mount, &options, &options.filesystem, target)
            }
        }
    }

    /// Opens the target, made if need be, and refuses one inside procfs, where other programs look for the truth.
    pub(super) fn target(&self, destination: &Path, kind: Kind) -> Result<(OwnedFd, bool)> {
        let what = || format!("create mountpoint for {} mount", destination.display());
        let (target, existed) = path::open_or_make(self.root, destination, kind).context(what)?;
        // move_mount(2) would say "invalid argument".
        let is_directory =
            nix::sys::stat::fstat(&target).context(what)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_directory != (kind == Kind::Directory) {
            return Err(Error::Kernel {
                what: format!("mount on {}", destination.display()),
                errno: Errno::ENOTDIR,
            });
        }
        let inside = path::lies_on_proc(&target).context(|| "statfs".to_owned())?;
        if inside && !COVERABLE.iter().any(|path| Path::new(path) == destination) {
            return Err(Error::Invalid(format!(
                "{destination:?} cannot be mounted because it is inside /proc"
            )));
        }
        Ok((target, existed))
    }

    /// The targets of procfs and sysfs are no links, or an image could move them elsewhere (CVE-2019-19921).
    fn plain_directory(&self, destination: &Path, kind: &str) -> Result<OwnedFd> {
        let refusal =
            || Error::Invalid(format!("filesystem {kind:?} must be mounted on ordinary directory"));
        match path::open_plain(self.root, destination, libc::O_PATH | libc::O_DIRECTORY) {
            Ok(target) => Ok(target),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(refusal()),
            Err(Errno::ENOENT) => {
                path::open_or_make(self.root, destination, Kind::Directory)
                    .context(|| "mkdir".to_owned())?;
                path::open_plain(self.root, destination, libc::O_PATH | libc::O_DIRECTORY)
                    .map_err(|_| refusal())
            }
            Err(errno) => {
                Err(Error::Kernel { what: format!("open {}", destination.display()), errno })
            }
        }
    }

    fn new_filesystem(
        &mut self,
        mount: &Mount,
        options: &Options,
        data: &[String],
        target: OwnedFd,
    ) -> Result<()> {
        let late = mount.kind == "tmpfs" || mount.destination == Path::new("/dev");
        let attributes =
            if late { options.new_mount() & !attr::RDONLY } else { options.new_mount() };
        let made = new_mount(&mount.kind, &mount.source, data, attributes)?;
        if options.copy_up {
            super::copy::tree(&target, &made)
                .context(|| "tmpcopyup: failed to copy the target's content".to_owned())?;
        }
        mountapi::attach(&made, target).context(|| "move_mount".to_owned())?;
        for (flag, recursive) in &options.propagation {
            let attributes = Attributes { propagation: *flag, ..Attributes::default() };
            mountapi::set_attributes(&made, attributes, *recursive)
                .context(|| "mount_setattr".to_owned())?;
        }
        if attributes != options.new_mount() {
            self.late.push(made);
        }
        Ok(())
    }

    /// Opens the source of a bind mount, or has it opened where that takes the host's rights.
    fn source(
        &self,
        index: usize,
        mount: &Mount,
        recursive: bool,
        options: &Options,
    ) -> Result<OwnedFd> {
        // A mount of its own has none of the filesystem's flags, such as `sync`: they are as they are.
        let data = options.filesystem.iter().filter(|word| !flags::is_flag(word));
        let data: Vec<&str> = data.map(String::as_str).collect();
        if !data.is_empty() {
            let data = data.join(",");
            return Err(Error::Invalid(format!(
                "bind mounts cannot have any filesystem-specific options applied: {data}"
            )));
        }
        if (self.site.user_namespace && !self.site.rootless) || options.idmap(mount).is_some() {
            return (self.site.fetch)(index);
        }
        let source = self.site.bundle.join(&mount.source);
        mountapi::clone_tree(&source, recursive).context(|| format!("bind {}", source.display()))
    }

    fn bind(
        &self,
        tree: OwnedFd,
        mount: &Mount,
        destination: &Path,
        options: &Options,
    ) -> Result<()> {
        let what = || format!("bind {}", mount.source);
        let is_directory =
            nix::sys::stat::fstat(&tree).context(what)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let kind = if is_directory { Kind::Directory } else { Kind::File };
        if destination == Path::new("/proc") && !path::lies_on_proc(&tree).context(what)? {
            return Err(Error::Invalid(format!(
                "{destination:?} cannot be mounted because it is not of type proc"
            )));
        }
        let (target, _) = self.target(destination, kind)?;
        options.named.apply(&tree)?;
        adjust_tree(&tree, options).context(what)?;
        mountapi::attach(tree, target).context(what)
    }
}

/// Makes a filesystem, attached nowhere.
pub(super) fn new_mount(
    kind: &str,
    source: &str,
    data: &[String],
    attributes: u64,
) -> Result<OwnedFd> {
    let context = FsContext::open(kind).context(|| format!("fsopen {kind:?}"))?;
    let fail = |errno: Errno, what: String| {
        let said = context.complaint().unwrap_or_else(|| reason(errno));
        Error::Invalid(format!("{what}: {said}"))
    };
    if !source.is_empty() {
        context
            .set_string("source", source)
            .map_err(|errno| fail(errno, format!("source {source:?}")))?;
    }
    for option in data {
        context.set_option(option).map_err(|errno| fail(errno, format!("option {option:?}")))?;
    }
    context.mount(attributes).map_err(|errno| fail(errno, format!("fsmount {kind:?}")))
}

/// Gives a copied tree the attributes and the propagation of the options.
pub(super) fn adjust(tree: impl AsFd, options: &Options) -> cleat_sys::Result<()> {
    if options.own != Attributes::default() {
        mountapi::set_attributes(&tree, options.own, false)?;
    }
    adjust_tree(tree, options)
}

/// The same without what is for the uppermost mount alone.
fn adjust_tree(tree: impl AsFd, options: &Options) -> cleat_sys::Result<()> {
    if options.all != Attributes::default() {
        mountapi::set_attributes(&tree, options.all, true)?;
    }
    for (flag, recursive) in &options.propagation {
        let attributes = Attributes { propagation: *flag, ..Attributes::default() };
        mountapi::set_attributes(&tree, attributes, *recursive)?;
    }
    Ok(())
}

/// Returns `path` as it reads without `.` and `..`.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}
