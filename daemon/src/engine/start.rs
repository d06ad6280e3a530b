//! `docker start`: network, shim and bundle side by side, then Create and Start over the shim's socket, then one commit.
//!
//! If a step fails, everything is taken back by the same function that recovery uses ([`Engine::abandon`]): each of its
//! steps is fine with finding nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use cleat_proto::{
    docker::container::{Config, EndpointSettings, PortMap, RestartPolicy},
    kind::Kind,
    shim_v1::{self, Orders, restart_policy},
};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{
    Engine, Entry, Error, Result, create::top_layer, fault, health, log_orders, paths, validate,
};
use crate::{
    config::{Runtime, cgroups::Driver},
    container::{
        Container, Health, Record, Run, State,
        mount_point::Source,
        names::ContainerRef,
        signal,
        state::{Command, Refusal},
    },
    event::now_nanos,
    network::{self, Attach, Sandbox},
    spec,
    task::{Client, TaskDir, client},
};

/// How much of `/etc/passwd` or `/etc/group` is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Before what the runtime says when it cannot make the first process; clients look at the end of the text.
const CREATE_FAILED: &str = "failed to create task for container: failed to create shim task";

/// How long a start waits for a client whose attach was answered but not yet carried out.
const ARMING: std::time::Duration = std::time::Duration::from_secs(1);

