//! `docker exec`: a record in memory, a process in the shim. Records are few and short-lived: an hour-old exec is nobody's.

use std::{
    collections::HashMap,
    io::Write,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cleat_proto::{
    containerd::v1::types::Status as TaskStatus, id::ExecId, kind::Kind, shim::Attach,
};
use oci_spec::runtime::{BoxBuilder, Process};

use super::{
    Engine, Entry, Error, Exec, ExecConfig, ExecState, Result, attach::keys, create::random,
    pause::refusal, start::exit_code_of,
};
use crate::{
    container::{
        names::ContainerRef,
        state::{Command, Refusal},
    },
    spec,
    task::{Client, client},
};

/// How long an exec that ended can still be inspected; Docker keeps it between five and ten minutes.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How often the old ones are looked for.
const COLLECTION: Duration = Duration::from_secs(60);
/// How long the journal may take to tell what the shim has said.
const SETTLING: Duration = Duration::from_secs(1);
/// How many execs there may be, of all containers; the oldest that ended goes first.
const MAX: usize = 16 * 1024;
/// How much of a file of the container is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// All execs that are known.
#[derive(Default)]
pub(super) struct Execs(Mutex<HashMap<ExecId, Known>>);

struct Known {
    exec: Exec,
    keys: Vec<u8>,
    /// When it was made, or ended.
    since: Instant,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T>(&self, id: &str, read: impl FnOnce(&mut Known) -> T) -> Result<T> {
        let missing = || Error::new(Kind::NotFound, format!("No such exec instance: {id}"));
        let parsed: ExecId = id.parse().map_err(|_| missing())?;
        self.lock().get_mut(&parsed).map(read).ok_or_else(missing)
    }

    /// Notes an end, once.
    fn end(&self, id: &ExecId, status: u32) {
        if let Some(known) = self.lock().get_mut(id) {
            let pid = match known.exec.state {
                ExecState::Exited { .. } => return,
                ExecState::Running { pid } => pid,
                ExecState::Created | ExecState::Starting => 0,
            };
            known.exec.state = ExecState::Exited { status, pid };
            known.since = Instant::now();
        }
    }

    fn forget_old(&self) {
        self.lock().retain(|_, known| {
            let ended = matches!(known.exec.state, ExecState::Exited { .. });
            !ended || known.since.elapsed() < KEPT
        });
    }
}

/// An exec that is about to run: it counts as started.
pub struct ExecLaunch {
    engine: Engine,
    entry: Arc<Entry>,
    exec: Exec,
    keys: Vec<u8>,
    console_size: Option<[u32; 2]>,
    /// With a terminal the stream is raw, without one it is framed.
    pub tty: bool,
}

/// As Docker's events show it: a blank follows the program even if it has no arguments.
fn command_line(cmd: &[String]) -> String {
    let (program, args) = cmd.split_first().map_or(("", &[][..]), |(p, args)| (p.as_str(), args));
    format!("{program} {}", args.join(" "))
}

impl Engine {
    /// Records a process to be added.
    ///
    /// # Errors
    /// If the container does not run, or the request makes no sense.
    pub async fn exec_create(
        &self,
        reference: &ContainerRef,
        config: ExecConfig,
    ) -> Result<ExecId> {
        let entry = self.entry(reference)?;
        if matches!(entry.settled().await.state, crate::container::State::Paused { .. }) {
            // Here, unlike at the start, Docker names the container as the client did.
            let text =
                format!("Container {} is paused, unpause the container before exec", reference.0);
            return Err(Error::new(Kind::Conflict, text));
        }
        can_exec(&entry)?;
        let keys = keys(config.detach_keys.as_deref()).ok_or_else(|| {
            let typed = config.detach_keys.clone().unwrap_or_default();
            let text = format!("Invalid escape keys ({typed}) provided");
            Error::new(Kind::InvalidArgument, text)
        })?;
        if config.cmd.is_empty() {
            return Err(Error::new(Kind::InvalidArgument, "No exec command specified"));
        }
        let id = ExecId::from_bytes(random());
        let exec =
            Exec { id: id.clone(), container: entry.id.clone(), config, state: ExecState::Created };
        let action = format!("exec_create: {}", command_line(&exec.config.cmd));
        {
            let mut known = self.0.execs.lock();
            if known.len() >= MAX {
                return Err(Error::new(Kind::Unavailable, "too many execs, try again later"));
            }
            known.insert(id.clone(), Known { exec, keys, since: Instant::now() });
        }
        entry.change(|container| container.exec_ids.push(id.clone()));
        self.publish(&entry.view(), &action, exec_attributes(&id));
        Ok(id)
    }

    /// Checks that an exec can be started, before the response head is sent; the exec counts as started from here on. A console's size
    /// (height, width) replaces the one given at its creation.
    ///
    /// # Errors
    /// If there is no such exec, if it ran already, or if its container does not run.
    pub fn exec_prepare(&self, id: &str, console_size: Option<[u32; 2]>) -> Result<ExecLaunch> {
        let container = self.0.execs.get(id, |known| known.exec.container.clone())?;
        let entry = self.entry(&(&container).into())?;
        can_exec(&entry)?;
        let (exec, keys) = self.0.execs.get(id, |known| {
            let conflict =
                |text: &str| Err(Error::new(Kind::Conflict, format!("exec command {id} {text}")));
            match known.exec.state {
                ExecState::Created => {
                    known.exec.state = ExecState::Starting;
                    Ok((known.exec.clone(), known.keys.clone()))
                }
                ExecState::Starting | ExecState::Running { .. } => conflict("is already running"),
                ExecState::Exited { .. } => conflict("has already run"),
            }
        })??;
        let action = format!("exec_start: {}", command_line(&exec.config.cmd));
        self.publish(&entry.view(), &action, exec_attributes(&exec.id));
        Ok(ExecLaunch {
            engine: self.clone(),
            entry,
            tty: exec.config.tty,
            console_size: console_size.or(exec.config.console_size),
            keys,
            exec,
        })
    }

    /// Changes the size of an exec's terminal.
    ///
    /// # Errors
    /// If there is no such exec, or it does not run.
    pub async fn exec_resize(&self, id: &str, height: u32, width: u32) -> Result<()> {
        let exec = self.exec_inspect(id)?;
        match exec.state {
            ExecState::Running { .. } | ExecState::Starting => {}
            ExecState::Created | ExecState::Exited { .. } => {
                let text = format!("exec process {id} is not running");
                return Err(Error::new(Kind::Conflict, text));
            }
        }
        let mut client = Client::connect(&self.task_dir(&exec.container)).await?;
        Ok(client.resize(exec.id.as_str(), height, width).await?)
    }

    /// Returns an exec as it stands.
    ///
    /// # Errors
    /// `No such exec instance: …`
    pub fn exec_inspect(&self, id: &str) -> Result<Exec> {
        self.0.execs.get(id, |known| known.exec.clone())
    }

    /// Returns an exec as it stands, its end included if the shim knows of one: a client that has just seen the stream's end asks
    /// for the exit code, and must not be faster than the journal.
    ///
    /// # Errors
    /// `No such exec instance: …`
    pub async fn exec_settled(&self, id: &str) -> Result<Exec> {
        let exec = self.exec_inspect(id)?;
        let Ok(entry) = self.entry(&(&exec.container).into()) else { return Ok(exec) };
        let mut view = entry.subscribe();
        // The shim has told the client of a failed start before it told us.
        let starting = || self.exec_inspect(id).is_ok_and(|exec| exec.state == ExecState::Starting);
        let _ = tokio::time::timeout(SETTLING, view.wait_for(|_| !starting())).await;
        let exec = self.exec_inspect(id)?;
        if !matches!(exec.state, ExecState::Running { .. }) {
            return Ok(exec);
        }
        let asked = async {
            let mut client = Client::connect(&self.task_dir(&exec.container)).await?;
            client.status(id).await
        };
        if !asked.await.is_ok_and(|status| status == TaskStatus::Stopped) {
            return self.exec_inspect(id);
        }
        let told = view.wait_for(|container| container.exec_ids.iter().all(|e| e.as_str() != id));
        let _ = tokio::time::timeout(SETTLING, told).await;
        self.exec_inspect(id)
    }

    /// Takes in an exec's end, and has the shim forget it.
    pub(super) fn exec_ended(&self, entry: &Arc<Entry>, id: &str, status: u32) {
        let Ok(id) = id.parse::<ExecId>() else { return };
        self.0.execs.end(&id, status);
        entry.change(|container| container.exec_ids.retain(|known| *known != id));
        let task = self.task_dir(&entry.id);
        tokio::spawn(async move {
            if let Ok(mut client) = Client::connect(&task).await
                && let Err(error) = client.delete(id.as_str()).await
            {
                tracing::debug!(exec = %id, %error, "the shim does not forget an exec");
            }
        });
    }

    /// The container has ended, and with it every process in it.
    pub(super) fn end_execs(&self, entry: &Entry) {
        let ids = entry.change(|container| std::mem::take(&mut container.exec_ids));
        for id in ids {
            self.0.execs.end(&id, 137);
        }
    }

    /// The container is gone, and nobody can ask for its execs.
    pub(super) fn forget_execs(&self, entry: &Entry) {
        self.0.execs.lock().retain(|_, known| known.exec.container != entry.id);
    }

    /// Forgets execs that ended some time ago, for as long as the engine lives.
    pub(super) fn collect_execs(&self) {
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(COLLECTION).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.execs.forget_old();
            }
        });
    }
}

