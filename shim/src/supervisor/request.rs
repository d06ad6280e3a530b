//! What may be asked of the supervisor.

use std::os::fd::OwnedFd;

use cleat_proto::{
    containerd::{
        task::v3::{
            ConnectResponse, CreateTaskRequest, DeleteResponse, ExecProcessRequest, PidsResponse,
            StateResponse, StatsResponse,
        },
        v1::types::ProcessInfo,
    },
    shim::{Attach, Follow, RESOURCES_TYPE_URL},
    shim_v1::{RestartPolicy, StopRequest},
};
use prost_types::Any;

use super::{Supervisor, Worker, answer, is_over};
use crate::{
    descriptor::Descriptor, error::Error, events::timestamp, journal::Watcher, process::Reply,
    reaper::Exit, state::State,
};

/// A request and where its answer goes. An empty `exec_id` means the container's first process.
pub enum Request {
    State { exec_id: String, reply: Reply<StateResponse> },
    Create { request: CreateTaskRequest, reply: Reply<u32> },
    Start { exec_id: String, reply: Reply<u32> },
    Delete { exec_id: String, reply: Reply<DeleteResponse> },
    Pids { reply: Reply<PidsResponse> },
    Pause { reply: Reply<()> },
    Resume { reply: Reply<()> },
    Kill { exec_id: String, signal: u32, all: bool, reply: Reply<()> },
    Exec { request: ExecProcessRequest, reply: Reply<()> },
    Resize { exec_id: String, columns: u32, rows: u32, reply: Reply<()> },
    CloseStdin { exec_id: String, reply: Reply<()> },
    Update { resources: Any, reply: Reply<()> },
    Wait { exec_id: String, reply: Reply<Exit> },
    Stats { reply: Reply<StatsResponse> },
    Connect { reply: Reply<ConnectResponse> },
    Shutdown { reply: Reply<()> },
    Stop { request: StopRequest, reply: Reply<()> },
    SetRestartPolicy { policy: RestartPolicy, reply: Reply<()> },
    Attach { wish: Attach, socket: OwnedFd, reply: Reply<()> },
    Follow { wish: Follow, socket: OwnedFd, reply: Reply<()> },
    Watch { after: u64, watcher: Watcher, reply: Reply<()> },
}

