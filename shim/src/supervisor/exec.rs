//! Execs: processes added to a running container. When one is deleted, nothing of it is left.

use cleat_proto::{
    containerd::{
        events::{TaskExecAdded, TaskExecStarted},
        task::v3::{DeleteResponse, ExecProcessRequest},
    },
    journal::What,
    shim::PROCESS_TYPE_URL,
};
use tokio::time::Instant;

use super::{Event, LAST_WORDS, Supervisor, Worker, answer, container::Directory, never_ran};
use crate::{
    error::Error,
    process::{Process, Reply},
    reaper::Reaper,
    runtime::{Birth, Runtime},
    state::State,
    stdio::{self, OurEnds, Uris},
};

/// An exec that waits to be started: the process as JSON.
pub type Spec = Vec<u8>;

impl Supervisor {
    pub(super) fn exec(&mut self, request: ExecProcessRequest) -> Result<(), Error> {
        let spec = request.spec.unwrap_or_default();
        if spec.type_url.rsplit('/').next() != PROCESS_TYPE_URL.rsplit('/').next() {
            return Err(Error::Invalid(format!(
                "unknown type {:?} of an exec's process",
                spec.type_url
            )));
        }
        if self.execs.contains_key(&request.exec_id) {
            return Err(Error::Exists(request.exec_id));
        }
        let container = self.container()?;
        if !matches!(container.process.state, State::Running { .. }) {
            return Err(container.process.state.refuse("exec in"));
        }
        let directory = container.directory.clone();
        let uris = Uris {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let place = self.place(&directory);
        let process = Process::new(request.exec_id.clone(), uris, State::Added, true, place);
        self.specs.insert(request.exec_id.clone(), spec.value);
        self.execs.insert(request.exec_id.clone(), process);
        self.publish(
            "/tasks/exec-added",
            "containerd.events.TaskExecAdded",
            &TaskExecAdded { container_id: self.identity.id.clone(), exec_id: request.exec_id },
        );
        Ok(())
    }

    pub(super) fn start_exec(&mut self, exec_id: String, reply: Reply<u32>) {
        match self.begin_exec(&exec_id) {
            Err(error) => answer(reply, Err(error)),
            Ok(launch) => {
                self.births += 1;
                self.beside(async move {
                    let result = launch.run().await;
                    Event::ExecStarted { exec_id, result, reply }
                });
            }
        }
    }

    pub(super) fn begin_exec(&mut self, exec_id: &str) -> Result<ExecLaunch, Error> {
        let Worker { runtime, reaper, id, .. } = self.worker()?;
        let directory = self.container()?.directory.clone();
        let process = self.process(exec_id)?;
        if process.state != State::Added {
            return Err(process.state.refuse("start"));
        }
        process.state = State::Starting { pid: None, ended: None };
        let uris = process.uris.clone();
        let spec = self.specs.remove(exec_id).unwrap_or_default();
        self.exec_count += 1;
        Ok(ExecLaunch { runtime, reaper, id, directory, uris, spec, number: self.exec_count })
    }

    pub(super) fn on_exec_started(
        &mut self,
        exec_id: &str,
        result: Result<(u32, OurEnds), Error>,
        reply: Reply<u32>,
    ) {
        let (pid, ends) = match result {
            Ok(born) => born,
            Err(error) => return self.on_exec_failed(exec_id, error, reply),
        };
        let early = self.take_early(pid);
        let later = self.later.clone();
        let (id, namespace) = (self.identity.id.clone(), self.identity.namespace.clone());
        let Ok(process) = self.process(exec_id) else { return };
        process.state = State::Running { pid };
        // Its output is then read and dropped.
        let sinks = stdio::open_sinks(&process.uris, &id, &namespace).unwrap_or_default();
        process.connect(ends, None, sinks, &later);
        if let Some(exit) = early {
            process.ends(exit, Instant::now() + LAST_WORDS);
        }
        let exec_id = exec_id.to_owned();
        self.publish(
            "/tasks/exec-started",
            "containerd.events.TaskExecStarted",
            &TaskExecStarted { container_id: id, exec_id, pid },
        );
        answer(reply, Ok(pid));
    }

    fn on_exec_failed(&mut self, exec_id: &str, error: Error, reply: Reply<u32>) {
        self.birth_over();
        let later = self.later.clone();
        if let Ok(process) = self.process(exec_id) {
            process.failed(never_ran(255), &error, &later);
        }
        answer(reply, Err(error));
    }

    pub(super) fn conclude_exec(&mut self, exec_id: &str) {
        let Ok(process) = self.process(exec_id) else { return };
        let State::Ending(exit) = process.state else { return };
        process.stopped(exit);
        if process.probe.is_some() {
            return self.conclude_probe(exec_id, exit);
        }
        if exit.pid == 0 {
            return;
        }
        if let Some(container) = &mut self.container {
            container.note(What::ExecExited { exec_id: exec_id.to_owned(), status: exit.status });
        }
        self.publish_exit(exec_id, exit);
    }

    pub(super) fn delete_exec(&mut self, exec_id: &str) -> Result<DeleteResponse, Error> {
        let process = self.process(exec_id)?;
        let exit = match process.state {
            State::Stopped(exit) => exit,
            // It never ran; that its client is still being told need not hold anybody up.
            State::Ending(exit) if exit.pid == 0 => exit,
            State::Added => never_ran(0),
            ref state => return Err(state.refuse("delete")),
        };
        process.ends(exit, Instant::now());
        self.execs.remove(exec_id);
        self.execs.shrink_to_fit();
        self.specs.remove(exec_id);
        Ok(self.publish_delete(exec_id, exit))
    }

    pub(super) fn kill_exec(&mut self, exec_id: &str, signal: u32) -> Result<(), Error> {
        let pid = self.process(exec_id)?.state.signal_target()?;
        super::lifecycle::send(pid, signal)
    }
}

pub(super) struct ExecLaunch {
    runtime: Runtime,
    reaper: Reaper,
    id: String,
    directory: Directory,
    uris: Uris,
    spec: Spec,
    number: u64,
}

impl ExecLaunch {
    pub(super) async fn run(&self) -> Result<(u32, OurEnds), Error> {
        let (child, ends) = stdio::open(&self.uris, false, &self.directory.file)
            .map_err(Error::io("cannot make the standard streams"))?;
        let name = format!("exec-{}", self.number);
        let birth =
            Birth { id: &self.id, directory: &self.directory.path, name: &name, ends: child };
        let born = self.runtime.exec(&self.reaper, birth, &self.spec).await?;
        let ends = match born.terminal {
            Some(master) => {
                stdio::terminal_ends(master).map_err(Error::io("cannot use the terminal"))?
            }
            None => ends,
        };
        Ok((born.pid, ends))
    }
}
