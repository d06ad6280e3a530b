//! The mounts of a container: Docker's own ones, the user's, and the files an engine provides, in the order they are made.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::{Input, Mount, MountSource, Shm};
use crate::container::mount_point::RecursiveReadOnly;

/// `mount_setattr(2)`: `AT_RECURSIVE`.
const RECURSIVE_READ_ONLY_SINCE: (u32, u32) = (5, 12);

/// overlayfs: `lowerdir+`.
const LOWERDIR_PLUS_SINCE: (u32, u32) = (6, 5);

const PROC: [&str; 3] = ["nosuid", "noexec", "nodev"];

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}

fn bind(destination: &str, source: PathBuf, options: Vec<String>) -> OciMount {
    let mut mount = mount(destination, "bind", "", &[]);
    mount.set_source(Some(source)).set_options(Some(options));
    mount
}

/// What an engine mounts without being asked. A privileged container writes to /sys; cgroups are writable where said.
fn defaults(input: &Input<'_>, writable_cgroups: bool) -> Vec<OciMount> {
    let mut sys = vec!["nosuid", "noexec", "nodev"];
    let mut cgroup = vec!["nosuid", "noexec", "nodev"];
    if !input.host_config.privileged {
        sys.push("ro");
    }
    if !writable_cgroups {
        cgroup.insert(0, "ro");
    }
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &PROC),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/sys", "sysfs", "sysfs", &sys),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
        mount("/dev/mqueue", "mqueue", "mqueue", &PROC),
    ];
    match &input.shm {
        Shm::Private { size_bytes } => {
            let size = format!("size={size_bytes}");
            mounts.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            ));
        }
        Shm::Bind(source) => {
            mounts.push(bind("/dev/shm", source.clone(), vec!["rbind".into(), "rprivate".into()]));
        }
        Shm::Absent => {}
    }
    mounts
}

/// Puts a tmpfs's options after Docker's defaults; the later of two that exclude each other wins.
fn tmpfs_options(asked: &[String]) -> Vec<String> {
    let key = |option: &str| match option {
        "noexec" | "exec" => "exec".to_owned(),
        "nosuid" | "suid" => "suid".to_owned(),
        "nodev" | "dev" => "dev".to_owned(),
        "ro" | "rw" => "rw".to_owned(),
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
        | "runbindable" => "propagation".to_owned(),
        other => other.split('=').next().unwrap_or(other).to_owned(),
    };
    let mut merged: Vec<String> = Vec::new();
    let defaults = ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned);
    for option in defaults.iter().chain(asked).filter(|option| !option.is_empty()) {
        merged.retain(|earlier| key(earlier) != key(option));
        merged.push(option.clone());
    }
    merged
}

fn bind_options(wanted: &Mount, non_recursive: bool, kernel: (u32, u32)) -> Vec<String> {
    let mut options = vec![if non_recursive { "bind" } else { "rbind" }.to_owned()];
    if wanted.read_only {
        let deep = match wanted.recursive_ro {
            RecursiveReadOnly::Disabled => false,
            RecursiveReadOnly::IfPossible => kernel >= RECURSIVE_READ_ONLY_SINCE,
            RecursiveReadOnly::Enforced => true,
        };
        options.push(if deep { "rro" } else { "ro" }.to_owned());
    }
    if !wanted.propagation.is_empty() {
        options.push(wanted.propagation.clone());
    }
    options
}

fn user_mount(wanted: &Mount, kernel: (u32, u32)) -> OciMount {
    match &wanted.source {
        MountSource::Bind { path, non_recursive } => {
            bind(&wanted.destination, path.clone(), bind_options(wanted, *non_recursive, kernel))
        }
        MountSource::Layers(layers) => {
            let mut made = mount(&wanted.destination, "overlay", "overlay", &[]);
            made.set_options(Some(overlay_options(layers, kernel)));
            made
        }
        MountSource::Tmpfs { options } => {
            let mut options = tmpfs_options(options);
            if wanted.read_only && !options.iter().any(|option| option == "ro") {
                options.retain(|option| option != "rw");
                options.push("ro".into());
            }
            let mut made = mount(&wanted.destination, "tmpfs", "tmpfs", &[]);
            made.set_options(Some(options));
            made
        }
    }
}

