//! The life of the container's first process: create, start, freeze, end, restart, stop, delete.

use std::{sync::Arc, time::Duration};

use cleat_proto::{
    containerd::{
        events::{
            TaskCreate, TaskDelete, TaskExit, TaskIo, TaskOom, TaskPaused, TaskResumed, TaskStart,
        },
        task::v3::{CreateTaskRequest, DeleteResponse},
    },
    exit,
    journal::What,
    shim_v1,
};
use cleat_sys::pidfd::PidFd;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use super::{
    Event, LAST_WORDS, Supervisor, Worker, answer,
    container::{Container, Directory, Launch, Launched, Stop, Wishes},
    is_over, never_ran,
};
use crate::{
    backlog::Place,
    cgroup::Cgroup,
    error::Error,
    events::timestamp,
    health::Monitor,
    journal::{Journal, nanos},
    oom,
    process::{Process, Reply},
    proxy::Proxy,
    reaper::Exit,
    restart_policy::RestartPolicy,
    state::State,
    stdio::Uris,
};

/// The highest real-time signal (`signal(7)`).
const LAST_SIGNAL: i32 = 64;

impl Supervisor {
    pub(super) fn create(&mut self, request: CreateTaskRequest, reply: Reply<u32>) {
        match self.begin(request) {
            Err(error) => answer(reply, Err(error)),
            Ok(launch) => {
                self.births += 1;
                self.beside(async move {
                    let result = match launch.mount_rootfs() {
                        Ok(()) => launch.create().await,
                        Err(error) => Err(error),
                    };
                    Event::Created { result, reply }
                });
            }
        }
    }

