//! Which namespaces a container gets: new ones, or others' by path.

use crate::error::{Context, Error, Result};
use crate::spec::{IdMapping, Linux, Namespace};
use cleat_sys::process::set_namespaces;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// Kind in the OCI spec, as runc's state file spells it, file below `/proc/<pid>/ns`, flag.
const KINDS: [(&str, &str, &str, i32); 8] = [
    ("user", "NEWUSER", "user", libc::CLONE_NEWUSER),
    ("cgroup", "NEWCGROUP", "cgroup", libc::CLONE_NEWCGROUP),
    ("ipc", "NEWIPC", "ipc", libc::CLONE_NEWIPC),
    ("uts", "NEWUTS", "uts", libc::CLONE_NEWUTS),
    ("network", "NEWNET", "net", libc::CLONE_NEWNET),
    ("pid", "NEWPID", "pid", libc::CLONE_NEWPID),
    ("mount", "NEWNS", "mnt", libc::CLONE_NEWNS),
    ("time", "NEWTIME", "time", CLONE_NEWTIME),
];

/// `CLONE_NEWTIME` of `clone3(2)` and `unshare(2)`.
pub const CLONE_NEWTIME: i32 = 0x80;

/// The namespaces of one container.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// `CLONE_NEW*` of those to make.
    pub new: i32,
    /// Those to enter.
    pub joined: Vec<(i32, File)>,
}

impl Namespaces {
    /// Reads the configuration, and opens what is to be joined.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a combination that cannot be, [`Error::Kernel`] for a path that cannot be opened.
    pub fn new(linux: &Linux) -> Result<Self> {
        let mut namespaces = Self::default();
        for namespace in &linux.namespaces {
            let flag = flag(&namespace.kind)?;
            if namespaces.all() & flag != 0 {
                return Err(Error::Invalid(format!(
                    "duplicated ns {{{} {}}}",
                    namespace.kind,
                    namespace.path.display()
                )));
            }
            if namespace.path.as_os_str().is_empty() {
                namespaces.new |= flag;
            } else {
                namespaces.joined.push((flag, open(namespace)?));
            }
        }
        namespaces.check(linux)?;
        Ok(namespaces)
    }

    fn check(&self, linux: &Linux) -> Result<()> {
        let refuse = |text: &str| Err(Error::Invalid(text.to_owned()));
        let hidden = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        if hidden && self.all() & libc::CLONE_NEWNS == 0 {
            return refuse("unable to restrict sys entries without a private MNT namespace");
        }
        let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        if self.new & libc::CLONE_NEWUSER != 0
            && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
        {
            return refuse("user namespaces enabled, but no uid or gid mappings found");
        }
        if mapped && self.all() & libc::CLONE_NEWUSER == 0 {
            return refuse(
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            );
        }
        if !linux.time_offsets.is_empty() && self.new & CLONE_NEWTIME == 0 {
            return refuse(
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            );
        }
        Ok(())
    }

    /// Returns `CLONE_NEW*` of all, new or joined.
    pub fn all(&self) -> i32 {
        self.joined.iter().fold(self.new, |flags, (flag, _)| flags | flag)
    }

    /// Returns whether one of these kinds is to be made.
    pub fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// Returns whether a user namespace, new or joined, is part of it.
    pub fn has_user(&self) -> bool {
        self.all() & libc::CLONE_NEWUSER != 0
    }

    /// Returns whether the container has a namespace of this kind that is not this process's own; `file` is its name below
    /// `/proc/self/ns`.
    pub fn is_private(&self, kind: i32, file: &str) -> bool {
        let Some((_, joined)) = self.joined.iter().find(|(flag, _)| *flag == kind) else {
            return self.makes(kind);
        };
        let own = std::fs::metadata(format!("/proc/self/ns/{file}"));
        match (own, joined.metadata()) {
            (Ok(own), Ok(joined)) => (own.dev(), own.ino()) != (joined.dev(), joined.ino()),
            _ => false,
        }
    }

    /// Enters those of `kinds` that are to be joined.
    ///
    /// # Errors
    /// `EPERM`, and `EINVAL` where the path is of another kind.
    pub fn enter(&self, kinds: i32) -> Result<()> {
        for (flag, file) in self.joined.iter().filter(|(flag, _)| flag & kinds != 0) {
            set_namespaces(file, *flag)
                .context(|| format!("failed to join {} namespace", name(*flag)))?;
        }
        Ok(())
    }
}

fn flag(kind: &str) -> Result<i32> {
    let found = KINDS.iter().find(|entry| entry.0 == kind);
    found
        .map(|entry| entry.3)
        .ok_or_else(|| Error::Invalid(format!("unknown namespace type {kind:?}")))
}

fn name(flag: i32) -> &'static str {
    KINDS.iter().find(|entry| entry.3 == flag).map_or("unknown", |entry| entry.2)
}

fn open(namespace: &Namespace) -> Result<File> {
    if !namespace.path.is_absolute() {
        return Err(Error::Invalid(format!(
            "namespace path {} must be absolute",
            namespace.path.display()
        )));
    }
    File::open(&namespace.path).context(|| {
        let path = namespace.path.display();
        format!("unable to create new parent process: namespace path: lstat {path}")
    })
}

/// Returns runc's `namespace_paths` for a container with the given init.
pub fn paths(pid: i32) -> impl Iterator<Item = (String, String)> {
    KINDS
        .iter()
        .map(move |(_, name, file, _)| ((*name).to_owned(), format!("/proc/{pid}/ns/{file}")))
}

/// Formats mappings for `/proc/<pid>/uid_map`, `user_namespaces(7)`.
pub fn id_map(mappings: &[IdMapping]) -> String {
    mappings
        .iter()
        .map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_path_is_joined_and_none_is_new() {
        let json =
            r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/proc/self/ns/net"}]}"#;
        let namespaces = Namespaces::new(&linux(json)).unwrap();
        assert_eq!(namespaces.new, libc::CLONE_NEWNS);
        assert_eq!(namespaces.all(), libc::CLONE_NEWNS | libc::CLONE_NEWNET);
    }

    #[track_caller]
    fn refused(json: &str, text: &str) {
        assert_eq!(Namespaces::new(&linux(json)).unwrap_err().to_string(), text);
    }

    #[test]
    fn combinations_that_cannot_be_are_refused() {
        refused(
            r#"{"namespaces":[{"type":"pid"}],"maskedPaths":["/x"]}"#,
            "unable to restrict sys entries without a private MNT namespace",
        );
        refused(r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "duplicated ns {pid }");
        refused(r#"{"namespaces":[{"type":"moon"}]}"#, "unknown namespace type \"moon\"");
        refused(
            r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#,
            "user namespaces enabled, but no uid or gid mappings found",
        );
    }
}
