//! What the worker keeps of a container between two verbs: `ROOT/<id>/state.json`.
//!
//! ```text
//!  create ──▶ created ── start ──▶ running ── exit ─▶ stopped ── delete ─▶ (gone)
//!                                   │   ▲
//!                             pause ▼   │ resume
//!                                  paused
//! ```
//! Only facts that do not change are written; the status is asked of the kernel every time: stopped when init has gone (or
//! its pid is another's: the start time tells), created while `exec.fifo` lies there, paused when the freezer says so.
//!
//! The file has `runc`'s field names for what others read of it; what only this worker needs is under `cleat`.

use crate::cgroup::{self, Cgroup, Unit};
use crate::error::{Context, Error, Result};
use crate::spec::{self, Capabilities};
use cleat_sys::pidfd::PidFd;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The fifo in which init waits for `start`; see `start.rs`.
pub const FIFO: &str = "exec.fifo";
/// A file that begins with the compiled filter, for `exec`.
pub const FILTER: &str = "seccomp.bpf";
const FILE: &str = "state.json";

/// One container as the worker remembers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub id: String,
    pub init_process_pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`: pid and this are unique.
    pub init_process_start: u64,
    /// RFC 3339.
    pub created: String,
    pub config: Config,
    /// Controller → directory; empty for none.
    pub cgroup_paths: BTreeMap<String, String>,
    /// Kind as runc spells it (`NEWPID`) → path of the namespace.
    pub namespace_paths: BTreeMap<String, String>,
    pub cleat: Extra,
}

/// The part of runc's `config` that others read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub rootfs: PathBuf,
    /// `bundle=PATH` and the annotations, `key=value` each.
    pub labels: Vec<String>,
}

/// What `exec`, `state` and `delete` need without reading the configuration again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Extra {
    pub oci_version: String,
    pub bundle: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub namespaces: i32,
    /// What an exec gets that asks for no capabilities of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// There is a [`FILTER`]; the flags to install it with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_flags: Option<u32>,
    /// How long the filter is; the whole file where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_listener: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_metadata: Option<String>,
    /// Whom the cgroup belongs to, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    pub new_keyring: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<u64>,
    /// `run` has not let the program go yet: it waits for that without a [`FIFO`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    pub poststart_hooks: bool,
    pub poststop_hooks: bool,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Init waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl Status {
    /// Returns the word of OCI runtime-spec, runtime.md, State.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's directory below `--root`, and what is in it.
#[derive(Debug)]
pub struct Container {
    pub directory: PathBuf,
    pub state: State,
}

impl Container {
    /// Reads the state of container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        let directory = root.join(crate::cli::check_id(id)?);
        match spec::read_json(&directory.join(FILE)) {
            Err(Error::Kernel { errno: cleat_sys::Errno::ENOENT, .. }) => Err(Error::NotFound),
            Err(other) => Err(other),
            Ok(state) => Ok(Self { directory, state }),
        }
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn save(&self) -> Result<()> {
        let text =
            serde_json::to_vec(&self.state).map_err(|error| Error::Invalid(error.to_string()))?;
        write_whole(&self.directory.join(FILE), &text)
    }

    /// Returns where the container stands now.
    ///
    /// # Errors
    /// Where the freezer cannot be read.
    pub fn status(&self) -> Result<Status> {
        if !self.init_is_alive() {
            return Ok(Status::Stopped);
        }
        if self.state.cleat.starting || self.directory.join(FIFO).exists() {
            return Ok(Status::Created);
        }
        if self.is_frozen()? { Ok(Status::Paused) } else { Ok(Status::Running) }
    }

    fn is_frozen(&self) -> Result<bool> {
        match self.cgroup() {
            Some(cgroup) => Ok(cgroup?.is_frozen()?),
            None => Ok(false),
        }
    }

    fn init_is_alive(&self) -> bool {
        let state = &self.state;
        stat_of(state.init_process_pid)
            .is_some_and(|stat| stat.alive && stat.start == state.init_process_start)
    }

    /// Opens init, or nothing if it has ended. The handle is checked after it was opened, so it is of no later process.
    ///
    /// # Errors
    /// Other than that it has gone.
    pub fn open_init(&self) -> Result<Option<PidFd>> {
        match PidFd::open(Pid::from_raw(self.state.init_process_pid)) {
            Err(cleat_sys::Errno::ESRCH) => Ok(None),
            Err(errno) => Err(Error::Kernel { what: "pidfd_open".to_owned(), errno }),
            Ok(pidfd) => Ok(self.init_is_alive().then_some(pidfd)),
        }
    }

    /// Returns the container's cgroup, if it has one.
    pub fn cgroup(&self) -> Option<Result<Cgroup>> {
        let paths = &self.state.cgroup_paths;
        let unit = &self.state.cleat.unit;
        (!paths.is_empty()).then(|| Ok(Cgroup::from_paths(paths.clone(), unit.clone())?))
    }

    /// Returns the container's cgroup.
    ///
    /// # Errors
    /// Where it was made without.
    pub fn need_cgroup(&self) -> Result<Cgroup> {
        self.cgroup().unwrap_or_else(|| Err(Error::State("the container has no cgroup".to_owned())))
    }

    /// Returns the state for hooks and for the verb `state`, OCI runtime-spec, runtime.md, State.
    pub fn document(&self, status: &str, pid: i32) -> serde_json::Value {
        let state = &self.state;
        document(&state.cleat, &state.id, status, pid)
    }
}

/// Builds the state document of OCI runtime-spec, runtime.md.
pub fn document(extra: &Extra, id: &str, status: &str, pid: i32) -> serde_json::Value {
    let mut document = serde_json::json!({
        "ociVersion": extra.oci_version, "id": id, "status": status, "pid": pid, "bundle": extra.bundle,
    });
    if !extra.annotations.is_empty() {
        document["annotations"] = serde_json::json!(extra.annotations);
    }
    document
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Neither dead nor a zombie.
    pub alive: bool,
    /// Clock ticks after boot.
    pub start: u64,
}

/// Reads `/proc/<pid>/stat`; nothing if there is no such process.
pub fn stat_of(pid: i32) -> Option<Stat> {
    parse_stat(&cgroup::slurp(Path::new(&format!("/proc/{pid}/stat"))).ok()?)
}

/// The name, in parentheses, may hold anything, parentheses too: the fields begin after the last one. Source: `proc_pid_stat(5)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X" | "x");
    Some(Stat { alive, start: fields.nth(18)?.parse().ok()? })
}