impl ExecLaunch {
    /// Runs it. An attached one gets the client's connection (after the response head) and what the client sent early; the shim
    /// alone speaks to the client from then on. Without a client it is detached.
    ///
    /// # Errors
    /// What the runtime says. If a client was given, its connection has been told as well (a stream of text) and closed.
    pub async fn run(self, client: Option<(OwnedFd, Vec<u8>)>) -> Result<()> {
        // In a task of its own: a client that hangs up must not leave an exec that is neither running nor ended.
        tokio::spawn(self.run_to_the_end(client)).await.map_err(Error::lost)?
    }

    async fn run_to_the_end(self, client: Option<(OwnedFd, Vec<u8>)>) -> Result<()> {
        match self.start(client).await {
            Ok(pid) => {
                let _ = self.engine.0.execs.get(self.exec.id.as_str(), |known| {
                    // Its end may have been faster than our answer.
                    if known.exec.state == ExecState::Starting {
                        known.exec.state = ExecState::Running { pid };
                    }
                });
                // Whoever waits for the start to be over looks again.
                self.entry.change(|_| {});
                Ok(())
            }
            Err((error, client)) => {
                let text = error.whole();
                let status = if exit_code_of(&text).0 == 127 { 127 } else { 126 };
                self.engine.0.execs.end(&self.exec.id, status);
                let id = &self.exec.id;
                self.entry.change(|container| container.exec_ids.retain(|known| known != id));
                if let Some(client) = client {
                    tell(client, &text, self.tty);
                }
                Err(error)
            }
        }
    }