/// A task that runs.
struct Started {
    pid: u32,
    run: Run,
}

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `AlreadySo` if it runs; the runtime's words if it cannot.
    pub async fn start(&self, reference: &ContainerRef) -> Result<()> {
        let entry = self.entry(reference)?;
        // A client that was told it may attach is on its way: not longer than this, should it never come.
        drop(tokio::time::timeout(ARMING, entry.arming.write()).await);
        self.hear_of_end(&entry).await;
        let (engine, started) = (self.clone(), Arc::clone(&entry));
        entry.queue.run(async move { engine.start_in_turn(&started).await }).await
    }

    /// Starts a container whose turn it is.
    pub(super) async fn start_in_turn(&self, entry: &Arc<Entry>) -> Result<()> {
        if self.0.shutting_down.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Unavailable, "the daemon is shutting down"));
        }
        let container = entry.view();
        container.state.decide(Command::Start).map_err(refusal)?;
        if entry.take_remains() {
            self.tear_down(entry).await;
        }
        let task = self.task_dir(&entry.id);
        match self.run(entry, &container.record, &task).await {
            Ok(started) => {
                self.started(entry, started);
                Ok(())
            }
            Err(error) => {
                drop(entry.take_early());
                self.abandon(&container.record, &task).await;
                self.start_failed(entry, &container.record, &error).await;
                Err(error)
            }
        }
    }

    /// Everything up to the first process that runs.
    async fn run(&self, entry: &Entry, record: &Arc<Record>, task: &TaskDir) -> Result<Started> {
        validate::check_cgroup_parent(&record.host_config, &self.config())?;
        validate::check_at_start(&record.host_config)?;
        fault::point("start.before-directory");
        self.make_directories(record, task)?;
        fault::point("start.after-directory");
        let spec = self.spec_in_background(record)?;
        let network = self.network_and_shim(record, task);
        let (spec, network) = tokio::join!(spec, network);
        let (sandbox, shim) = network?;
        fault::shim_point("start.after-shim", shim);
        let published = sandbox.as_ref().map(|sandbox| &sandbox.published[..]).unwrap_or_default();
        let mut spec = spec.map_err(Error::lost)??;
        if sandbox.as_ref().is_some_and(|sandbox| sandbox.netns.is_some()) {
            join_network(&mut spec, format!("/proc/{shim}/fd/4").into());
        }
        task.write_spec(&spec)?;
        fault::point("start.after-bundle");
        fault::shim_point("start.after-bundle", shim);
        let mut client = Client::connect(task).await?;
        let rootfs = self.snapshots().mounts(&record.id, top_layer(record)?.as_ref())?;
        let orders = self.orders(record, task, &spec, published)?;
        let (tty, stdin) = (record.config.tty, record.config.open_stdin);
        client
            .create(task.path(), rootfs, tty, stdin, &orders)
            .await
            .map_err(|error| start_error(CREATE_FAILED, error))?;
        fault::point("start.after-create");
        fault::shim_point("start.after-create", shim);
        for early in entry.take_early() {
            if let Err(error) = client::attach(task, early.attach, early.client).await {
                tracing::debug!(container = %record.id, %error, "a client that waited was lost");
            }
        }
        let run = self.run_of(record, sandbox.as_ref());
        // Side by side: should we die between the two, the journal says whether the process ever ran.
        let committed = self.commit_run(entry, run.clone(), sandbox.map(|s| s.endpoints));
        let started = async {
            let started = client.start("").await;
            fault::point("start.after-start");
            fault::shim_point("start.after-start", shim);
            started.map_err(|error| start_error("failed to start task for container", error))
        };
        let (committed, started) = tokio::join!(committed, started);
        let pid = started?;
        committed?;
        fault::point("start.after-commit");
        Ok(Started { pid, run })
    }

    /// What the record says of a run that begins now.
    fn run_of(&self, record: &Record, sandbox: Option<&Sandbox>) -> Run {
        let mut run = Run {
            wanted: true,
            open: true,
            started_at_nanos: now_nanos(),
            finished_at_nanos: record.run.finished_at_nanos,
            health: Health::of_new_run(&record.config, record.run.health.as_ref()),
            ..Run::default()
        };
        if let Some(sandbox) = sandbox {
            run.ports.clone_from(&sandbox.ports);
            run.sandbox_id.clone_from(&sandbox.sandbox_id);
        }
        run
    }

    async fn commit_run(
        &self,
        entry: &Entry,
        run: Run,
        endpoints: Option<BTreeMap<String, EndpointSettings>>,
    ) -> Result<()> {
        let committed = self.commit(entry, |record| {
            record.run = run;
            if let Some(endpoints) = endpoints {
                record.networks = endpoints;
            }
        });
        let record = committed.await;
        fault::point("start.beside-start");
        record.map(drop)
    }

    fn make_directories(&self, record: &Record, task: &TaskDir) -> Result<()> {
        paths::make_private(&self.container_dir(&record.id))?;
        self.share_shm(record)?;
        task.make()?;
        let rootfs = task.path().join("rootfs");
        fs::create_dir(&rootfs).map_err(|error| {
            let text = format!("cannot make {}", rootfs.display());
            Error::with_source(Kind::Internal, text, error)
        })
    }

    /// The network namespace, and in it (once there is one) the shim; returns the shim's pid.
    async fn network_and_shim(
        &self,
        record: &Arc<Record>,
        task: &TaskDir,
    ) -> Result<(Option<Sandbox>, u32)> {
        let failed = |error: network::Error| {
            Error::with_source(error.kind(), "failed to set up container networking", error)
        };
        let request = match self.attach_request(record).map_err(failed)? {
            // Without a namespace of the daemon's making, the shim need not wait for it.
            Some(request) if request.mode != network::Mode::Bridge => {
                let attached = self.0.networks.attach(request);
                let (sandbox, shim) = tokio::join!(attached, self.launch(task, None, Vec::new()));
                fault::point("start.after-network");
                return Ok((Some(sandbox.map_err(failed)?), shim?));
            }
            request => request,
        };
        let sandbox = match request {
            Some(request) => Some(self.0.networks.attach(request).await.map_err(failed)?),
            None => None,
        };
        fault::point("start.after-network");
        let lost = |error| {
            Error::with_source(Kind::Internal, "cannot pass the network on to the shim", error)
        };
        let netns = sandbox.as_ref().and_then(|sandbox| sandbox.netns.as_ref());
        let netns = netns.map(OwnedFd::try_clone).transpose().map_err(lost)?;
        let published = sandbox.iter().flat_map(|sandbox| &sandbox.published);
        let sockets: std::io::Result<_> = published.map(|one| one.socket.try_clone()).collect();
        let shim = self.launch(task, netns, sockets.map_err(lost)?).await?;
        Ok((sandbox, shim))
    }

    async fn launch(
        &self,
        task: &TaskDir,
        netns: Option<OwnedFd>,
        published: Vec<OwnedFd>,
    ) -> Result<u32> {
        let (engine, task) = (self.clone(), task.clone());
        let launched = tokio::task::spawn_blocking(move || {
            engine.0.shims.launch(&engine.config().shim, &task, netns.as_ref(), &published)
        });
        let shim = launched.await.map_err(Error::lost)??;
        fault::point("start.after-shim");
        Ok(shim)
    }

    fn attach_request(&self, record: &Record) -> Result<Option<Attach>, network::Error> {
        let host = &record.host_config;
        if host.network_mode.starts_with("container:") {
            return Ok(None);
        }
        let mut names = record.networks.keys().map(String::as_str);
        let mode = match record.config.network_disabled {
            true => Ok(network::Mode::None),
            false => network::Mode::parse(&host.network_mode),
        };
        let mode = names.try_fold(mode?, |mode, name| network::Mode::parse(name).map(|_| mode))?;
        let ports = record.config.exposed_ports.clone().unwrap_or_default();
        let exposed: Vec<String> = ports.into_keys().collect();
        Ok(Some(Attach {
            container: record.id.clone(),
            name: record.name.clone(),
            hostname: record.config.hostname.clone(),
            domainname: record.config.domainname.clone(),
            mode,
            requested: record.networks.clone(),
            port_bindings: published(&exposed, host.port_bindings.as_ref()),
            exposed,
            publish_all: host.publish_all_ports,
            mac_address: record.config.mac_address.clone(),
            extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
            dns: host.dns.clone().unwrap_or_default(),
            dns_search: host.dns_search.clone().unwrap_or_default(),
            dns_options: host.dns_options.clone().unwrap_or_default(),
            directory: self.container_dir(&record.id),
        }))
    }

    /// Builds the OCI spec on a thread of its own: it reads files of the container.
    fn spec_in_background(
        &self,
        record: &Arc<Record>,
    ) -> Result<tokio::task::JoinHandle<Result<Spec>>> {
        let shared = self.shared_namespaces(record)?;
        let (engine, record) = (self.clone(), Arc::clone(record));
        Ok(tokio::task::spawn_blocking(move || {
            let top = top_layer(&record)?;
            let read_file = |path: &str| {
                let path = std::path::Path::new(path);
                engine.snapshots().read_file(&record.id, top.as_ref(), path, MAX_FILE_BYTES)
            };
            engine.provide_init(&record)?;
            let mounts = engine.resolve_mounts(&record)?;
            let input = engine.spec_input(&record, &record.config, &shared, mounts, &read_file);
            Ok(spec::build(&input)?)
        }))
    }

    /// Puts together what a spec depends on.
    pub(super) fn spec_input<'a>(
        &self,
        record: &'a Record,
        config: &'a Config,
        shared: &Shared,
        mounts: Vec<spec::Mount>,
        read_file: &'a dyn Fn(&str) -> std::io::Result<Option<Vec<u8>>>,
    ) -> spec::Input<'a> {
        let host = &record.host_config;
        let own_or_host = |mode: &str| match mode {
            "host" => spec::Namespace::Host,
            _ => spec::Namespace::New,
        };
        let file = |name: &str| Some(shared.files.join(name));
        let config_of_daemon = self.config();
        let init_binary = host
            .init
            .unwrap_or(config_of_daemon.init_by_default)
            .then(|| config_of_daemon.init.clone().unwrap_or_else(|| self.own_init()));
        let mut args = vec![record.path.clone()];
        args.extend(record.args.iter().cloned());
        spec::Input {
            args,
            config,
            host_config: host,
            mounts,
            files: spec::Files {
                hosts: file("hosts"),
                hostname: file("hostname"),
                resolv_conf: file("resolv.conf"),
            },
            network: shared.network.clone(),
            ipc: shared.ipc.clone(),
            pid: shared.pid.clone(),
            uts: own_or_host(&host.uts_mode),
            cgroup: own_or_host(&host.cgroupns_mode),
            shm: shared.shm.clone(),
            cgroups_path: self.cgroups_path(record),
            init_binary,
            read_file,
            kernel: self.0.host.kernel,
        }
    }

    /// Where the init of our own is: a copy of the worker, which is an init under that name. (A copy, since a container
    /// that is allowed too much could write to what is bound into it.)
    fn own_init(&self) -> PathBuf {
        self.config().state.join("docker-init")
    }

    /// Makes the copy, at the first container that wants it.
    fn provide_init(&self, record: &Record) -> Result<()> {
        let config = self.config();
        let path = self.own_init();
        let wanted = record.host_config.init.unwrap_or(config.init_by_default);
        if !wanted || config.init.is_some() || path.exists() {
            return Ok(());
        }
        let native = config.runtimes.values().find(|runtime| runtime.native).ok_or_else(|| {
            Error::new(Kind::InvalidArgument, "no init binary was found on this host")
        })?;
        let unfinished = config.state.join(format!("docker-init.{}", record.id));
        fs::copy(&native.path, &unfinished).and_then(|_| fs::rename(&unfinished, &path)).map_err(
            |error| {
                let text = format!("cannot make {}", path.display());
                Error::with_source(Kind::Internal, text, error)
            },
        )
    }

    /// Finds the namespaces and files that are another container's, or the host's.
    pub(super) fn shared_namespaces(&self, record: &Record) -> Result<Shared> {
        let host = &record.host_config;
        let mut shared = Shared {
            network: match host.network_mode.as_str() {
                "host" => spec::Namespace::Host,
                _ => spec::Namespace::New,
            },
            ipc: spec::Namespace::New,
            pid: match host.pid_mode.as_str() {
                "host" => spec::Namespace::Host,
                _ => spec::Namespace::New,
            },
            shm: spec::Shm::Private { size_bytes: host.shm_size.unsigned_abs() },
            files: self.container_dir(&record.id),
        };
        let pid_of = |mode: &str, what: &str| match mode.strip_prefix("container:") {
            Some(other) => self.running_pid(other, what).map(Some),
            None => Ok(None),
        };
        let joined = pid_of(&host.network_mode, "network").map_err(|error| {
            let kind = if error.kind() == Kind::NotFound { Kind::Internal } else { error.kind() };
            Error::with_source(kind, "joining network namespace of container", error)
        })?;
        if let Some((pid, other)) = joined {
            shared.network = spec::Namespace::Join(format!("/proc/{pid}/ns/net").into());
            shared.files = self.container_dir(&other.record.id);
        }
        if let Some((pid, _)) = pid_of(&host.pid_mode, "PID")? {
            shared.pid = spec::Namespace::Join(format!("/proc/{pid}/ns/pid").into());
        }
        if let Some((pid, other)) = pid_of(&host.ipc_mode, "IPC")? {
            if other.record.host_config.ipc_mode != "shareable" {
                return Err(Error::new(
                    Kind::InvalidArgument,
                    format!(
                        "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                        other.record.id
                    ),
                ));
            }
            shared.ipc = spec::Namespace::Join(format!("/proc/{pid}/ns/ipc").into());
            shared.shm = spec::Shm::Bind(self.shm_path(&other.record.id));
        }
        match host.ipc_mode.as_str() {
            "host" => {
                shared.ipc = spec::Namespace::Host;
                shared.shm = spec::Shm::Bind("/dev/shm".into());
            }
            "shareable" => shared.shm = spec::Shm::Bind(self.shm_path(&record.id)),
            "none" => shared.shm = spec::Shm::Absent,
            _ => {}
        }
        Ok(shared)
    }

    fn running_pid(&self, other: &str, what: &str) -> Result<(u32, Arc<Container>)> {
        let other = self.container(&ContainerRef(other.to_owned()))?;
        match other.state.pid() {
            0 => Err(Error::new(
                Kind::Conflict,
                format!(
                    "cannot join {what} namespace of a non running container: {}",
                    other.record.id
                ),
            )),
            pid => Ok((pid, other)),
        }
    }

    /// Turns the record's mounts into what the worker mounts, and makes directories of the host that `-v` asks for.
    fn resolve_mounts(&self, record: &Record) -> Result<Vec<spec::Mount>> {
        let mut mounts = Vec::with_capacity(record.mounts.len());
        for mount in &record.mounts {
            let source = match &mount.source {
                Source::Bind { path, create, non_recursive } => {
                    if *create && !path.exists() {
                        paths::make_shared(path)?;
                    }
                    spec::MountSource::Bind { path: path.clone(), non_recursive: *non_recursive }
                }
                Source::Tmpfs { options } => spec::MountSource::Tmpfs { options: options.clone() },
                Source::Volume { name, subpath, .. } => self.volume_source(name, subpath)?,
                Source::Image { name, top_layer, subpath, .. } => {
                    self.image_source(name, top_layer.as_deref(), subpath)?
                }
            };
            mounts.push(spec::Mount {
                destination: mount.destination.clone(),
                source,
                read_only: !mount.rw,
                propagation: mount.propagation.clone(),
                recursive_ro: mount.recursive_ro,
            });
        }
        Ok(mounts)
    }

    fn image_source(
        &self,
        name: &str,
        top: Option<&str>,
        subpath: &str,
    ) -> Result<spec::MountSource> {
        let missing = |why: String| {
            let text = format!("cannot access path {subpath:?} of image {name}: {why}");
            Error::new(Kind::InvalidArgument, text)
        };
        let top = top.map(str::parse).transpose();
        let top = top.map_err(|_| missing("the record is damaged".to_owned()))?;
        let shown = self.snapshots().show(top.as_ref(), std::path::Path::new(subpath));
        match shown.map_err(|error| missing(error.to_string()))? {
            None => Err(missing("no such file or directory".to_owned())),
            Some(paths) => match <[std::path::PathBuf; 1]>::try_from(paths) {
                Ok([path]) => Ok(spec::MountSource::Bind { path, non_recursive: true }),
                Err(layers) => Ok(spec::MountSource::Layers(layers)),
            },
        }
    }

    fn volume_source(&self, name: &str, subpath: &str) -> Result<spec::MountSource> {
        match self.0.volumes.content(name)? {
            crate::volume::Content::Directory(path) => {
                let path = match subpath {
                    "" => path,
                    subpath => crate::volume::Volumes::subpath(&path, subpath)?,
                };
                Ok(spec::MountSource::Bind { path, non_recursive: false })
            }
            crate::volume::Content::Filesystem { kind, options, .. } if kind == "tmpfs" => {
                Ok(spec::MountSource::Tmpfs { options })
            }
            crate::volume::Content::Filesystem { kind, .. } => Err(Error::new(
                Kind::NotImplemented,
                format!("the volume {name} of type {kind} is not supported yet"),
            )),
        }
    }

    fn orders(
        &self,
        record: &Record,
        task: &TaskDir,
        spec: &Spec,
        published: &[network::Published],
    ) -> Result<Orders> {
        let name = &record.host_config.runtime;
        let config = self.config();
        let runtime = config.runtimes.get(name).ok_or_else(|| {
            let text = format!("unknown or invalid runtime name: {name}");
            Error::new(Kind::InvalidArgument, text)
        })?;
        let path = self.log_path(&record.id).display().to_string();
        Ok(Orders {
            runtime: Some(shim_v1::Runtime {
                binary: runtime.path.display().to_string(),
                args: runtime_args(runtime, config.cgroups.driver),
                root: self.runtime_root(name).display().to_string(),
                native: runtime.native,
            }),
            log: Some(log_orders::orders(record, path)?),
            restart: Some(restart_orders(&record.host_config.restart_policy)),
            stdin_once: record.config.stdin_once,
            state_dir: task.path().display().to_string(),
            stop_signal: signal::parse(&record.config.stop_signal).unwrap_or(0).unsigned_abs(),
            health: health::orders(&record.config, spec)?,
            published: published.iter().map(published_orders).collect(),
        })
    }

    /// The first process runs: tell, and follow what becomes of it.
    fn started(&self, entry: &Arc<Entry>, started: Started) {
        let Started { pid, run } = started;
        entry.change(|container| {
            container.run = run;
            container.state = State::Running { pid };
        });
        let view = entry.view();
        self.publish_mounts(&view.record);
        self.publish_networks(&view.record, "connect");
        self.publish(&view, "start", Default::default());
        tracing::info!(container = %entry.id, pid, "container started");
        self.follow(Arc::clone(entry));
    }

    /// The first process could not run: the state says why, and nothing else has changed.
    async fn start_failed(&self, entry: &Arc<Entry>, before: &Record, error: &Error) {
        let text = error.whole();
        let (exit_code, _) = exit_code_of(&text);
        tracing::info!(container = %entry.id, error = text, "container not started");
        let mut run = entry.view().run.clone();
        run.exit_code = exit_code;
        run.error = text;
        run.wanted = false;
        let (stored, networks) = (run.clone(), before.networks.clone());
        let committed = self.commit(entry, |record| {
            record.run = stored;
            record.networks = networks;
        });
        if let Err(error) = committed.await {
            tracing::error!(container = %entry.id, error = error.whole(), "cannot record a failed start");
        }
        entry.change(|container| container.run = run);
        if entry.view().record.host_config.auto_remove
            && let Err(error) = self.auto_remove(entry).await
        {
            tracing::error!(container = %entry.id, error = error.whole(), "cannot remove a container that did not start");
        }
    }

    /// Takes away whatever of a task is on the host, in whichever state it is. Never fails: what cannot be done is in the
    /// log, and the next start of the daemon tries again.
    pub(super) async fn abandon(&self, record: &Arc<Record>, task: &TaskDir) {
        let hangs = match Client::connect(task).await {
            Ok(mut client) => {
                let _ = client.kill(signal::KILL).await;
                let _ = client.delete("").await;
                client.shutdown().await;
                task.connect().await.is_ok()
            }
            Err(error) => !error.is_dead(),
        };
        self.sweep_processes(record, hangs).await;
        self.unshare_shm(&record.id);
        if !record.host_config.network_mode.starts_with("container:")
            && let Err(error) = self.0.networks.undo_attach(&record.id).await
        {
            tracing::error!(container = %record.id, %error, "cannot give the network back");
        }
        if let Err(error) = task.remove() {
            tracing::error!(container = %record.id, %error, "cannot remove a task's directory");
        }
    }
}