/// Layers one by one where the kernel takes them so: their paths together may be longer than an option can be.
fn overlay_options(layers: &[PathBuf], kernel: (u32, u32)) -> Vec<String> {
    let paths = layers.iter().map(|layer| layer.to_string_lossy().into_owned());
    let mut options = vec!["ro".to_owned(), "rprivate".to_owned()];
    if kernel >= LOWERDIR_PLUS_SINCE {
        options.extend(paths.map(|path| format!("lowerdir+={path}")));
    } else {
        options.push(format!("lowerdir={}", paths.collect::<Vec<_>>().join(":")));
    }
    options
}

/// `/etc/hosts` and its siblings, unless the user mounts something there.
fn files(input: &Input<'_>) -> Vec<Mount> {
    let files = [
        ("/etc/resolv.conf", &input.files.resolv_conf),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
    ];
    let wanted =
        files.into_iter().filter_map(|(destination, path)| Some((destination, path.clone()?)));
    wanted
        .filter(|(destination, _)| {
            !input.mounts.iter().any(|mount| mount.destination == *destination)
        })
        .map(|(destination, path)| Mount {
            destination: destination.to_owned(),
            source: MountSource::Bind { path, non_recursive: false },
            read_only: input.host_config.readonly_rootfs,
            propagation: "rprivate".to_owned(),
            recursive_ro: RecursiveReadOnly::IfPossible,
        })
        .collect()
}

fn depth(destination: &str) -> usize {
    Path::new(destination).components().count()
}

/// Returns all mounts, and the propagation that the root needs for them.
pub fn build(input: &Input<'_>, writable_cgroups: bool) -> (Vec<OciMount>, Option<&'static str>) {
    let mut wanted = input.mounts.clone();
    wanted.extend(files(input));
    // Shallow ones first, so that none hides another; of the same depth in the order they were given.
    wanted.sort_by_key(|mount| depth(&mount.destination));
    let taken = |destination: &str| wanted.iter().any(|mount| mount.destination == destination);
    let dev_is_taken = taken("/dev");
    let mut mounts = defaults(input, writable_cgroups);
    mounts.retain(|mount| {
        let destination = mount.destination().to_string_lossy();
        !(taken(&destination) || dev_is_taken && destination.starts_with("/dev/"))
    });
    if input.host_config.readonly_rootfs {
        for made in &mut mounts {
            let stays = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];
            let mut options = made.options().clone().unwrap_or_default();
            let is_open = !options.iter().any(|option| option == "ro");
            if is_open && !stays.iter().any(|path| made.destination() == Path::new(path)) {
                options.push("ro".to_owned());
                made.set_options(Some(options));
            }
        }
    }
    mounts.extend(wanted.iter().map(|mount| user_mount(mount, input.kernel)));
    (mounts, root_propagation(&wanted))
}

/// A mount that propagates needs a root that does not keep it from doing so.
fn root_propagation(mounts: &[Mount]) -> Option<&'static str> {
    let has =
        |words: [&str; 2]| mounts.iter().any(|mount| words.contains(&mount.propagation.as_str()));
    if has(["shared", "rshared"]) {
        Some("shared")
    } else if has(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_tmpfs(asked: &[&str], expected: &[&str]) {
        let asked: Vec<String> = asked.iter().map(|&option| option.to_owned()).collect();
        assert_eq!(tmpfs_options(&asked), expected);
    }

    #[test]
    fn a_tmpfs_has_dockers_defaults_unless_told_otherwise() {
        check_tmpfs(&["size=1m"], &["noexec", "nosuid", "nodev", "rprivate", "size=1m"]);
        check_tmpfs(
            &["exec", "size=1", "size=2"],
            &["nosuid", "nodev", "rprivate", "exec", "size=2"],
        );
    }

    #[test]
    fn the_strongest_propagation_decides_about_the_root() {
        let with = |propagation: &str| Mount {
            destination: "/m".into(),
            source: MountSource::Tmpfs { options: Vec::new() },
            read_only: false,
            propagation: propagation.into(),
            recursive_ro: RecursiveReadOnly::IfPossible,
        };
        assert_eq!(root_propagation(&[with("rprivate")]), None);
        assert_eq!(root_propagation(&[with("rslave")]), Some("rslave"));
        assert_eq!(root_propagation(&[with("rslave"), with("rshared")]), Some("shared"));
    }
}
