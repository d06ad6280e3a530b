//! The owner of the container's life. One loop owns all state; each event is handled to its end, and nothing waits in it:
//! what takes time runs beside it and comes back as an [`Event`].
//!
//! An exit is told in this order: `exit.json`, the journal, who waits, containerd's events. None of these is told before
//! everything the process said is in the log (or two seconds have passed: a child in the background may hold the pipe).

mod container;
mod exec;
mod lifecycle;
mod probe;
mod request;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    backlog::Unfinished,
    error::Error,
    events::Publisher,
    process::{Process, Reply},
    reaper::{Exit, Reaper},
    runtime::{Kept, Runtime},
    state::State,
    stdio::OurEnds,
};
pub use container::stock_runtime;
use container::{Container, Launched};
pub use request::Request;

/// How long output may still come after the process has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Who we serve.
#[derive(Clone, Debug)]
pub struct Identity {
    pub namespace: String,
    pub id: String,
    pub bundle: PathBuf,
}

/// What happened beside the loop.
pub enum Event {
    /// The runtime has created the container, or failed to.
    Created { result: Result<Launched, Error>, reply: Reply<u32> },
    /// It has let it go, or failed to.
    Started { result: Result<(), Error>, reply: Reply<u32> },
    /// The policy's restart is through.
    Restarted { result: Result<Launched, Error> },
    /// An exec has been started.
    ExecStarted { exec_id: String, result: Result<(u32, OurEnds), Error>, reply: Reply<u32> },
    /// A health probe has been started.
    ProbeStarted { exec_id: String, result: Result<(u32, OurEnds), Error> },
    /// The freezer has done its work.
    Frozen { paused: bool, result: Result<(), Error>, reply: Option<Reply<()>> },
    /// The runtime has nothing of the container any more.
    Deleted { result: Result<(), Error> },
    /// Everything a process said has been read.
    Drained { exec_id: String },
    /// A client left by the detach keys.
    Detached { exec_id: String },
    /// The OOM killer met a process of this run.
    Oom { pid: u32 },
}

/// See the module.
pub struct Supervisor {
    identity: Identity,
    container: Option<Container>,
    execs: HashMap<String, Process>,
    /// What execs that were not started yet are to run.
    specs: HashMap<String, exec::Spec>,
    exec_count: u64,
    requests: mpsc::Receiver<Request>,
    exits: mpsc::UnboundedReceiver<Exit>,
    events: mpsc::UnboundedReceiver<Event>,
    later: mpsc::UnboundedSender<Event>,
    reaper: Reaper,
    publisher: Publisher,
    /// How many runtimes are bringing processes into being…
    births: usize,
    /// …which may end before we know them.
    early: HashMap<u32, Exit>,
    next_client: u64,
    unfinished: Unfinished,
    /// The published ports' sockets, until the container is created.
    published: Vec<OwnedFd>,
    done: bool,
}

impl Supervisor {
    /// Makes one for `identity`. Needs the runtime.
    pub fn new(
        identity: Identity,
        requests: mpsc::Receiver<Request>,
        publisher: Publisher,
        unfinished: Unfinished,
        published: Vec<OwnedFd>,
    ) -> std::io::Result<Self> {
        let (adopted, exits) = mpsc::unbounded_channel();
        let (later, events) = mpsc::unbounded_channel();
        Ok(Self {
            identity,
            container: None,
            execs: HashMap::new(),
            specs: HashMap::new(),
            exec_count: 0,
            requests,
            exits,
            events,
            later,
            reaper: Reaper::start(adopted)?,
            publisher,
            births: 0,
            early: HashMap::new(),
            next_client: 0,
            unfinished,
            published,
            done: false,
        })
    }

    /// Serves until it is told to shut down.
    pub async fn run(mut self) {
        while !self.done {
            let timer = self.next_timer();
            select! {
                biased; // an exit that already happened outranks a request that assumes it did not
                Some(exit) = self.exits.recv() => self.on_exit(exit),
                Some(event) = self.events.recv() => self.on_event(event),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.on_timer(),
                request = self.requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
            }
        }
    }

