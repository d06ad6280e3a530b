//! Which cgroup hierarchies the host has, and where a container's directory is in each.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use super::{
    error::{Error, Result},
    file, usual,
};

/// Where pure v2 hosts have the hierarchy: `file-hierarchy(7)` of systemd, and every engine's assumption.
pub(super) const UNIFIED_ROOT: &str = "/sys/fs/cgroup";

/// A container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers bound to it, or `name=…`; for the unified hierarchy one empty name.
    pub names: Vec<String>,
    /// The container's directory.
    pub dir: PathBuf,
    /// Where the hierarchy is mounted; empty if that was not asked (a cgroup taken from a state file).
    pub root: PathBuf,
}

impl Hierarchy {
    /// Returns whether this is the v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.names.first().is_some_and(String::is_empty)
    }
}

/// A cgroup mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub names: Vec<String>,
    /// The directory of the hierarchy that is mounted.
    pub root: PathBuf,
    pub target: PathBuf,
}

/// Finds the hierarchies and places `cgroups_path` (or, if absent or empty, the container's id) in each.
pub fn locate(cgroups_path: Option<&str>, container_id: &str) -> Result<Vec<Hierarchy>> {
    let asked = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(container_id);
    let inner = clean(asked)?;
    let is_absolute = asked.starts_with('/');
    if is_pure_v2() {
        let base = if is_absolute { PathBuf::new() } else { own_parent_v2()? };
        let root = PathBuf::from(UNIFIED_ROOT);
        return Ok(vec![Hierarchy {
            names: vec![String::new()],
            dir: root.join(base).join(inner),
            root,
        }]);
    }
    let own = read("/proc/self/cgroup")?;
    let mounts = match usual::mounts(Path::new(UNIFIED_ROOT), &own) {
        Some(mounts) => mounts,
        None => parse_mountinfo(&read("/proc/self/mountinfo")?),
    };
    if mounts.is_empty() {
        return Err(Error::NoMount);
    }
    let own = if is_absolute { BTreeMap::new() } else { parse_own(&own) };
    Ok(mounts.into_iter().map(|mount| place(mount, &own, &inner)).collect())
}

/// Returns the hierarchies that a state file's controller → path describes.
pub fn from_paths(paths: &BTreeMap<String, String>) -> Result<Vec<Hierarchy>> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for (name, path) in paths {
        let dir = PathBuf::from(path);
        if !dir.is_absolute() || dir.components().any(|part| part == Component::ParentDir) {
            return Err(Error::InvalidPath(path.clone()));
        }
        match hierarchies.iter_mut().find(|known| known.dir == dir) {
            Some(known) => known.names.push(name.clone()),
            None => {
                hierarchies.push(Hierarchy { names: vec![name.clone()], dir, root: PathBuf::new() })
            }
        }
    }
    Ok(hierarchies)
}

pub(super) fn is_pure_v2() -> bool {
    nix::sys::statfs::statfs(UNIFIED_ROOT)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

fn read(path: &str) -> Result<String> {
    file::slurp(Path::new(path)).map_err(|source| Error::Read { path: path.into(), source })
}

/// Takes a cgroups path to a relative one that cannot leave where it is joined to.
fn clean(path: &str) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // An empty path is the hierarchy's root: nobody's container lives there.
    if clean.as_os_str().is_empty() { Err(Error::InvalidPath(path.to_owned())) } else { Ok(clean) }
}

/// Returns the cgroup above our own, relative: ours has processes (us), so that its children could get no controllers.
fn own_parent_v2() -> Result<PathBuf> {
    let own = parse_own(&read("/proc/self/cgroup")?);
    let own = own.get("").map_or("/", String::as_str);
    let parent = Path::new(own).parent().unwrap_or(Path::new("/"));
    Ok(parent.strip_prefix("/").unwrap_or(parent).to_owned())
}

/// Parses `/proc/self/cgroup`: controller → our cgroup. Source: `cgroups(7)`, "/proc files".
fn parse_own(text: &str) -> BTreeMap<String, String> {
    let mut own = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(names), Some(path)) = (fields.next(), fields.next()) {
            own.extend(names.split(',').map(|name| (name.to_owned(), path.to_owned())));
        }
    }
    own
}

