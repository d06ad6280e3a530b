//! `STATE/tasks/<namespace>/<container id>/`: the shim's socket, its log, the bundle, `exit.json` and `journal`.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use cleat_proto::{exit, exit::Exit, id::ContainerId, journal};

use oci_spec::runtime::Spec;
use serde::Deserialize;

use super::Error;

/// The bundle's spec.
const SPEC: &str = "config.json";

/// Our namespace among the tasks, in containerd's sense.
pub const NAMESPACE: &str = "cleat";

/// `sun_path` holds 108 bytes, the last of them zero; one more is left for a peer that counts differently.
const MAX_SOCKET_PATH_BYTES: usize = 106;

/// One task's directory.
#[derive(Clone, Debug)]
pub struct TaskDir {
    id: ContainerId,
    path: PathBuf,
}

impl TaskDir {
    /// Names the directory of `id` under the daemon's state directory.
    pub fn new(state: &Path, id: &ContainerId) -> Self {
        Self { id: id.clone(), path: Self::all(state).join(id.as_str()) }
    }

    /// Returns where all of them are.
    pub fn all(state: &Path) -> PathBuf {
        state.join("tasks").join(NAMESPACE)
    }

    /// Lists the containers that have one.
    ///
    /// # Errors
    /// If the directory cannot be read; that it is missing is no error.
    pub fn list(state: &Path) -> io::Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(Self::all(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
            .collect())
    }

    /// Whose it is.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, empty; what an earlier task left is removed.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn make(&self) -> Result<(), Error> {
        let make = |path: &Path| fs::DirBuilder::new().mode(0o711).create(path);
        let fail = |error| Error::files(format!("cannot make {}", self.path.display()))(error);
        match make(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o711).recursive(true).create(&self.path).map_err(fail)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                make(&self.path).map_err(fail)
            }
            Err(error) => Err(fail(error)),
        }
    }

    /// Removes it. Idempotent.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::files(format!("cannot remove {}", self.path.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Binds the socket on which the shim will listen.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn bind(&self) -> Result<std::os::unix::net::UnixListener, Error> {
        let what = || format!("cannot listen in {}", self.path.display());
        let (path, _directory) = self.socket().map_err(Error::files(what()))?;
        let listener =
            std::os::unix::net::UnixListener::bind(&path).map_err(Error::files(what()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(Error::files(what()))?;
        listener.set_nonblocking(true).map_err(Error::files(what()))?;
        Ok(listener)
    }

    /// Connects to the shim's socket.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn connect(&self) -> Result<tokio::net::UnixStream, Error> {
        let (path, _directory) = self.socket().map_err(Error::Unreachable)?;
        tokio::net::UnixStream::connect(path).await.map_err(Error::Unreachable)
    }

    /// Returns a path to the socket that is short enough; it is good while the descriptor is open.
    fn socket(&self) -> io::Result<(PathBuf, Option<OwnedFd>)> {
        let path = self.path.join("shim.sock");
        if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH_BYTES {
            return Ok((path, None));
        }
        let directory: OwnedFd = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(&self.path)?
            .into();
        let short = format!("/proc/self/fd/{}/shim.sock", directory.as_raw_fd());
        Ok((short.into(), Some(directory)))
    }

    /// Reads `exit.json`; `None` if there is none, or none that can be read.
    pub fn exit(&self) -> Option<Exit> {
        let bytes = fs::read(self.path.join(exit::FILE_NAME)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes the bundle's `config.json`.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write_spec(&self, spec: &Spec) -> Result<(), Error> {
        let path = self.path.join(SPEC);
        let written = serde_json::to_vec(spec).map_err(io::Error::from);
        let written = written.and_then(|bytes| fs::write(&path, bytes));
        written.map_err(Error::files(format!("cannot write {}", path.display())))
    }

    /// Reads which cgroup the task was made with: the bundle's `cgroupsPath`. `None` where there is no bundle yet.
    pub fn cgroups_path(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Bundle {
            linux: Linux,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Linux {
            cgroups_path: String,
        }
        let bytes = fs::read(self.path.join(SPEC)).ok()?;
        serde_json::from_slice::<Bundle>(&bytes).ok().map(|bundle| bundle.linux.cgroups_path)
    }

    /// Reads the journal's entries above `after`, for a shim that is dead. A last line that is cut short is left out.
    pub fn journal(&self, after: u64) -> Vec<journal::Entry> {
        let text = fs::read_to_string(self.path.join(journal::FILE_NAME)).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<journal::Entry>(line).ok())
            .filter(|entry| entry.seq > after)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &Path) -> TaskDir {
        TaskDir::new(state, &"a".repeat(64).parse().unwrap())
    }

    #[tokio::test]
    async fn a_socket_can_be_reached_however_long_its_path_is() {
        for depth in [0, 120] {
            let temporary = tempfile::tempdir().unwrap();
            let state = temporary.path().join("x".repeat(depth));
            let task = task(&state);
            task.make().unwrap();
            assert!(task.connect().await.unwrap_err().is_dead());
            let _listener = task.bind().unwrap();
            task.connect().await.unwrap();
        }
    }

    #[test]
    fn what_an_earlier_task_left_is_gone() {
        let state = tempfile::tempdir().unwrap();
        let task = task(state.path());
        task.make().unwrap();
        fs::write(task.path().join(exit::FILE_NAME), "{}").unwrap();
        task.make().unwrap();
        assert_eq!(fs::read_dir(task.path()).unwrap().count(), 0);
        assert_eq!(TaskDir::list(state.path()).unwrap(), [task.id().clone()]);
        task.remove().unwrap();
        task.remove().unwrap();
        assert!(TaskDir::list(state.path()).unwrap().is_empty());
    }

    #[test]
    fn a_bundle_says_which_cgroup_the_task_has() {
        let state = tempfile::tempdir().unwrap();
        let task = task(state.path());
        task.make().unwrap();
        assert_eq!(task.cgroups_path(), None);
        let mut spec = Spec::default();
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_cgroups_path(Some("a.slice:b:c".into()));
        task.write_spec(&spec).unwrap();
        assert_eq!(task.cgroups_path().unwrap(), "a.slice:b:c");
    }

    #[test]
    fn a_journal_line_cut_short_is_left_out() {
        let state = tempfile::tempdir().unwrap();
        let task = task(state.path());
        task.make().unwrap();
        let text = concat!(
            "{\"seq\":1,\"at_nanos\":5,\"what\":\"started\",\"pid\":9,\"restart_count\":0}\n",
            "{\"seq\":2,\"at_nanos\":6,\"what\":\"oom\"}\n",
            "{\"seq\":3,\"at_na",
        );
        fs::write(task.path().join(journal::FILE_NAME), text).unwrap();
        let seen = task.journal(1);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].what, journal::What::Oom);
    }
}