/// What a container shares with others.
pub(super) struct Shared {
    network: spec::Namespace,
    ipc: spec::Namespace,
    pid: spec::Namespace,
    shm: spec::Shm,
    /// Where `hosts` and its siblings are.
    files: PathBuf,
}

fn refusal(why: Refusal) -> Error {
    match why {
        Refusal::Paused => {
            Error::new(Kind::Conflict, "cannot start a paused container, try unpause instead")
        }
        Refusal::BeingRemoved => {
            Error::new(Kind::Conflict, "container is marked for removal and cannot be started")
        }
        _ => Error::new(Kind::AlreadySo, "container is already started"),
    }
}

fn join_network(spec: &mut Spec, path: PathBuf) {
    let linux = spec.linux_mut().as_mut();
    let Some(namespaces) = linux.and_then(|linux| linux.namespaces_mut().as_mut()) else { return };
    for namespace in namespaces {
        if namespace.typ() == LinuxNamespaceType::Network {
            namespace.set_path(Some(path.clone()));
        }
    }
}

/// What stands before a runtime's verb. Which driver makes the cgroups, every verb of the shim's is told, as by containerd.
fn runtime_args(runtime: &Runtime, driver: Driver) -> Vec<String> {
    const SYSTEMD: &str = "--systemd-cgroup";
    let mut args = runtime.args.clone();
    if driver == Driver::Systemd && !args.iter().any(|arg| arg == SYSTEMD) {
        args.push(SYSTEMD.to_owned());
    }
    args
}