    /// Hands the exec to the shim and starts it. A client that comes back with an error has not been told: the shim does
    /// not know it.
    async fn start(
        &self,
        client: Option<(OwnedFd, Vec<u8>)>,
    ) -> Result<u32, (Error, Option<OwnedFd>)> {
        let task = self.engine.task_dir(&self.entry.id);
        let id = self.exec.id.as_str();
        let config = &self.exec.config;
        let attached = client.is_some();
        let streams = client::Streams {
            stdin: config.attach_stdin && attached,
            stdout: config.attach_stdout && attached,
            stderr: config.attach_stderr && attached,
        };
        let added = async {
            let process = self.process().await?;
            let mut shim = Client::connect(&task).await?;
            shim.exec(id, process, config.tty, streams).await?;
            Ok::<_, Error>(shim)
        };
        let (mut shim, client) = match added.await {
            Ok(shim) => (shim, client),
            Err(error) => return Err((error, client.map(|(client, _)| client))),
        };
        let started = async {
            if let Some((client, early_stdin)) = client {
                let attach = Attach {
                    exec_id: id.to_owned(),
                    stdin: streams.stdin,
                    stdout: streams.stdout,
                    stderr: streams.stderr,
                    logs: false,
                    stream: true,
                    detach_keys: self.keys.clone(),
                    early_stdin,
                };
                client::attach(&task, attach, client).await?;
            }
            shim.start(id).await
        };
        match started.await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                let _ = shim.delete(id).await;
                let suffix = exit_code_of(&error.to_string()).1;
                let kind = match &error {
                    crate::task::Error::Shim { .. } => Kind::InvalidArgument,
                    _ => error.kind(),
                };
                Err((Error::new(kind, format!("{error}{suffix}")), None))
            }
        }
    }

    /// The OCI process: what the container's own would be with the exec's command, user and environment.
    async fn process(&self) -> Result<Vec<u8>> {
        let (engine, entry) = (self.engine.clone(), Arc::clone(&self.entry));
        let (exec, size) = (self.exec.config.clone(), self.console_size);
        let built = tokio::task::spawn_blocking(move || {
            let mut process = engine.exec_process(&entry, &exec)?;
            if let Some([height, width]) = size.filter(|_| exec.tty) {
                let size = BoxBuilder::default().height(height).width(width).build();
                process.set_console_size(size.ok());
            }
            serde_json::to_vec(&process).map_err(|error| {
                Error::with_source(Kind::Internal, "cannot render a process", error)
            })
        });
        built.await.map_err(Error::lost)?
    }
}

