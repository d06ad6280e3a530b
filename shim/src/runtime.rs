//! Runs the worker: the one seam between us and an OCI runtime (runtime-spec's command line, as runc has it).
//!
//! cleat-runc ("native") is spared what a foreign runtime needs: it mounts the root filesystem itself (`--rootfs-mounts`), a byte
//! into its `exec.fifo` starts the container, and removing what it keeps deletes it, without another process.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek, Write},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
};

use cleat_proto::containerd::types::Mount;
use cleat_sys::mountapi::read_only_clone;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{cgroup::Cgroup, error::Error, reaper::Reaper, stdio::ChildEnds};

/// The name of our own runtime's binary.
pub const NATIVE: &str = "cleat-runc";

/// Which runtime, and how to call it.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub binary: PathBuf,
    /// Before the verb.
    pub args: Vec<OsString>,
    /// Where it keeps its state; its own default if empty.
    pub root: String,
    pub native: bool,
    pub protected: Protected,
}

/// The worker's file through a read-only mount that only this process holds: run from there, the worker need not protect
/// itself (by a second `execve`, 0.5 ms) from a container that would write to `/proc/<pid>/exe`.
#[derive(Clone, Debug, Default)]
pub struct Protected(Arc<OnceLock<Option<OwnedFd>>>);

impl Protected {
    /// Returns the path to run `binary` by.
    fn path(&self, binary: &Path) -> PathBuf {
        // Where it cannot be made the worker helps itself; a bare name is for PATH to find.
        let make = || binary.is_absolute().then(|| read_only_clone(binary).ok()).flatten();
        match self.0.get_or_init(make) {
            Some(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            None => binary.to_owned(),
        }
    }
}

/// A process to bring into being, and the directory for small files meanwhile.
pub struct Birth<'a> {
    pub id: &'a str,
    pub directory: &'a Path,
    /// Unique in the directory.
    pub name: &'a str,
    pub ends: ChildEnds,
}

/// A root filesystem's mount in the form of `--rootfs-mounts`.
#[derive(Serialize)]
struct RootfsMount<'a> {
    r#type: &'a str,
    source: &'a str,
    options: &'a [String],
    target: &'a str,
}

impl Runtime {
    /// Returns ours: beside the shim's binary, or else wherever PATH has it.
    pub fn native(root: &str) -> Self {
        let beside = std::env::current_exe()
            .ok()
            .map(|path| path.with_file_name(NATIVE))
            .filter(|path| path.exists());
        Self {
            binary: beside.unwrap_or_else(|| NATIVE.into()),
            args: Vec::new(),
            root: root.to_owned(),
            native: true,
            protected: Protected::default(),
        }
    }

    /// Creates the container of `bundle`; returns the pid of its first process, which waits, and the terminal if it has one.
    pub async fn create(
        &self,
        reaper: &Reaper,
        birth: Birth<'_>,
        bundle: &Path,
        rootfs: &[Mount],
    ) -> Result<Born, Error> {
        let mut args: Vec<OsString> = vec!["--bundle".into(), bundle.into()];
        if self.native && !rootfs.is_empty() {
            let mounts: Vec<_> = rootfs.iter().map(RootfsMount::from).collect();
            let mounts = serde_json::to_string(&mounts).map_err(io::Error::from);
            args.extend([
                "--rootfs-mounts".into(),
                mounts.map_err(Error::io("cannot write the mounts"))?.into(),
            ]);
        }
        self.give_birth(reaper, "create", birth, args).await
    }

    /// Adds a process, described by the OCI process `spec`.
    pub async fn exec(
        &self,
        reaper: &Reaper,
        birth: Birth<'_>,
        spec: &[u8],
    ) -> Result<Born, Error> {
        let spec = memory_file(spec).map_err(Error::io("cannot write the process"))?;
        let args = vec!["--detach".into(), "--process".into(), path_of(&spec).into()];
        self.give_birth(reaper, "exec", birth, args).await
    }

    async fn give_birth(
        &self,
        reaper: &Reaper,
        verb: &'static str,
        birth: Birth<'_>,
        mut args: Vec<OsString>,
    ) -> Result<Born, Error> {
        let pid_file = birth.directory.join(format!("{}.pid", birth.name));
        args.extend(["--pid-file".into(), pid_file.clone().into()]);
        let ChildEnds { stdin, stdout, stderr, console } = birth.ends;
        if let Some(console) = &console {
            args.extend(["--console-socket".into(), console.path().into()]);
        }
        args.push(birth.id.into());
        let call = self.call(reaper, verb, &args, [stdin, stdout, stderr]);
        let terminal = match &console {
            None => call.await.map(|()| None)?,
            // The master may come before the runtime ends or, were it to fail, never.
            Some(console) => {
                let mut call = std::pin::pin!(call);
                let mut receive = std::pin::pin!(console.receive());
                tokio::select! {
                    biased;
                    master = &mut receive => { call.await?; Some(master) }
                    ended = &mut call => { ended?; Some(receive.await) }
                }
                .transpose()
                .map_err(Error::io("cannot take the terminal"))?
            }
        };
        let text = fs::read_to_string(&pid_file)
            .map_err(Error::io("cannot read the runtime's pid file"))?;
        // A leftover would go with the directory.
        let _ = fs::remove_file(&pid_file);
        let pid = text
            .trim()
            .parse()
            .map_err(|_| Error::Invalid(format!("the runtime's pid file says {text:?}")))?;
        Ok(Born { pid, terminal })
    }