/// Puts the runtime's words into Docker's shape, with the kind that Docker's status stands for.
fn start_error(before: &str, error: crate::task::Error) -> Error {
    let crate::task::Error::Shim { message, .. } = &error else {
        return Error::with_source(error.kind(), before, error);
    };
    let (exit_code, suffix) = exit_code_of(message);
    let kind = if exit_code == UNKNOWN { Kind::Internal } else { Kind::InvalidArgument };
    Error::new(kind, format!("{before}: {message}{suffix}"))
}

/// Exit codes of a start that failed: 128 where nothing better is known.
const UNKNOWN: u32 = 128;
const CANNOT_INVOKE: u32 = 126;
const NOT_FOUND: u32 = 127;

/// Reads the exit code off the runtime's words, and what Docker adds to them. Clients look for the same words.
pub(super) fn exit_code_of(message: &str) -> (u32, &'static str) {
    let text = message.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("permission denied") {
        (CANNOT_INVOKE, "")
    } else if has("is a directory") {
        (CANNOT_INVOKE, ": permission denied")
    } else if has("not a directory") {
        let hint = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
        (NOT_FOUND, hint)
    } else if has("executable file not found")
        || has("no such file or directory")
        || has("failed to run runc create/exec call")
    {
        (NOT_FOUND, "")
    } else {
        (UNKNOWN, "")
    }
}

