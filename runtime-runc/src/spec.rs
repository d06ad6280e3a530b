//! What the worker reads of `config.json` (OCI runtime-spec 1.2), and nothing else of it.
//!
//! Types of our own instead of `oci-spec`'s, which link a regex engine and refuse capabilities they have not heard of; those
//! for resources and seccomp are taken from there. As in Go, a `null` stands for an empty list.

use crate::error::{Context, Error, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The specification this worker follows.
pub const VERSION: &str = "1.2.1";

/// The largest `config.json` that is read.
const MAX_BYTES: u64 = 16 << 20;

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(value).map(Option::unwrap_or_default)
}

/// The whole configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub oci_version: String,
    pub process: Option<Process>,
    pub root: Option<Root>,
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    #[serde(deserialize_with = "nullable")]
    pub domainname: String,
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "nullable")]
    pub hooks: Hooks,
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub linux: Linux,
}

/// `process`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    #[serde(deserialize_with = "nullable")]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    #[serde(deserialize_with = "nullable")]
    pub apparmor_profile: String,
    pub oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub selinux_label: String,
    pub io_priority: Option<IoPriority>,
    pub scheduler: Option<Scheduler>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// `process.execCPUAffinity`: lists of CPUs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before the process joins the container's cgroups.
    #[serde(deserialize_with = "nullable")]
    pub initial: String,
    /// Afterwards.
    #[serde(rename = "final", deserialize_with = "nullable")]
    pub last: String,
}

/// `process.consoleSize`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// `process.user`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Capabilities {
    #[serde(deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// `process.rlimits[]`.
#[derive(Clone, Debug, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// `process.ioPriority`.
#[derive(Clone, Debug, Deserialize)]
pub struct IoPriority {
    pub class: String,
    #[serde(default)]
    pub priority: u8,
}

/// `process.scheduler`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    pub policy: String,
    pub nice: i32,
    pub priority: i32,
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `root`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: PathBuf,
    #[serde(deserialize_with = "nullable")]
    pub readonly: bool,
}

/// `mounts[]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub source: String,
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `hooks`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    #[serde(deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    #[serde(deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<Device>,
    pub cgroups_path: Option<String>,
    pub resources: Option<LinuxResources>,
    #[serde(deserialize_with = "nullable")]
    pub rootfs_propagation: String,
    /// As it stands: the text is the key of the cache of filters, and parsed only when one is to be compiled.
    pub seccomp: Option<Box<RawValue>>,
    #[serde(deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub masked_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "nullable")]
    pub readonly_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "nullable")]
    pub mount_label: String,
    pub intel_rdt: Option<serde::de::IgnoredAny>,
    pub memory_policy: Option<serde::de::IgnoredAny>,
    pub personality: Option<Personality>,
    #[serde(deserialize_with = "nullable")]
    pub net_devices: BTreeMap<String, serde::de::IgnoredAny>,
}

/// `linux.namespaces[]`.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub path: PathBuf,
}

/// `linux.uidMappings[]` and its like.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

/// `linux.timeOffsets` of one clock.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

/// `linux.devices[]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// `linux.personality`.
#[derive(Debug, Deserialize)]
pub struct Personality {
    pub domain: String,
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

impl Spec {
    /// Reads `config.json` of a bundle.
    ///
    /// # Errors
    /// Where the file is missing, too large, or not a configuration.
    pub fn load(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        match read_file(&path) {
            Err(Error::Kernel { errno: cleat_sys::Errno::ENOENT, .. }) => {
                Err(Error::Invalid("JSON specification file config.json not found".to_owned()))
            }
            text => Self::read(&text?, &path),
        }
    }

    /// Reads the text of a `config.json`, which came from `path`.
    ///
    /// # Errors
    /// Where it is not a configuration, or one for another worker.
    pub fn read(text: &[u8], path: &Path) -> Result<Self> {
        let spec: Self = parse(text, path)?;
        spec.check()?;
        Ok(spec)
    }