    fn begin(&mut self, request: CreateTaskRequest) -> Result<Launch, Error> {
        if self.container.is_some() {
            return Err(Error::Exists(request.id));
        }
        if !request.checkpoint.is_empty() {
            return Err(Error::Unsupported("restoring from a checkpoint"));
        }
        let Wishes { runtime, orders } = Wishes::read(&request, &self.identity.namespace)?;
        let bundle = if request.bundle.is_empty() {
            self.identity.bundle.clone()
        } else {
            request.bundle.into()
        };
        let directory =
            Directory::open(orders.as_ref().map_or(&bundle, |orders| orders.state_dir.as_ref()))?;
        let journal = orders.is_some().then(|| Journal::open(&directory.path)).transpose();
        let journal = journal.map_err(Error::io("cannot open the journal"))?;
        let orders = orders.unwrap_or_default();
        let proxy = Proxy::start(&orders.published, std::mem::take(&mut self.published))?;
        let mut policy = RestartPolicy::default();
        policy.set(&orders.restart.unwrap_or_default());
        let uris = Uris {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let place = self.place(&directory);
        self.container = Some(Container {
            process: Process::new(String::new(), uris, State::Creating, orders.stdin_once, place),
            runtime,
            bundle,
            rootfs: request.rootfs,
            directory,
            log: orders.log.filter(|log| log.driver == "json-file"),
            policy,
            stop_signal: orders.stop_signal,
            suppressed: false,
            by_hand: false,
            journal,
            cgroup: Arc::default(),
            kept: None,
            oom_killed: false,
            oom_watch: None,
            started_at: None,
            restart_at: None,
            restarting: false,
            stop: None,
            health: orders.health.map(|check| Box::new(Monitor::new(check))),
            proxy,
            deleting: Vec::new(),
        });
        self.launch()
    }

    pub(super) fn place(&self, directory: &Directory) -> Place {
        Place { directory: directory.path.clone(), unfinished: self.unfinished.clone() }
    }

    fn launch(&mut self) -> Result<Launch, Error> {
        let (identity, reaper) = (self.identity.clone(), self.reaper.clone());
        let container = self.container()?;
        Ok(Launch {
            identity,
            runtime: container.runtime.clone(),
            reaper,
            directory: container.directory.clone(),
            bundle: container.bundle.clone(),
            rootfs: container.rootfs.clone(),
            uris: container.process.uris.clone(),
            log: container.log.clone(),
            kept: container.kept.clone(),
        })
    }

    pub(super) fn on_created(&mut self, result: Result<Launched, Error>, reply: Reply<u32>) {
        match result {
            Err(error) => {
                self.birth_over();
                self.container = None;
                answer(reply, Err(error));
            }
            Ok(launched) => {
                let pid = launched.pid;
                let ended = self.adopt(launched);
                self.publish_create(pid);
                answer(reply, Ok(pid));
                if let Some(exit) = ended {
                    self.on_container_exit(exit);
                }
            }
        }
    }

    /// Takes over what was created; returns its end if that has come already.
    fn adopt(&mut self, launched: Launched) -> Option<Exit> {
        let early = self.take_early(launched.pid);
        let later = self.later.clone();
        let container = self.container.as_mut()?;
        container.started_at = None;
        container.cgroup = Arc::new(launched.cgroup);
        container.kept = launched.kept.map(Arc::new);
        container.oom_killed = false;
        container.process.state = State::Created { pid: launched.pid };
        container.process.connect(launched.ends, launched.log, launched.sinks, &later);
        early
    }

    pub(super) fn start(&mut self, reply: Reply<u32>) {
        let pid = match self.container().map(|container| &mut container.process.state) {
            Ok(state @ State::Created { .. }) => {
                let pid = state.pid();
                *state = State::Starting { pid, ended: None };
                Ok(())
            }
            Ok(state) => Err(state.refuse("start")),
            Err(error) => Err(error),
        };
        match pid.and_then(|()| self.worker()) {
            Err(error) => answer(reply, Err(error)),
            Ok(Worker { runtime, reaper, id, kept }) => self.beside(async move {
                let result = runtime.start(&reaper, &id, kept.as_deref()).await;
                Event::Started { result, reply }
            }),
        }
    }

    pub(super) fn on_started(&mut self, result: Result<(), Error>, reply: Reply<u32>) {
        let Some(container) = &mut self.container else { return };
        let State::Starting { pid: Some(pid), ended } = container.process.state else {
            return answer(reply, Err(container.process.state.refuse("start")));
        };
        container.process.state =
            if result.is_ok() { State::Running { pid } } else { State::Created { pid } };
        if let Err(error) = result {
            answer(reply, Err(error));
        } else {
            self.note_started(pid);
            answer(reply, Ok(pid));
        }
        if let Some(exit) = ended {
            self.on_container_exit(exit);
        }
    }

    fn note_started(&mut self, pid: u32) {
        let later = self.later.clone();
        let Some(container) = &mut self.container else { return };
        container.started_at = Some(Instant::now());
        let restart_count = container.policy.count();
        container.note(What::Started { pid, restart_count });
        container.oom_watch =
            Some(tokio::spawn(watch_oom(Arc::clone(&container.cgroup), pid, later)).abort_handle());
        self.begin_probing();
        self.publish(
            "/tasks/start",
            "containerd.events.TaskStart",
            &TaskStart { container_id: self.identity.id.clone(), pid },
        );
    }

    pub(super) fn on_oom(&mut self, pid: u32) {
        let Some(container) = &mut self.container else { return };
        if container.process.state.pid() == Some(pid) {
            container.oom_killed = true;
            container.note(What::Oom);
            self.publish(
                "/tasks/oom",
                "containerd.events.TaskOOM",
                &TaskOom { container_id: self.identity.id.clone() },
            );
        }
    }

    /// Freezes or thaws.
    pub(super) fn freeze(&mut self, pause: bool, reply: Reply<()>) {
        let allowed = match self.container().map(|container| &container.process.state) {
            Ok(State::Running { .. }) if pause => Ok(()),
            Ok(State::Paused { .. }) if !pause => Ok(()),
            Ok(state) => Err(state.refuse(if pause { "pause" } else { "resume" })),
            Err(error) => Err(error),
        };
        match allowed {
            Ok(()) => self.freeze_beside(pause, Some(reply)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn freeze_beside(&mut self, pause: bool, reply: Option<Reply<()>>) {
        let Ok(Worker { runtime, reaper, id, .. }) = self.worker() else { return };
        self.beside(async move {
            let result = if pause {
                runtime.pause(&reaper, &id).await
            } else {
                runtime.resume(&reaper, &id).await
            };
            Event::Frozen { paused: pause, result, reply }
        });
    }

    pub(super) fn on_frozen(
        &mut self,
        paused: bool,
        result: Result<(), Error>,
        reply: Option<Reply<()>>,
    ) {
        if let (Ok(()), Some(container)) = (&result, &mut self.container) {
            let changed = match container.process.state {
                State::Running { pid } if paused => Some(State::Paused { pid }),
                State::Paused { pid } if !paused => Some(State::Running { pid }),
                _ => None,
            };
            if let Some(state) = changed {
                container.process.state = state;
                container.note(if paused { What::Paused } else { What::Resumed });
                if paused {
                    self.suspend_probing();
                } else {
                    self.resume_probing();
                }
                let container_id = self.identity.id.clone();
                if paused {
                    self.publish(
                        "/tasks/paused",
                        "containerd.events.TaskPaused",
                        &TaskPaused { container_id },
                    );
                } else {
                    self.publish(
                        "/tasks/resumed",
                        "containerd.events.TaskResumed",
                        &TaskResumed { container_id },
                    );
                }
            }
        }
        if let Some(reply) = reply {
            answer(reply, result);
        }
    }

    pub(super) fn on_container_exit(&mut self, exit: Exit) {
        let Some(container) = &mut self.container else { return };
        if let State::Starting { ended, .. } = &mut container.process.state {
            *ended = Some(exit);
            return;
        }
        if let Some(watch) = container.oom_watch.take() {
            watch.abort();
        }
        // Without a PID namespace of its own the rest lives on: the container is over with its first process, though.
        if !container.kept.as_ref().is_some_and(|kept| kept.has_pid_namespace()) {
            send_all(&container.cgroup, Signal::SIGKILL as u32);
        }
        container.oom_killed |= container.cgroup.oom_kills() > 0;
        container.process.ends(exit, Instant::now() + LAST_WORDS);
        self.suspend_probing();
    }

    /// Decides what follows a run whose output has all been read.
    pub(super) fn conclude_run(&mut self) {
        let Some(container) = &mut self.container else { return };
        let State::Ending(exit) = container.process.state else { return };
        let again = match container.started_at {
            Some(started) if !container.suppressed => {
                container.policy.decide(exit.status, started.elapsed())
            }
            _ => None,
        };
        match again {
            Some(delay) => self.delay(exit, delay),
            None => self.conclude(exit, None),
        }
    }

    fn delay(&mut self, exit: Exit, delay: Duration) {
        let Some(container) = &mut self.container else { return };
        container.process.state = State::Delayed(exit);
        container.restart_at = Some(Instant::now() + delay);
        let delay_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let oom_killed = container.oom_killed;
        container.note(What::Restarting { status: exit.status, oom_killed, delay_millis });
    }

    pub(super) fn restart(&mut self) {
        let Some(container) = &mut self.container else { return };
        container.restart_at = None;
        container.restarting = true;
        let place = Place {
            directory: container.directory.path.clone(),
            unfinished: self.unfinished.clone(),
        };
        container.process.renew(place);
        let Ok(launch) = self.launch() else { return };
        self.births += 1;
        self.beside(async move { Event::Restarted { result: launch.again().await } });
    }

    pub(super) fn on_restarted(&mut self, result: Result<Launched, Error>) {
        let Some(container) = &mut self.container else { return };
        container.restarting = false;
        match result {
            Ok(launched) => {
                let pid = launched.pid;
                let ended = self.adopt(launched);
                if let Some(container) = &mut self.container {
                    container.process.state = State::Running { pid };
                }
                self.note_started(pid);
                if let Some(exit) = ended {
                    return self.on_container_exit(exit);
                }
                // It was told to stop meanwhile.
                if let Some(signal) = self
                    .container
                    .as_ref()
                    .and_then(|container| container.stop.as_ref())
                    .map(|stop| stop.signal)
                {
                    self.signal_container(signal);
                } else if self.container.as_ref().is_some_and(|container| container.suppressed) {
                    self.kill_container();
                }
            }
            Err(error) => {
                self.birth_over();
                let status = exit_status_of(&error);
                self.conclude(never_ran(status), Some(error.to_string()));
            }
        }
    }

    /// Ends the container for good: first on disk, then for those who wait.
    fn conclude(&mut self, exit: Exit, error: Option<String>) {
        let Some(container) = &mut self.container else { return };
        container.proxy.close();
        container.restart_at = None;
        if let Some(journal) = &mut container.journal {
            let record = exit::Exit {
                status: exit.status,
                exited_at_nanos: nanos(exit.at),
                oom_killed: container.oom_killed,
                pid: exit.pid,
                restart_count: container.policy.count(),
                error: error.clone(),
                by_hand: container.by_hand,
            };
            // The journal and Wait say the same; a full tmpfs must not keep them from it.
            let _ = journal.write_exit(&record);
            journal.append(What::Exited {
                status: exit.status,
                oom_killed: container.oom_killed,
                error,
                by_hand: container.by_hand,
            });
        }
        container.process.stopped(exit);
        for reply in container.stop.take().into_iter().flat_map(|stop| stop.replies) {
            answer(reply, Ok(()));
        }
        let delete = !container.deleting.is_empty();
        self.publish_exit(&self.identity.id, exit);
        if delete {
            self.delete_beside();
        }
    }

    pub(super) fn kill(&mut self, signal: u32, all: bool) -> Result<(), Error> {
        let container = self.container()?;
        let by_hand = signal == Signal::SIGKILL as u32
            || container.stop_signal == 0
            || container.stop_signal == signal;
        container.suppressed |= by_hand;
        container.by_hand |= by_hand;
        if let State::Delayed(exit) = container.process.state {
            if by_hand && !container.restarting {
                self.conclude(exit, None);
            }
            return Ok(());
        }
        let pid = container.process.state.signal_target()?;
        if all {
            send_all(&container.cgroup, signal);
        }
        send(pid, signal)?;
        self.thaw_for(signal);
        Ok(())
    }

    pub(super) fn stop(&mut self, request: &shim_v1::StopRequest, reply: Reply<()>) {
        let &shim_v1::StopRequest { signal, timeout_millis, by_daemon, .. } = request;
        let Some(container) = &mut self.container else {
            return answer(reply, Err(Error::NoContainer(self.identity.id.clone())));
        };
        if is_over(&container.process.state) {
            return answer(reply, Ok(()));
        }
        container.suppressed = true;
        container.by_hand |= !by_daemon;
        let deadline = timeout_millis.map(|millis| Instant::now() + Duration::from_millis(millis));
        let stop =
            container.stop.get_or_insert(Stop { signal, deadline: None, replies: Vec::new() });
        stop.signal = signal;
        stop.deadline = [stop.deadline, deadline].into_iter().flatten().min();
        stop.replies.push(reply);
        match container.process.state {
            State::Delayed(exit) if !container.restarting => self.conclude(exit, None),
            _ if timeout_millis == Some(0) => self.kill_container(),
            _ => self.signal_container(signal),
        }
    }

    fn signal_container(&mut self, signal: u32) {
        let target =
            self.container.as_ref().map(|container| container.process.state.signal_target());
        if let Some(Ok(pid)) = target {
            // It has just ended, then; or the signal does not exist, and the deadline will do it.
            let _ = send(pid, signal);
            self.thaw_for(signal);
        }
    }

    pub(super) fn kill_container(&mut self) {
        self.signal_container(Signal::SIGKILL as u32);
    }

    /// On cgroup v1 what is frozen does not even die.
    fn thaw_for(&mut self, signal: u32) {
        let paused = self
            .container
            .as_ref()
            .is_some_and(|container| matches!(container.process.state, State::Paused { .. }));
        if paused && signal == Signal::SIGKILL as u32 {
            self.freeze_beside(false, None);
        }
    }

    pub(super) fn delete(&mut self, reply: Reply<DeleteResponse>) {
        let Some(container) = &mut self.container else {
            return answer(reply, Err(Error::NoContainer(self.identity.id.clone())));
        };
        match container.process.state {
            State::Stopped(_) => {
                container.deleting.push(reply);
                if container.deleting.len() == 1 {
                    self.delete_beside();
                }
            }
            State::Created { .. } => {
                container.suppressed = true;
                container.deleting.push(reply);
                self.kill_container();
            }
            ref state => answer(reply, Err(state.refuse("delete"))),
        }
    }

    fn delete_beside(&mut self) {
        let Ok(Worker { runtime, reaper, id, kept }) = self.worker() else { return };
        self.beside(async move {
            Event::Deleted { result: runtime.delete(&reaper, &id, kept.as_deref()).await }
        });
    }

    pub(super) fn on_deleted(&mut self, result: Result<(), Error>) {
        let Some(container) = &mut self.container else { return };
        let replies = std::mem::take(&mut container.deleting);
        let exit = container.process.state.exit().unwrap_or_else(|| never_ran(0));
        if let Err(error) = result {
            let text = error.to_string();
            for reply in replies {
                answer(reply, Err(Error::Runtime { verb: "delete", message: text.clone() }));
            }
            return;
        }
        if !container.runtime.native && !container.rootfs.is_empty() {
            crate::rootfs::unmount_all(&container.bundle.join("rootfs"));
        }
        if let Some(journal) = container.journal.take() {
            journal.remove();
        }
        self.container = None;
        let response = self.publish_delete("", exit);
        for reply in replies {
            answer(reply, Ok(response));
        }
    }

    pub(super) fn set_restart_policy(
        &mut self,
        policy: &shim_v1::RestartPolicy,
    ) -> Result<(), Error> {
        let container = self.container()?;
        container.policy.set(policy);
        Ok(())
    }

    pub(super) fn publish(
        &self,
        topic: &'static str,
        type_url: &'static str,
        message: &impl prost::Message,
    ) {
        self.publisher.publish(topic, type_url, message);
    }

    /// Tells of a process's end; the first process goes by the container's own id.
    pub(super) fn publish_exit(&self, id: &str, exit: Exit) {
        self.publish(
            "/tasks/exit",
            "containerd.events.TaskExit",
            &TaskExit {
                container_id: self.identity.id.clone(),
                id: id.to_owned(),
                pid: exit.pid,
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)),
            },
        );
    }

    /// Tells that a process is deleted, and returns what its client is told; the first process has no id of its own.
    pub(super) fn publish_delete(&self, exec_id: &str, exit: Exit) -> DeleteResponse {
        let (pid, exit_status, exited_at) = (exit.pid, exit.status, Some(timestamp(exit.at)));
        self.publish(
            "/tasks/delete",
            "containerd.events.TaskDelete",
            &TaskDelete {
                container_id: self.identity.id.clone(),
                pid,
                exit_status,
                exited_at,
                id: exec_id.to_owned(),
            },
        );
        DeleteResponse { pid, exit_status, exited_at }
    }

    fn publish_create(&self, pid: u32) {
        let Some(container) = &self.container else { return };
        let uris = &container.process.uris;
        self.publish(
            "/tasks/create",
            "containerd.events.TaskCreate",
            &TaskCreate {
                container_id: self.identity.id.clone(),
                bundle: container.bundle.to_string_lossy().into_owned(),
                rootfs: container.rootfs.clone(),
                io: Some(TaskIo {
                    stdin: uris.stdin.clone(),
                    stdout: uris.stdout.clone(),
                    stderr: uris.stderr.clone(),
                    terminal: uris.terminal,
                }),
                checkpoint: String::new(),
                pid,
            },
        );
    }
}

impl Container {
    /// Adds to the journal, if our daemon wants one.
    pub fn note(&mut self, what: What) {
        if let Some(journal) = &mut self.journal {
            journal.append(what);
        }
    }
}

async fn watch_oom(
    cgroup: Arc<Cgroup>,
    pid: u32,
    later: tokio::sync::mpsc::UnboundedSender<Event>,
) {
    let Ok(Some(mut watch)) = oom::Watch::start(&cgroup) else { return };
    loop {
        tokio::select! {
            () = watch.next(&cgroup) => if later.send(Event::Oom { pid }).is_err() { return },
            () = later.closed() => return,
        }
    }
}

/// Sends `signal` to `pid`, which is a child of ours that we have not reaped: the number cannot be another's.
pub(super) fn send(pid: u32, signal: u32) -> Result<(), Error> {
    let number = i32::try_from(signal).ok().filter(|number| (1..=LAST_SIGNAL).contains(number));
    let number = number.ok_or_else(|| Error::Invalid(format!("invalid signal {signal}")))?;
    let pid = Pid::from_raw(pid.cast_signed());
    let sent = match Signal::try_from(number) {
        Ok(signal) => kill(pid, signal),
        // The real-time signals have no names.
        Err(_) => PidFd::open(pid).and_then(|process| process.send_signal(number)),
    };
    match sent {
        Ok(()) => Ok(()),
        Err(nix::Error::ESRCH) => Err(Error::Finished),
        Err(error) => Err(Error::io("cannot send the signal")(error.into())),
    }
}

fn send_all(cgroup: &Cgroup, signal: u32) {
    for pid in cgroup.pids() {
        // It may have ended meanwhile.
        let _ = send(pid, signal);
    }
}

/// The exit codes with which `docker run` tells the kinds of a failed start apart.
fn exit_status_of(error: &Error) -> u32 {
    let text = error.to_string();
    let has = |part| text.contains(part);
    if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        128
    }
}