    /// Stop deadline, restart delay and health probes.
    fn next_timer(&self) -> Option<Instant> {
        let container = self.container.as_ref()?;
        let deadline = container.stop.as_ref().and_then(|stop| stop.deadline);
        let health = container.health.as_ref().and_then(|health| health.timer());
        [deadline, container.restart_at, health].into_iter().flatten().min()
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        let Some(container) = &mut self.container else { return };
        if container.restart_at.is_some_and(|at| at <= now) {
            self.restart();
            return;
        }
        if let Some(stop) =
            container.stop.as_mut().filter(|stop| stop.deadline.is_some_and(|at| at <= now))
        {
            stop.deadline = None;
            self.kill_container();
        }
        self.on_health_timer(now);
    }

    fn on_exit(&mut self, exit: Exit) {
        let is_it = |process: &&mut Process| process.state.pid() == Some(exit.pid);
        if self.container.as_mut().map(|container| &mut container.process).filter(is_it).is_some() {
            self.on_container_exit(exit);
        } else if let Some(exec) = self.execs.values_mut().find(is_it) {
            exec.ends(exit, Instant::now() + LAST_WORDS);
        } else if self.births > 0 {
            self.early.insert(exit.pid, exit);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Created { result, reply } => self.on_created(result, reply),
            Event::Started { result, reply } => self.on_started(result, reply),
            Event::Restarted { result } => self.on_restarted(result),
            Event::ExecStarted { exec_id, result, reply } => {
                self.on_exec_started(&exec_id, result, reply)
            }
            Event::ProbeStarted { exec_id, result } => self.on_probe_started(&exec_id, result),
            Event::Frozen { paused, result, reply } => self.on_frozen(paused, result, reply),
            Event::Deleted { result } => self.on_deleted(result),
            Event::Drained { exec_id } => self.on_drained(&exec_id),
            Event::Detached { exec_id } => self.on_detached(exec_id),
            Event::Oom { pid } => self.on_oom(pid),
        }
    }

    fn on_drained(&mut self, exec_id: &str) {
        if exec_id.is_empty() {
            self.conclude_run();
        } else {
            self.conclude_exec(exec_id);
        }
    }

    fn on_detached(&mut self, exec_id: String) {
        if let Some(journal) =
            self.container.as_mut().and_then(|container| container.journal.as_mut())
        {
            journal.append(cleat_proto::journal::What::Detached { exec_id });
        }
    }

    /// Returns whether the process that was just born has ended already, and forgets the others when no birth is under way.
    fn take_early(&mut self, pid: u32) -> Option<Exit> {
        let exit = self.early.remove(&pid);
        self.birth_over();
        exit
    }

    fn birth_over(&mut self) {
        self.births -= 1;
        if self.births == 0 {
            self.early = HashMap::new();
        }
    }

    fn container(&mut self) -> Result<&mut Container, Error> {
        self.container.as_mut().ok_or_else(|| Error::NoContainer(self.identity.id.clone()))
    }

    fn process(&mut self, exec_id: &str) -> Result<&mut Process, Error> {
        if exec_id.is_empty() {
            return self.container().map(|container| &mut container.process);
        }
        self.execs.get_mut(exec_id).ok_or_else(|| Error::NoProcess(exec_id.to_owned()))
    }

    /// Runs `work` beside the loop; what it returns comes back as an event.
    fn beside(&self, work: impl Future<Output = Event> + Send + 'static) {
        let later = self.later.clone();
        tokio::spawn(async move {
            let event = work.await;
            // The supervisor has gone: nobody waits.
            let _ = later.send(event);
        });
    }

    fn worker(&mut self) -> Result<Worker, Error> {
        let reaper = self.reaper.clone();
        let id = self.identity.id.clone();
        let container = self.container()?;
        Ok(Worker { runtime: container.runtime.clone(), reaper, id, kept: container.kept.clone() })
    }
}

/// What a call of the runtime needs, by value: it is made beside the loop.
struct Worker {
    runtime: Runtime,
    reaper: Reaper,
    id: String,
    kept: Option<Arc<Kept>>,
}

/// Returns the exit of what never ran.
fn never_ran(status: u32) -> Exit {
    Exit { pid: 0, status, at: SystemTime::now() }
}

/// Tells `reply` what went wrong, or what came of it.
fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    // Who asked may have gone.
    let _ = reply.send(result);
}

fn is_over(state: &State) -> bool {
    matches!(state, State::Stopped(_))
}