/// Parses `/proc/self/mountinfo` for cgroup mounts, one per hierarchy. Source: `proc_pid_mountinfo(5)`.
pub(super) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let names = match right.next() {
            Some("cgroup2") => vec![String::new()],
            Some("cgroup") => controllers(right.nth(1).unwrap_or_default()),
            _ => continue,
        };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(target)) = (left.next(), left.next()) else { continue };
        let mount = Mount { names, root: unescape(root).into(), target: unescape(target).into() };
        match mounts.iter_mut().find(|known| known.names == mount.names) {
            // The same hierarchy twice (a bind mount for a container): the whole one serves better than a part.
            Some(known) if known.root != Path::new("/") && mount.root == Path::new("/") => {
                *known = mount
            }
            Some(_) => {}
            None => mounts.push(mount),
        }
    }
    mounts
}

/// Picks the controllers out of a v1 mount's super options: what is no option of the filesystem.
pub(super) fn controllers(options: &str) -> Vec<String> {
    const NOT_CONTROLLERS: [&str; 7] =
        ["rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods"];
    let is_controller =
        |option: &&str| !NOT_CONTROLLERS.contains(option) && !option.starts_with("release_agent=");
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn place(mount: Mount, own: &BTreeMap<String, String>, inner: &Path) -> Hierarchy {
    let own = mount.names.iter().find_map(|name| own.get(name)).map_or("/", String::as_str);
    let own = Path::new(own);
    // Of a partly mounted hierarchy only what is below the mounted root can be reached.
    let below = own.strip_prefix(&mount.root).or_else(|_| own.strip_prefix("/")).unwrap_or(own);
    Hierarchy { dir: mount.target.join(below).join(inner), names: mount.names, root: mount.target }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/x /mnt/part rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory,clone_children
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    fn dirs(cgroups_path: &str, own: &str) -> Vec<String> {
        let own = parse_own(own);
        parse_mountinfo(HYBRID)
            .into_iter()
            .map(|mount| {
                place(mount, &own, &clean(cgroups_path).unwrap()).dir.display().to_string()
            })
            .collect()
    }

    #[test]
    fn every_hierarchy_is_found_once_with_its_controllers() {
        let mounts = parse_mountinfo(HYBRID);
        let names: Vec<_> = mounts.iter().map(|mount| mount.names.join("+")).collect();
        assert_eq!(names, ["cpu+cpuacct", "memory", "name=systemd", ""]);
        assert_eq!(mounts[1].target, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn an_absolute_path_is_below_the_hierarchys_root() {
        assert_eq!(dirs("/docker/abc", "")[1], "/sys/fs/cgroup/memory/docker/abc");
    }

    #[test]
    fn a_relative_path_is_below_our_own_cgroup() {
        let own = "3:memory:/user.slice/x\n2:cpu,cpuacct:/\n0::/init.scope\n";
        let dirs = dirs("abc", own);
        assert_eq!(dirs[0], "/sys/fs/cgroup/cpu,cpuacct/abc");
        assert_eq!(dirs[1], "/sys/fs/cgroup/memory/user.slice/x/abc");
        assert_eq!(dirs[3], "/sys/fs/cgroup/unified/init.scope/abc");
    }

    #[test]
    fn no_path_leaves_the_hierarchy() {
        for (path, expected) in [("/../../etc", "etc"), ("a/../../b", "b"), ("//a/./b/", "a/b")] {
            assert_eq!(clean(path).unwrap(), Path::new(expected), "{path}");
        }
        for path in ["/", "..", "/a/.."] {
            assert!(matches!(clean(path), Err(Error::InvalidPath(_))), "{path}");
        }
    }

    #[test]
    fn paths_of_a_state_file_are_grouped_by_directory() {
        let paths = [("cpu", "/c/x"), ("cpuacct", "/c/x"), ("memory", "/m/x"), ("", "/u/x")];
        let paths: BTreeMap<_, _> =
            paths.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let found = from_paths(&paths).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found[0].is_unified());
        assert_eq!(found[1].names, ["cpu", "cpuacct"]);
        let bad = BTreeMap::from([("cpu".to_owned(), "/a/../b".to_owned())]);
        assert!(from_paths(&bad).is_err());
    }
}