impl Supervisor {
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::State { exec_id, reply } => answer(reply, self.state(exec_id)),
            Request::Create { request, reply } => self.create(request, reply),
            Request::Start { exec_id, reply } if exec_id.is_empty() => self.start(reply),
            Request::Start { exec_id, reply } => self.start_exec(exec_id, reply),
            Request::Delete { exec_id, reply } if exec_id.is_empty() => self.delete(reply),
            Request::Delete { exec_id, reply } => answer(reply, self.delete_exec(&exec_id)),
            Request::Pids { reply } => answer(reply, self.pids()),
            Request::Pause { reply } => self.freeze(true, reply),
            Request::Resume { reply } => self.freeze(false, reply),
            Request::Kill { exec_id, signal, all, reply } if exec_id.is_empty() => {
                answer(reply, self.kill(signal, all))
            }
            Request::Kill { exec_id, signal, reply, .. } => {
                answer(reply, self.kill_exec(&exec_id, signal))
            }
            Request::Exec { request, reply } => answer(reply, self.exec(request)),
            Request::Resize { exec_id, columns, rows, reply } => {
                answer(reply, self.resize(&exec_id, columns, rows))
            }
            Request::CloseStdin { exec_id, reply } => {
                answer(reply, self.process(&exec_id).map(|process| process.close_stdin()))
            }
            Request::Update { resources, reply } => self.update(resources, reply),
            Request::Wait { exec_id, reply } => match self.process(&exec_id) {
                Ok(process) => process.wait(reply),
                Err(error) => answer(reply, Err(error)),
            },
            Request::Stats { reply } => answer(reply, self.stats()),
            Request::Connect { reply } => answer(reply, Ok(self.connect())),
            Request::Shutdown { reply } => self.shutdown(reply),
            Request::Stop { request, reply } => self.stop(&request, reply),
            Request::SetRestartPolicy { policy, reply } => {
                answer(reply, self.set_restart_policy(&policy))
            }
            Request::Attach { wish, socket, reply } => answer(reply, self.attach(wish, socket)),
            Request::Follow { wish, socket, reply } => answer(reply, self.follow(wish, socket)),
            Request::Watch { after, watcher, reply } => answer(reply, self.watch(after, watcher)),
        }
    }

    fn state(&mut self, exec_id: String) -> Result<StateResponse, Error> {
        let id = self.identity.id.clone();
        let bundle = self.container()?.bundle.to_string_lossy().into_owned();
        let process = self.process(&exec_id)?;
        let exit = process.state.exit();
        Ok(StateResponse {
            id,
            bundle,
            pid: process
                .state
                .pid()
                .or(exit.filter(|_| is_over(&process.state)).map(|exit| exit.pid))
                .unwrap_or(0),
            status: process.state.status().into(),
            stdin: process.uris.stdin.clone(),
            stdout: process.uris.stdout.clone(),
            stderr: process.uris.stderr.clone(),
            terminal: process.uris.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.filter(|_| is_over(&process.state)).map(|exit| timestamp(exit.at)),
            exec_id,
        })
    }

    /// A live task never has no processes: a stock containerd deletes such a task as leaked.
    fn pids(&mut self) -> Result<PidsResponse, Error> {
        let container = self.container()?;
        let mut pids = container.cgroup.pids();
        if pids.is_empty() {
            pids.extend(
                container.process.state.pid().or(container
                    .process
                    .state
                    .exit()
                    .map(|exit| exit.pid)),
            );
        }
        Ok(PidsResponse {
            processes: pids.into_iter().map(|pid| ProcessInfo { pid, info: None }).collect(),
        })
    }

    fn resize(&mut self, exec_id: &str, columns: u32, rows: u32) -> Result<(), Error> {
        let small = |size: u32| {
            u16::try_from(size)
                .map_err(|_| Error::Invalid(format!("a terminal cannot be {size} wide or high")))
        };
        let (columns, rows) = (small(columns)?, small(rows)?);
        self.process(exec_id)?.resize(columns, rows)
    }

    fn update(&mut self, resources: Any, reply: Reply<()>) {
        // Stock clients leave the prefix of the type out or write another.
        if resources.type_url.rsplit('/').next() != RESOURCES_TYPE_URL.rsplit('/').next() {
            return answer(
                reply,
                Err(Error::Invalid(format!("unknown type {:?} of resources", resources.type_url))),
            );
        }
        match self.worker() {
            Err(error) => answer(reply, Err(error)),
            Ok(Worker { runtime, reaper, id, .. }) => {
                tokio::spawn(async move {
                    answer(reply, runtime.update(&reaper, &id, &resources.value).await)
                });
            }
        }
    }

    fn stats(&mut self) -> Result<StatsResponse, Error> {
        let (type_url, value) = self.container()?.cgroup.stats();
        Ok(StatsResponse { stats: Some(Any { type_url: type_url.into(), value }) })
    }

    fn connect(&self) -> ConnectResponse {
        let task_pid = self
            .container
            .as_ref()
            .and_then(|container| container.process.state.pid())
            .unwrap_or(0);
        ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// As with stock shims: while there is a container, the request changes nothing.
    fn shutdown(&mut self, reply: Reply<()>) {
        self.done = self.container.is_none();
        answer(reply, Ok(()));
    }

    fn attach(&mut self, wish: Attach, socket: OwnedFd) -> Result<(), Error> {
        self.next_client += 1;
        let (id, later) = (self.next_client, self.later.clone());
        let process = self.process(&wish.exec_id)?;
        if matches!(process.state, State::Stopped(_) | State::Ending(_) | State::Delayed(_)) {
            return Err(process.state.refuse("attach to"));
        }
        process.attach(id, wish, client(socket)?, &later)
    }

    fn follow(&mut self, wish: Follow, socket: OwnedFd) -> Result<(), Error> {
        let container = self.container()?;
        let log =
            container.log.as_ref().ok_or(Error::Unsupported("logs that it does not write"))?;
        container.process.follow(log.path.clone().into(), wish, client(socket)?)
    }

    fn watch(&mut self, after: u64, watcher: Watcher) -> Result<(), Error> {
        let journal = self.container()?.journal.as_mut();
        journal.ok_or(Error::Unsupported("a journal without orders"))?.watch(after, watcher);
        Ok(())
    }
}

fn client(socket: OwnedFd) -> Result<Descriptor, Error> {
    Descriptor::new(socket).map_err(Error::io("cannot use the client's connection"))
}