impl Engine {
    fn exec_process(&self, entry: &Entry, exec: &ExecConfig) -> Result<Process> {
        let view = entry.view();
        let mut record = crate::container::Record::clone(&view.record);
        let config = &mut record.config;
        config.tty = exec.tty;
        config.env = Some(merged(config.env.take().unwrap_or_default(), &exec.env));
        if !exec.user.is_empty() {
            config.user.clone_from(&exec.user);
        }
        if !exec.working_dir.is_empty() {
            config.working_dir.clone_from(&exec.working_dir);
        }
        // The container's privileges are the container's; an exec may have more, not fewer.
        record.host_config.privileged |= exec.privileged;
        record.host_config.init = Some(false);
        let mut words = exec.cmd.iter().cloned();
        record.path = words.next().unwrap_or_default();
        record.args = words.collect();
        let root = format!("/proc/{}/root", view.state.pid());
        let read_file = |path: &str| read_inside(&root, path);
        let shared = self.shared_namespaces(&view.record)?;
        let input = self.spec_input(&record, &record.config, &shared, Vec::new(), &read_file);
        let built = spec::build(&input)?;
        built.process().clone().ok_or_else(|| Error::new(Kind::Internal, "a spec has no process"))
    }
}

/// Reads a small regular file of a container that runs, without following a link out of its root.
fn read_inside(root: &str, path: &str) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let root = std::fs::File::open(root)?;
    let below = std::path::Path::new(path.trim_start_matches('/'));
    // Not blocking: a FIFO called passwd must not hang anybody.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = cleat_sys::openat2::open_in_root(&root, below, flags, 0);
    let file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts `more` over `env`: a key that is there is replaced in its place.
fn merged(mut env: Vec<String>, more: &[String]) -> Vec<String> {
    for entry in more {
        let key = entry.split('=').next().unwrap_or_default();
        let same = |known: &&mut String| known.split('=').next() == Some(key);
        match env.iter_mut().find(same) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    env
}

fn can_exec(entry: &Entry) -> Result<()> {
    match entry.view().state.decide(Command::Exec) {
        Ok(_) => Ok(()),
        Err(Refusal::BeingRemoved) => Err(refusal(entry, Refusal::NotRunning)),
        Err(why) => Err(refusal(entry, why)),
    }
}

fn exec_attributes(id: &ExecId) -> super::Attributes {
    [("execID".to_owned(), id.as_str().to_owned())].into()
}

/// Tells a client, whose response head is out already, why nothing comes: as text on stdout, as Docker does.
fn tell(client: OwnedFd, text: &str, tty: bool) {
    let mut client = std::os::unix::net::UnixStream::from(client);
    let text = format!("{text}\r\n");
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if !tty {
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(text.as_bytes());
    // A line fits any socket's buffer; a client that left none free does not get it.
    let _ = client.write_all(&bytes);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execs_environment_goes_over_the_containers() {
        let env = ["A=1", "B=2"].map(str::to_owned).to_vec();
        let more = ["B=3", "C=4"].map(str::to_owned);
        assert_eq!(merged(env, &more), ["A=1", "B=3", "C=4"]);
    }
}
