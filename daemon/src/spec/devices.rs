//! Devices: which nodes a container has besides the usual ones, and what its cgroup lets it use. Reads nodes of the host.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cleat_proto::docker::container::{DeviceMapping, HostConfig};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;

/// What every container may use: zero, null, urandom, random, tty, console. Docker's order.
const ALLOWED: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
/// `/dev/fuse`: denied in so many words, as Docker does.
const FUSE: (i64, i64) = (10, 229);

/// How deep `--device DIRECTORY` and a privileged container's `/dev` are searched, and how many nodes are taken.
const MAX_DEPTH: usize = 8;
const MAX_NODES: usize = 4096;

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(kind)
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let character = |allow, (major, minor)| {
        rule(allow, Some(LinuxDeviceType::C), Some(major), Some(minor), "rwm")
    };
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    rules.extend(ALLOWED.map(|numbers| character(true, numbers)));
    rules.push(character(false, FUSE));
    rules
}

/// Describes the node at `path`; `None` if it is no device.
fn node(path: &Path, shown_at: PathBuf) -> std::io::Result<Option<LinuxDevice>> {
    let meta = fs::symlink_metadata(path)?;
    let kind = if meta.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if meta.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return Ok(None);
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(shown_at)
        .set_typ(kind)
        .set_major(nix::sys::stat::major(meta.rdev()) as i64)
        .set_minor(nix::sys::stat::minor(meta.rdev()) as i64)
        .set_file_mode(Some(meta.mode() & 0o7777))
        .set_uid(Some(meta.uid()))
        .set_gid(Some(meta.gid()));
    Ok(Some(device))
}

/// Finds the nodes below a directory; what cannot be read is passed over. `skip` names directories and files left out.
fn below(
    directory: &Path,
    shown_at: &Path,
    depth: usize,
    skip: &dyn Fn(&str) -> bool,
    found: &mut Vec<LinuxDevice>,
) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if skip(&name.to_string_lossy()) || found.len() >= MAX_NODES {
            continue;
        }
        let (path, shown_at) = (entry.path(), shown_at.join(&name));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < MAX_DEPTH {
                below(&path, &shown_at, depth + 1, skip, found);
            }
        } else if let Ok(Some(device)) = node(&path, shown_at) {
            found.push(device);
        }
    }
}

/// Reads one `--device`: a node, a link to one, or a directory of them.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<LinuxDevice>, Error> {
    let refused = |why: &str| {
        let path = &mapping.path_on_host;
        Error::Invalid(format!(
            "error gathering device information while adding custom device {path:?}: {why}"
        ))
    };
    let inside = match mapping.path_in_container.as_str() {
        "" => Path::new(&mapping.path_on_host),
        path => Path::new(path),
    };
    if !inside.is_absolute() {
        return Err(refused("the path in the container is not absolute"));
    }
    let resolved = match fs::canonicalize(&mapping.path_on_host) {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused("no such file or directory"));
        }
        Err(error) => return Err(refused(&error.to_string())),
    };
    let mut found = Vec::new();
    match node(&resolved, inside.to_owned()) {
        Ok(Some(device)) => found.push(device),
        Ok(None) => below(&resolved, inside, 0, &|_| false, &mut found),
        Err(error) => return Err(refused(&error.to_string())),
    }
    if found.is_empty() { Err(refused("not a device node")) } else { Ok(found) }
}

/// Checks the letters of a device's permissions; none at all are all three.
pub fn access(text: &str) -> Result<&str, Error> {
    match text {
        "" => Ok("rwm"),
        text if text.bytes().all(|letter| b"rwm".contains(&letter)) && text.len() <= 3 => Ok(text),
        text => Err(Error::Invalid(format!(
            "invalid device permissions: {text:?}: only r, w and m are known"
        ))),
    }
}

