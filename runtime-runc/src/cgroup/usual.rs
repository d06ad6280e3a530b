//! The hierarchies where every distribution mounts them, each asked for by itself: `/proc/self/mountinfo` has a line for every
//! mount of the host, and takes as long to make and to read. What is not as usual is found there all the same.

use std::path::{Path, PathBuf};

use cleat_sys::statmount::mount_at;

use super::hierarchy::{Mount, controllers};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `<linux/magic.h>`.
const MAGIC: [u64; 2] = [0x0027_e0eb, 0x6367_7270];

/// Returns the mounts of all hierarchies that `own`, the text of `/proc/self/cgroup`, names: `base/<controllers>`, `base/<name>`,
/// `base/unified`. Nothing unless each is there, whole, and what its place says it is.
pub fn mounts(base: &Path, own: &str) -> Option<Vec<Mount>> {
    let found =
        own.lines().map(|line| at(base, line.split(':').nth(1)?)).collect::<Option<Vec<_>>>();
    found.filter(|mounts| !mounts.is_empty())
}

fn at(base: &Path, names: &str) -> Option<Mount> {
    let target = base.join(place(names)?);
    let mount = mount_at(&target).ok()??;
    let is_whole = mount.root == b"/";
    let names = match names {
        "" => (mount.magic == MAGIC[1]).then(|| vec![String::new()])?,
        names => {
            let options = controllers(std::str::from_utf8(&mount.options).ok()?);
            let is_the_one = names.split(',').count() == options.len()
                && names.split(',').all(|name| options.iter().any(|option| option == name));
            (mount.magic == MAGIC[0] && is_the_one).then_some(options)?
        }
    };
    is_whole.then(|| Mount { names, root: PathBuf::from("/"), target })
}

/// Returns the usual name of a hierarchy's directory.
fn place(names: &str) -> Option<&str> {
    let place = match names {
        "" => "unified",
        names => names.strip_prefix("name=").unwrap_or(names),
    };
    (!place.contains('/') && !place.starts_with('.')).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::hierarchy::{UNIFIED_ROOT, is_pure_v2, parse_mountinfo};

    #[test]
    fn a_hierarchy_s_directory_is_named_after_it() {
        let cases = [
            ("", Some("unified")),
            ("cpu,cpuacct", Some("cpu,cpuacct")),
            ("name=systemd", Some("systemd")),
            ("name=../etc", None),
            ("name=..", None),
        ];
        cases.iter().for_each(|(names, expected)| assert_eq!(place(names), *expected, "{names}"));
    }

    /// Compared as sets of (names, target), from mountinfo those that are where they usually are.
    #[test]
    fn what_is_found_is_what_mountinfo_says() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let sorted = |mounts: Vec<Mount>| {
            let sort = |mut mount: Mount| {
                mount.names.sort();
                (mount.names, mount.target)
            };
            let mut mounts: Vec<_> = mounts.into_iter().map(sort).collect();
            mounts.sort();
            mounts
        };
        let base = Path::new(UNIFIED_ROOT);
        let listed = parse_mountinfo(&text);
        let is_usual = |mount: &Mount| {
            place(&mount.names.join(",")).is_some_and(|place| base.join(place) == mount.target)
                && mount.root == Path::new("/")
        };
        // Since Linux 6.11 the kernel tells the controllers.
        let tells = options_are_told();
        let all_usual = listed.len() == own.lines().count() && listed.iter().all(is_usual);
        match mounts(base, &own) {
            Some(found) => assert_eq!(sorted(found), sorted(listed)),
            None => assert!(is_pure_v2() || !tells || !all_usual, "{listed:?}"),
        }
    }

    fn options_are_told() -> bool {
        mount_at(Path::new(UNIFIED_ROOT))
            .is_ok_and(|mount| mount.is_some_and(|mount| !mount.options.is_empty()))
    }

    #[test]
    fn what_is_not_there_or_something_else_is_not_found() {
        assert!(mounts(Path::new("/nowhere/at/all"), "0::/\n").is_none());
        assert!(mounts(Path::new("/"), "4:proc:/\n0::/\n").is_none());
        assert!(mounts(Path::new(UNIFIED_ROOT), "").is_none());
    }
}