    /// Returns what our own runtime keeps of a container it has created; a foreign one's business is its own.
    pub fn kept(&self, id: &str) -> Option<Kept> {
        if !self.native || self.root.is_empty() {
            return None;
        }
        let directory = Path::new(&self.root).join(id);
        let text = fs::read(directory.join("state.json")).ok()?;
        let state: KeptState = serde_json::from_slice(&text).ok()?;
        Some(Kept { directory, state })
    }

    /// Lets the created container run.
    pub async fn start(&self, reaper: &Reaper, id: &str, kept: Option<&Kept>) -> Result<(), Error> {
        match kept {
            Some(kept) if !kept.state.cleat.poststart_hooks => {
                release(&kept.directory.join("exec.fifo"))
                    .map_err(Error::io("cannot start the container"))
            }
            _ => self.simple(reaper, "start", &[], id).await,
        }
    }

    /// Removes what the runtime has of the container, which must have ended.
    pub async fn delete(
        &self,
        reaper: &Reaper,
        id: &str,
        kept: Option<&Kept>,
    ) -> Result<(), Error> {
        match kept {
            // The verb goes on where we could not: it waits, and kills what is left.
            Some(kept) if kept.is_simple() && kept.remove().is_ok() => Ok(()),
            _ => self.simple(reaper, "delete", &["--force"], id).await,
        }
    }

    /// Freezes every process of the container.
    pub async fn pause(&self, reaper: &Reaper, id: &str) -> Result<(), Error> {
        self.simple(reaper, "pause", &[], id).await
    }

    /// Lets them go on.
    pub async fn resume(&self, reaper: &Reaper, id: &str) -> Result<(), Error> {
        self.simple(reaper, "resume", &[], id).await
    }

    /// Applies OCI LinuxResources.
    pub async fn update(&self, reaper: &Reaper, id: &str, resources: &[u8]) -> Result<(), Error> {
        let input = memory_file(resources).map_err(Error::io("cannot write the resources"))?;
        let args = ["-r".into(), "-".into(), id.into()];
        self.call(reaper, "update", &args, [input.into(), Stdio::null(), Stdio::null()]).await
    }

    async fn simple(
        &self,
        reaper: &Reaper,
        verb: &'static str,
        flags: &[&str],
        id: &str,
    ) -> Result<(), Error> {
        let args: Vec<OsString> = flags.iter().copied().chain([id]).map(OsString::from).collect();
        self.call(reaper, verb, &args, [Stdio::null(), Stdio::null(), Stdio::null()]).await
    }

    async fn call(
        &self,
        reaper: &Reaper,
        verb: &'static str,
        args: &[OsString],
        stdio: [Stdio; 3],
    ) -> Result<(), Error> {
        let failed = |message| Error::Runtime { verb, message };
        let mut log = memory_file(&[]).map_err(Error::io("cannot make a log for the runtime"))?;
        let ended = {
            let [stdin, stdout, stderr] = stdio;
            let mut command = self.command(&log);
            command.arg(verb).args(args).stdin(stdin).stdout(stdout).stderr(stderr);
            // Our copies of the process's ends close here; it alone must hold them.
            reaper.spawn(&mut command).map(|(_, ended)| ended)
        };
        let ended = ended
            .map_err(|error| failed(format!("cannot run {}: {error}", self.binary.display())))?;
        let exit = ended.await.map_err(|_| Error::ShuttingDown)?;
        if exit.status == 0 {
            return Ok(());
        }
        let said = last_error(&mut log).unwrap_or_else(|| match exit.status {
            status @ 129..=192 => format!("{} was killed by signal {}", self.name(), status - 128),
            status => format!("{} exited with status {status}", self.name()),
        });
        Err(failed(self.in_runcs_words(verb, said)))
    }

    fn command(&self, log: &File) -> Command {
        let mut command = self.program();
        command.args(["--log", &path_of(log), "--log-format", "json"]).args(&self.args);
        if !self.root.is_empty() {
            command.args(["--root", &self.root]);
        }
        if self.native {
            // What it makes would be nobody's if we died meanwhile.
            command.args(["--die-with", &std::process::id().to_string()]);
        }
        command
    }

