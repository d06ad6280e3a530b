//! The container as the supervisor holds it, and how it is brought into being.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use cleat_proto::{
    containerd::{runc, task::v3::CreateTaskRequest, types::Mount},
    shim::ORDERS_TYPE_URL,
    shim_v1::{self, Orders},
};
use prost::Message;
use tokio::time::Instant;

use super::Identity;
use crate::{
    cgroup::Cgroup,
    error::Error,
    health::Monitor,
    journal::Journal,
    logger::json_file::JsonFile,
    output::Sink,
    process::{Process, Reply},
    proxy::Proxy,
    reaper::Reaper,
    restart_policy::RestartPolicy,
    rootfs,
    runtime::{Birth, Kept, NATIVE, Protected, Runtime},
    stdio::{self, OurEnds, Uris},
};

/// The container and what was ordered for it.
pub struct Container {
    pub process: Process,
    pub runtime: Runtime,
    pub bundle: PathBuf,
    pub rootfs: Vec<Mount>,
    /// Where exit.json, the journal and passing files lie.
    pub directory: Directory,
    pub log: Option<shim_v1::Log>,
    pub policy: RestartPolicy,
    /// See `Orders.stop_signal`.
    pub stop_signal: u32,
    /// It has been stopped: no restart follows.
    pub suppressed: bool,
    /// By somebody, and not because the daemon ends.
    pub by_hand: bool,
    pub journal: Option<Journal>,
    pub cgroup: Arc<Cgroup>,
    /// What our own runtime keeps of it.
    pub kept: Option<Arc<Kept>>,
    pub oom_killed: bool,
    /// Of this run.
    pub oom_watch: Option<tokio::task::AbortHandle>,
    pub started_at: Option<Instant>,
    /// When the policy starts it again.
    pub restart_at: Option<Instant>,
    /// A restart is under way.
    pub restarting: bool,
    pub stop: Option<Stop>,
    /// Where there is a health check.
    pub health: Option<Box<Monitor>>,
    /// The host's ports that lead here.
    pub proxy: Proxy,
    pub deleting: Vec<Reply<cleat_proto::containerd::task::v3::DeleteResponse>>,
}

/// A stop under way.
pub struct Stop {
    pub signal: u32,
    pub deadline: Option<Instant>,
    pub replies: Vec<Reply<()>>,
}

/// An open directory; its descriptor makes short paths of long ones.
#[derive(Clone)]
pub struct Directory {
    pub path: PathBuf,
    pub file: Arc<File>,
}

impl Directory {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file =
            File::open(path).map_err(Error::io(format!("cannot open {}", path.display())))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }
}

/// What a Create request asks for beyond the container itself.
pub struct Wishes {
    pub runtime: Runtime,
    pub orders: Option<Orders>,
}

impl Wishes {
    /// Reads the request's options: our daemon's orders, or runc's options from a stock containerd.
    pub fn read(request: &CreateTaskRequest, namespace: &str) -> Result<Self, Error> {
        let invalid = |error| Error::Invalid(format!("cannot read the options of Create: {error}"));
        let any = request.options.clone().unwrap_or_default();
        if any.type_url == ORDERS_TYPE_URL {
            let orders = Orders::decode(&*any.value).map_err(invalid)?;
            let wanted = orders.runtime.clone().unwrap_or_default();
            let runtime = Runtime {
                binary: wanted.binary.into(),
                args: wanted.args.into_iter().map(Into::into).collect(),
                root: wanted.root,
                native: wanted.native,
                protected: Protected::default(),
            };
            return Ok(Self { runtime, orders: Some(orders) });
        }
        let options = match any.type_url.rsplit('/').next() {
            Some("containerd.runc.v1.Options") => {
                runc::v1::Options::decode(&*any.value).map_err(invalid)?
            }
            _ => runc::v1::Options::default(),
        };
        Ok(Self { runtime: stock_runtime(&options, namespace), orders: None })
    }
}

/// Returns the runtime that a stock containerd wants; with a root of its own for each namespace, as ids are unique only there.
pub fn stock_runtime(options: &runc::v1::Options, namespace: &str) -> Runtime {
    let root = if options.root.is_empty() { "/run/containerd/cleat" } else { &options.root };
    let root = Path::new(root).join(namespace).to_string_lossy().into_owned();
    let mut runtime = Runtime::native(&root);
    if !options.binary_name.is_empty() {
        runtime.native =
            Path::new(&options.binary_name).file_name().is_some_and(|name| name == NATIVE);
        runtime.binary = (&options.binary_name).into();
    }
    if options.systemd_cgroup {
        runtime.args.push("--systemd-cgroup".into());
    }
    runtime
}

/// Everything that one run of the container needs, by value: it is made beside the supervisor's loop.
pub struct Launch {
    pub identity: Identity,
    pub runtime: Runtime,
    pub reaper: Reaper,
    pub directory: Directory,
    pub bundle: PathBuf,
    pub rootfs: Vec<Mount>,
    pub uris: Uris,
    pub log: Option<shim_v1::Log>,
    /// Of the run before.
    pub kept: Option<Arc<Kept>>,
}

/// A run that was brought into being.
pub struct Launched {
    pub pid: u32,
    pub ends: OurEnds,
    pub log: Option<JsonFile>,
    pub sinks: Vec<Sink>,
    pub cgroup: Cgroup,
    pub kept: Option<Kept>,
}

impl Launch {
    /// Has the runtime create the container.
    pub async fn create(&self) -> Result<Launched, Error> {
        let log = self
            .log
            .as_ref()
            .map(JsonFile::open)
            .transpose()
            .map_err(Error::io("cannot open the log"))?;
        let sinks = stdio::open_sinks(&self.uris, &self.identity.id, &self.identity.namespace)
            .map_err(Error::io("cannot open the output streams"))?;
        let (child, ends) = stdio::open(&self.uris, log.is_some(), &self.directory.file)
            .map_err(Error::io("cannot make the standard streams"))?;
        let birth = Birth {
            id: &self.identity.id,
            directory: &self.directory.path,
            name: "init",
            ends: child,
        };
        let born = self.runtime.create(&self.reaper, birth, &self.bundle, &self.rootfs).await?;
        let ends = match born.terminal {
            Some(master) => {
                stdio::terminal_ends(master).map_err(Error::io("cannot use the terminal"))?
            }
            None => ends,
        };
        let kept = self.runtime.kept(&self.identity.id);
        // Without one there is no accounting, which is no reason not to run.
        let cgroup =
            kept.as_ref().map_or_else(|| Cgroup::of(born.pid).unwrap_or_default(), Kept::cgroup);
        Ok(Launched { pid: born.pid, ends, log, sinks, cgroup, kept })
    }

    /// Does the policy's restart: away with the last run, create, start.
    pub async fn again(&self) -> Result<Launched, Error> {
        self.runtime.delete(&self.reaper, &self.identity.id, self.kept.as_deref()).await?;
        let launched = self.create().await?;
        self.runtime.start(&self.reaper, &self.identity.id, launched.kept.as_ref()).await?;
        Ok(launched)
    }

    /// Mounts the root filesystem for a runtime that does not, for the first run.
    pub fn mount_rootfs(&self) -> Result<(), Error> {
        if self.runtime.native || self.rootfs.is_empty() {
            return Ok(());
        }
        let root = self.bundle.join("rootfs");
        let mounted =
            rootfs::enter_namespace().and_then(|()| rootfs::mount_all(&self.rootfs, &root));
        mounted.map_err(Error::io("cannot mount the root filesystem"))
    }
}