    /// Refuses what this worker cannot do, so that nothing is silently left out.
    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Invalid(what.to_owned()));
        if !self.oci_version.starts_with("1.") {
            return Err(Error::Invalid(format!(
                "unsupported OCI version {:?}: need 1.x",
                self.oci_version
            )));
        }
        if self.root.as_ref().is_none_or(|root| root.path.as_os_str().is_empty()) {
            return refuse("root.path must be set");
        }
        if self.linux.intel_rdt.is_some() {
            return refuse("linux.intelRdt is not supported");
        }
        if self.linux.memory_policy.is_some() {
            return refuse("linux.memoryPolicy is not supported");
        }
        if !self.linux.net_devices.is_empty() {
            return refuse("linux.netDevices is not supported");
        }
        if self.has_deadline() && self.pins_cpus() {
            return refuse("process scheduler can't be used together with AllowedCPUs");
        }
        self.process.as_ref().map_or(Ok(()), Process::check)
    }

    fn has_deadline(&self) -> bool {
        let scheduler = self.process.as_ref().and_then(|process| process.scheduler.as_ref());
        scheduler.is_some_and(|scheduler| scheduler.policy == "SCHED_DEADLINE")
    }

    /// Whether some CPUs only are allowed, which a deadline cannot be kept with: `sched_setattr(2)`, EPERM.
    fn pins_cpus(&self) -> bool {
        let cpu = self.linux.resources.as_ref().and_then(|resources| resources.cpu().as_ref());
        let Some(cpus) = cpu.and_then(|cpu| cpu.cpus().as_deref()).filter(|cpus| !cpus.is_empty())
        else {
            return false;
        };
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        match (crate::affinity::parse(cpus), crate::affinity::parse(online.trim())) {
            (Ok(allowed), Ok(online)) => {
                online.iter().zip(&allowed).any(|(all, some)| all & !some != 0)
            }
            _ => true,
        }
    }

    /// Returns the process, which every verb that runs one needs.
    ///
    /// # Errors
    /// Where there is none.
    pub fn process(&self) -> Result<&Process> {
        self.process
            .as_ref()
            .ok_or_else(|| Error::Invalid("process property must not be empty".to_owned()))
    }
}

impl Process {
    /// Refuses what no process can be.
    ///
    /// # Errors
    /// [`Error::Invalid`] with runc's wording.
    pub fn check(&self) -> Result<()> {
        if self.args.is_empty() {
            return Err(Error::Invalid("args must not be empty".to_owned()));
        }
        if self.cwd.is_empty() {
            return Err(Error::Invalid("Cwd property must not be empty".to_owned()));
        }
        if !self.cwd.starts_with('/') {
            return Err(Error::Invalid("Cwd must be an absolute path".to_owned()));
        }
        if let Some(affinity) = &self.exec_cpu_affinity {
            for cpus in [&affinity.initial, &affinity.last] {
                if !cpus.is_empty() {
                    crate::affinity::parse(cpus)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a JSON file of limited size.
///
/// # Errors
/// [`Error::Kernel`] where it cannot be read, [`Error::Invalid`] where it is not what it should be.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    parse(&read_file(path)?, path)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("open {}", path.display());
    let file = std::fs::File::open(path).context(what)?;
    let mut text = Vec::with_capacity(64 << 10);
    file.take(MAX_BYTES + 1).read_to_end(&mut text).context(what)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::Invalid(format!("{} is larger than {MAX_BYTES} bytes", path.display())));
    }
    Ok(text)
}

/// Parses JSON that came from `path`.
///
/// # Errors
/// [`Error::Invalid`] with the place.
pub fn parse<T: for<'de> Deserialize<'de>>(text: &[u8], path: &Path) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<Spec> {
        Spec::read(json.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn null_is_an_empty_list_as_go_writes_it() {
        let spec = spec(r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"mounts":null,"linux":{"devices":null}}"#).unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.devices.is_empty());
    }

    #[test]
    fn a_user_id_that_overflows_is_refused() {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"r"},"process":{"cwd":"/","args":["a"],"user":{"uid":4294967296}}}"#;
        assert!(spec(text).is_err());
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"r"},"linux":{"intelRdt":{}}}"#;
        assert_eq!(spec(text).unwrap_err().to_string(), "linux.intelRdt is not supported");
    }

    #[test]
    fn a_process_needs_arguments_and_an_absolute_directory() {
        let text = |cwd, args| {
            format!(
                r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"process":{{"cwd":"{cwd}","args":{args}}}}}"#
            )
        };
        assert_eq!(spec(&text("/", "[]")).unwrap_err().to_string(), "args must not be empty");
        assert_eq!(
            spec(&text("tmp", "[\"a\"]")).unwrap_err().to_string(),
            "Cwd must be an absolute path"
        );
    }
}