/// Tells the shim where a published port leads.
fn published_orders(published: &network::Published) -> shim_v1::PublishedPort {
    use shim_v1::published_port::Protocol as P;
    let protocol = match published.port.protocol {
        network::Protocol::Tcp => P::Tcp,
        network::Protocol::Udp => P::Udp,
        network::Protocol::Sctp => P::Sctp,
    };
    let target = format!("{}:{}", published.address, published.port.number);
    shim_v1::PublishedPort { protocol: protocol.into(), target }
}

/// Turns the API's policy into the shim's.
pub(super) fn restart_orders(policy: &RestartPolicy) -> shim_v1::RestartPolicy {
    use restart_policy::Kind as K;
    let kind = match policy.name.as_str() {
        "always" => K::Always,
        "unless-stopped" => K::UnlessStopped,
        "on-failure" => K::OnFailure,
        _ => K::No,
    };
    let max_retries = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
    shim_v1::RestartPolicy { kind: kind.into(), max_retries }
}

/// What is published: the bindings of exposed ports, since Docker looks at no other. An address that is none is every address.
fn published(exposed: &[String], bindings: Option<&PortMap>) -> PortMap {
    let known: Vec<network::Port> =
        exposed.iter().filter_map(|text| network::Port::parse(text).ok()).collect();
    let is_exposed =
        |text: &str| network::Port::parse(text).is_ok_and(|port| known.contains(&port));
    let mut published = bindings.cloned().unwrap_or_default();
    published.retain(|port, _| is_exposed(port));
    for binding in published.values_mut().flatten().flatten() {
        if binding.host_ip.parse::<std::net::IpAddr>().is_err() {
            binding.host_ip.clear();
        }
        // `80/tcp` is taken for 80.
        let end = binding.host_port.find('/').unwrap_or(binding.host_port.len());
        binding.host_port.truncate(end);
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::container::PortBinding;

    #[test]
    fn exit_codes_are_read_off_the_runtimes_words() {
        for (message, code) in [
            ("exec: \"nope\": executable file not found in $PATH", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("exec: \"/etc\": is a directory", 126),
            ("mount a: not a directory", 127),
            ("stat /x: no such file or directory", 127),
            ("something else", 128),
        ] {
            assert_eq!(exit_code_of(message).0, code, "{message}");
        }
    }

    #[test]
    fn what_cannot_be_invoked_is_the_callers_mistake() {
        let shim = |message: &str| crate::task::Error::Shim {
            kind: Kind::Internal,
            message: message.to_owned(),
        };
        let error =
            start_error(CREATE_FAILED, shim("exec: \"x\": executable file not found in $PATH"));
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert_eq!(
            error.whole(),
            "failed to create task for container: failed to create shim task: exec: \"x\": executable file not found in $PATH"
        );
        assert_eq!(start_error("x", shim("boom")).kind(), Kind::Internal);
    }

    #[test]
    fn only_exposed_ports_are_published() {
        let bind = |host_ip: &str, host_port: &str| PortBinding {
            host_ip: host_ip.to_owned(),
            host_port: host_port.to_owned(),
        };
        let asked: PortMap = [
            ("80/tcp".to_owned(), Some(vec![bind("bad", "8080/tcp"), bind("127.0.0.1", "1")])),
            ("81".to_owned(), Some(vec![bind("", "")])),
            ("82/xxx".to_owned(), None),
            (String::new(), None),
        ]
        .into();
        let exposed = ["80".to_owned(), "90/udp".to_owned()];
        let expected: PortMap =
            [("80/tcp".to_owned(), Some(vec![bind("", "8080"), bind("127.0.0.1", "1")]))].into();
        assert_eq!(published(&exposed, Some(&asked)), expected);
        assert_eq!(published(&[], None), PortMap::new());
    }
}