    fn program(&self) -> Command {
        if !self.native {
            return Command::new(&self.binary);
        }
        let mut command = Command::new(self.protected.path(&self.binary));
        command.arg0(&self.binary);
        command
    }

    /// Returns a call for whoever has no loop to wait in.
    pub fn plain_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.args);
        if !self.root.is_empty() {
            command.args(["--root", &self.root]);
        }
        command
    }

    fn name(&self) -> String {
        self.binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Clients know runc's prefix of a failed create and exec, and match on it.
    fn in_runcs_words(&self, verb: &str, message: String) -> String {
        let prefix = match verb {
            "create" => "runc create failed: ",
            "exec" => "exec failed: ",
            _ => "",
        };
        if self.native && !message.starts_with(prefix) {
            format!("{prefix}{message}")
        } else {
            message
        }
    }
}

/// Asks for the pid of the container's first process.
pub fn state_pid(runtime: &Runtime, id: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct State {
        pid: u32,
    }
    let output = runtime.plain_command().args(["state", id]).output().ok()?;
    serde_json::from_slice::<State>(&output.stdout).ok().map(|state| state.pid)
}

/// What a runtime has brought into being.
pub struct Born {
    pub pid: u32,
    pub terminal: Option<std::os::fd::OwnedFd>,
}

impl<'a> From<&'a Mount> for RootfsMount<'a> {
    fn from(mount: &'a Mount) -> Self {
        Self {
            r#type: &mount.r#type,
            source: &mount.source,
            options: &mount.options,
            target: &mount.target,
        }
    }
}

/// Does what cleat-runc's `start` does, in its order: who unlinks the FIFO starts, and a byte in it lets the first process go.
/// This byte makes it die with us.
fn release(fifo: &Path) -> io::Result<()> {
    let mut writer =
        fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(fifo)?;
    fs::remove_file(fifo)?;
    writer.write_all(b"d")
}

/// What cleat-runc keeps of a container (its `state.json`), as far as it spares us a call.
pub struct Kept {
    directory: PathBuf,
    state: KeptState,
}

#[derive(Deserialize)]
struct KeptState {
    cgroup_paths: BTreeMap<String, PathBuf>,
    cleat: Extra,
}

#[derive(Deserialize)]
struct Extra {
    namespaces: i32,
    poststart_hooks: bool,
    poststop_hooks: bool,
    /// systemd's, which is to be told of the end.
    unit: Option<IgnoredAny>,
}

impl Kept {
    /// Returns the container's own cgroup.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::from_paths(&self.state.cgroup_paths)
    }

    /// Whether all processes end with the first one.
    pub fn has_pid_namespace(&self) -> bool {
        self.state.cleat.namespaces & libc::CLONE_NEWPID != 0
    }

    /// Whether files are all that has to be removed.
    fn is_simple(&self) -> bool {
        let own = &self.state.cleat;
        !own.poststop_hooks && own.unit.is_none()
    }

    /// Does what the verb `delete` does for a container that has ended and left nothing behind.
    fn remove(&self) -> io::Result<()> {
        let directories: BTreeSet<_> = self.state.cgroup_paths.values().collect();
        for directory in directories {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.directory)
    }
}

/// Returns a file without a name, for what a runtime is to read or write. Nothing of it needs to be removed.
fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"runtime", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Returns a path that leads the runtime, our child, to our `file`.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Returns the last error in a runtime's JSON log.
fn last_error(log: &mut File) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        #[serde(default)]
        msg: String,
    }
    log.rewind().ok()?;
    let text = io::read_to_string(log).ok()?;
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.rfind(|line| line.level == "error").map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_message() {
        let text = "{\"level\":\"warning\",\"msg\":\"hm\"}\nnoise\n{\"level\":\"error\",\"msg\":\"a\\nb\"}\n{\"level\":\"info\",\"msg\":\"x\"}\n";
        let mut log = memory_file(text.as_bytes()).unwrap();
        assert_eq!(last_error(&mut log).unwrap(), "a\nb");
    }

    #[test]
    fn our_runtime_speaks_in_runcs_words() {
        let native = Runtime::native("");
        assert_eq!(native.in_runcs_words("create", "x".into()), "runc create failed: x");
        assert_eq!(
            native.in_runcs_words("create", "runc create failed: x".into()),
            "runc create failed: x"
        );
        assert_eq!(native.in_runcs_words("exec", "exec failed: x".into()), "exec failed: x");
        let foreign = Runtime { native: false, ..native };
        assert_eq!(foreign.in_runcs_words("create", "crun: x".into()), "crun: x");
    }
}
