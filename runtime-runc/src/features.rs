//! `features` (OCI runtime-spec, features.md) and `spec` (a `config.json` to begin with).

use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::{capability, spec};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

pub const FEATURES: Syntax = Syntax { values: &[], switches: &[], least: 0, most: 0 };
pub const SPEC: Syntax =
    Syntax { values: &["bundle,b"], switches: &["rootless"], least: 0, most: 0 };

const MOUNT_OPTIONS: &str = "acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate \
    rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid \
    symfollow sync tmpcopyup unbindable";

const FLAGS: &str =
    "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_LOG";

/// `features`: prints what this worker can do.
///
/// # Errors
/// [`Error::Usage`].
pub fn features(words: &[String]) -> Result<()> {
    Arguments::parse_verb("features", words, &FEATURES)?;
    let words = |text: &str| Value::from(text.split_whitespace().collect::<Vec<_>>());
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": words("prestart createRuntime createContainer startContainer poststart poststop"),
        "mountOptions": words(MOUNT_OPTIONS),
        "linux": {
            "namespaces": words("cgroup ipc mount network pid time user uts"),
            "capabilities": capability::names().collect::<Vec<_>>(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": words("SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD \
                    SCMP_ACT_LOG SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP"),
                "archs": words("SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_X32 SCMP_ARCH_X86 SCMP_ARCH_X86_64"),
                "knownFlags": words(FLAGS),
                "supportedFlags": words(FLAGS),
                "operators": words("SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ SCMP_CMP_NE"),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {"io.cleat.rootfs-mounts": "true", "io.cleat.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    });
    crate::say(&format!("{document:#}"));
    Ok(())
}

/// `spec`: writes a `config.json` into the bundle.
///
/// # Errors
/// Where there is one already.
pub fn write_spec(words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("spec", words, &SPEC)?;
    let path = arguments.path("bundle").unwrap_or_default().join("config.json");
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::State("File config.json exists. Remove it first".to_owned()));
        }
        made => made.context(|| format!("open {}", path.display()))?,
    };
    let document = if arguments.has("rootless") { rootless_example() } else { example() };
    file.write_all(format!("{document:#}\n").as_bytes())
        .context(|| format!("write {}", path.display()))
}

/// A shell with few rights, in namespaces of its own.
fn example() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |at: &str, kind: &str, source: &str, options: &str| json!({"destination": at, "type": kind, "source": source, "options": options.split(',').collect::<Vec<_>>()});
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": spec::VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "cleat-runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The same for somebody who is not root: a user namespace with their own ids, the host's network and /sys, no limits.
fn rootless_example() -> Value {
    let mut document = example();
    let linux = &mut document["linux"];
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    linux["uidMappings"] = map(nix::unistd::geteuid().as_raw());
    linux["gidMappings"] = map(nix::unistd::getegid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // A new sysfs takes the right to a network namespace of one's own.
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        } else if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // A group that is not mapped.
            options.retain(|option| option != "gid=5");
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let spec: spec::Spec = serde_json::from_value(example()).unwrap();
        assert!(spec.process().is_ok_and(|process| process.check().is_ok()));
        let rootless: spec::Spec = serde_json::from_value(rootless_example()).unwrap();
        assert_eq!(rootless.linux.uid_mappings.len(), 1);
        assert!(rootless.linux.resources.is_none());
        assert!(!rootless_example().to_string().contains("null"));
        assert!(Path::new("/").join(&spec.mounts[0].destination).is_absolute());
    }
}