/// Reads one `--device-cgroup-rule`: `c 1:3 rwm`, with `*` for any number.
pub fn cgroup_rule(text: &str) -> Result<LinuxDeviceCgroup, Error> {
    let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut parts = text.split(' ');
    let (Some(kind), Some(numbers), Some(letters), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid());
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let number = |text: &str| match text {
        "*" => Some(-1),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|&number: &i64| number <= i64::from(u32::MAX))
        }
        _ => None,
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let (Some(major), Some(minor)) = (number(major), number(minor)) else { return Err(invalid()) };
    if letters.is_empty() || access(letters).is_err() {
        return Err(invalid());
    }
    Ok(rule(true, Some(kind), Some(major), Some(minor), letters))
}

/// Returns the nodes to make and the cgroup's rules.
///
/// # Errors
/// [`Error::Invalid`] for a device that is not there, or a rule that is none.
pub fn build(host: &HostConfig) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    let mappings = host.devices.iter().flatten();
    if host.privileged {
        let mut nodes = Vec::new();
        // What the container gets instances of its own of, and what is no device of the machine's.
        let skip = |name: &str| {
            matches!(
                name,
                "pts" | "shm" | "fd" | "mqueue" | "console" | ".lxc" | ".lxd-mounts" | ".udev"
            )
        };
        below(Path::new("/dev"), Path::new("/dev"), 0, &skip, &mut nodes);
        for mapping in mappings.filter(|mapping| mapping.path_on_host != mapping.path_in_container)
        {
            nodes.extend(mapped(mapping)?);
        }
        let mut rules = default_rules();
        rules.push(rule(true, None, None, None, "rwm"));
        return Ok((nodes, rules));
    }
    let (mut nodes, mut rules) = (Vec::new(), default_rules());
    for mapping in mappings {
        let access = access(&mapping.cgroup_permissions)?;
        for device in mapped(mapping)? {
            rules.push(rule(
                true,
                Some(device.typ()),
                Some(device.major()),
                Some(device.minor()),
                access,
            ));
            nodes.push(device);
        }
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(cgroup_rule(text)?);
    }
    Ok((nodes, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, container: &str, access: &str) -> HostConfig {
        let mapping = DeviceMapping {
            path_on_host: host.into(),
            path_in_container: container.into(),
            cgroup_permissions: access.into(),
        };
        HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }
    }

    #[test]
    fn a_mapped_device_has_its_numbers_and_its_rule() {
        let (nodes, rules) = build(&mapping("/dev/null", "/dev/hole", "rw")).unwrap();
        assert_eq!(
            (nodes[0].path().as_path(), nodes[0].major(), nodes[0].minor()),
            (Path::new("/dev/hole"), 1, 3)
        );
        assert_eq!(
            rules.last().unwrap(),
            &rule(true, Some(LinuxDeviceType::C), Some(1), Some(3), "rw")
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = build(&mapping("/dev/nosuch", "/dev/x", "rwm")).unwrap_err().to_string();
        assert_eq!(
            error,
            "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory"
        );
        assert!(build(&mapping("/etc/passwd", "/dev/x", "rwm")).is_err());
        assert!(build(&mapping("/dev/null", "/dev/x", "bogus")).is_err());
    }

    #[test]
    fn a_privileged_container_has_the_hosts_devices_and_may_use_all() {
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        let (nodes, rules) = build(&host).unwrap();
        assert!(nodes.iter().any(|node| node.path() == Path::new("/dev/full")));
        assert!(!nodes.iter().any(|node| node.path().starts_with("/dev/pts")));
        assert_eq!(rules.last().unwrap(), &rule(true, None, None, None, "rwm"));
    }

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        assert_eq!(
            cgroup_rule("c 1:* rwm").unwrap(),
            rule(true, Some(LinuxDeviceType::C), Some(1), Some(-1), "rwm")
        );
        for wrong in [
            "bogus rule",
            "c 1 rwm",
            "x 1:1 r",
            "c 1:1 q",
            "c 1:1 ",
            "c -1:1 r",
            "c 1:1 r\nc 2:2 r",
        ] {
            assert_eq!(
                cgroup_rule(wrong).unwrap_err().to_string(),
                format!("invalid device cgroup rule format: '{wrong}'")
            );
        }
    }
}