/// Writes a file so that a reader sees the old or the new one, never a part. It is not synced: the state directory does not
/// outlive a boot.
///
/// # Errors
/// [`Error::Kernel`].
pub fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let what = || format!("write {}", path.display());
    std::fs::write(&temporary, text).context(what)?;
    std::fs::rename(&temporary, path).context(what)
}

/// Removes a container's directory and what is in it. What is mounted there, for CRIU, belongs to others: it is unmounted and not
/// looked into, and no directory goes that is not empty.
///
/// # Errors
/// Where there is none, and for what is not ours.
pub fn remove_directory(directory: &Path) -> std::io::Result<()> {
    use nix::mount::{MntFlags, umount2};
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // Most often nothing is.
            let _ = umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            std::fs::remove_dir(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    std::fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_in_a_container_s_directory_is_not_removed_with_it() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let base = std::env::temp_dir().join(format!("cleat-remove-{}", std::process::id()));
        let (directory, root, image) = (base.join("c"), base.join("c/root"), base.join("image"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(image.join("bin")).unwrap();
        std::fs::write(image.join("bin/program"), "x").unwrap();
        std::fs::write(directory.join("state.json"), "{}").unwrap();
        // With mounts of its own, so that none is left whatever happens.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let none = None::<&str>;
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                mount(Some(&image), &root, none, MsFlags::MS_BIND, none).unwrap();
                remove_directory(&directory).unwrap();
            });
        });
        assert!(!directory.exists());
        assert_eq!(std::fs::read_to_string(image.join("bin/program")).unwrap(), "x");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_fields() {
        let text = "7 (a) Z 1) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_stat(text), Some(Stat { alive: true, start: 4711 }));
        let zombie = text.replace(" S 1 7", " Z 1 7");
        assert_eq!(parse_stat(&zombie), Some(Stat { alive: false, start: 4711 }));
    }

    #[test]
    fn a_program_whose_name_is_no_text_is_alive() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff) Z");
        let directory = std::env::temp_dir().join(format!("cleat-stat-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        // The kernel names a process after the link that it was executed by.
        std::os::unix::fs::symlink("/bin/sleep", directory.join(name)).unwrap();
        let mut child =
            std::process::Command::new(directory.join(name)).arg("600").spawn().unwrap();
        let found = stat_of(child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(found.is_some_and(|stat| stat.alive && stat.start > 0), "{found:?}");
    }

    #[test]
    fn this_process_is_alive() {
        let pid = std::process::id() as i32;
        assert!(stat_of(pid).is_some_and(|stat| stat.alive && stat.start > 0));
    }
}
