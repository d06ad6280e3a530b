//! Health probes: execs that the supervisor starts, ends and forgets by itself, and whose results go to the journal.

use std::{fs, io::Read};

use cleat_proto::{journal::What, shim::STREAM_URI};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use super::{Event, Supervisor, exec::ExecLaunch, lifecycle::send};
use crate::{
    cgroup::Cgroup,
    error::Error,
    health::{Due, Probe},
    journal::nanos,
    logger::Source,
    output::{Sink, Target},
    process::Process,
    reaper::Exit,
    state::State,
    stdio::{OurEnds, Uris},
};

impl Supervisor {
    /// The container's first process runs, or runs again.
    pub(super) fn begin_probing(&mut self) {
        if let Some(health) = self.container.as_mut().and_then(|c| c.health.as_mut()) {
            health.begin(Instant::now());
        }
    }

    /// The container is paused or has ended.
    pub(super) fn suspend_probing(&mut self) {
        let health = self.container.as_mut().and_then(|c| c.health.as_mut());
        if let Some(exec_id) = health.and_then(|health| health.suspend()) {
            self.kill_probe(&exec_id);
        }
    }

    /// The container is paused no more.
    pub(super) fn resume_probing(&mut self) {
        if let Some(health) = self.container.as_mut().and_then(|c| c.health.as_mut()) {
            health.resume(Instant::now());
        }
    }

    /// Does what is due, if something is.
    pub(super) fn on_health_timer(&mut self, now: Instant) {
        let Some(health) = self.container.as_mut().and_then(|c| c.health.as_mut()) else { return };
        match health.due(now) {
            None => {}
            Some(Due::Probe) => self.probe(now),
            Some(Due::Kill(exec_id)) => self.kill_probe(&exec_id),
            Some(Due::Wedged) => {
                let text =
                    format!("timed out starting health check for container {}", self.identity.id);
                if let Some(probe) = health.take_any() {
                    self.found(&probe, -1, text);
                }
            }
        }
    }

    fn probe(&mut self, now: Instant) {
        let exec_id = match random_id() {
            Ok(exec_id) => exec_id,
            // There will be random bytes later.
            Err(_) => return self.resume_probing(),
        };
        let Some(container) = &mut self.container else { return };
        let Some(health) = &mut container.health else { return };
        let output = health.probing(exec_id.clone(), now);
        let spec = health.process().to_vec();
        container.note(What::Probing { exec_id: exec_id.clone() });
        let directory = container.directory.clone();
        let uris = Uris {
            stdout: STREAM_URI.to_owned(),
            stderr: STREAM_URI.to_owned(),
            ..Uris::default()
        };
        let place = self.place(&directory);
        let mut process = Process::new(exec_id.clone(), uris, State::Added, true, place);
        process.probe = Some(output);
        self.specs.insert(exec_id.clone(), spec);
        self.execs.insert(exec_id.clone(), process);
        match self.begin_exec(&exec_id) {
            Err(error) => self.on_probe_failed(&exec_id, &error),
            Ok(launch) => self.launch_probe(exec_id, launch),
        }
    }

    fn launch_probe(&mut self, exec_id: String, launch: ExecLaunch) {
        self.births += 1;
        self.beside(async move {
            let result = launch.run().await;
            Event::ProbeStarted { exec_id, result }
        });
    }

    pub(super) fn on_probe_started(
        &mut self,
        exec_id: &str,
        result: Result<(u32, OurEnds), Error>,
    ) {
        let (pid, ends) = match result {
            Ok(born) => born,
            Err(error) => {
                self.birth_over();
                return self.on_probe_failed(exec_id, &error);
            }
        };
        let early = self.take_early(pid);
        let health = self.container.as_mut().and_then(|c| c.health.as_mut());
        let is_wanted = health.is_some_and(|health| health.running(exec_id, Instant::now()));
        let later = self.later.clone();
        if let Some(process) = self.execs.get_mut(exec_id) {
            process.state = State::Running { pid };
            let sinks = process.probe.iter().flat_map(|output| {
                [Source::Stdout, Source::Stderr]
                    .map(|source| Sink { source, target: Target::Memory(output.clone()) })
            });
            let sinks = sinks.collect();
            process.connect(ends, None, sinks, &later);
            if let Some(exit) = early {
                return process.ends(exit, Instant::now() + super::LAST_WORDS);
            }
        }
        if !is_wanted {
            self.kill_probe(exec_id);
        }
    }

    fn on_probe_failed(&mut self, exec_id: &str, error: &Error) {
        self.forget_probe(exec_id);
        let health = self.container.as_mut().and_then(|c| c.health.as_mut());
        if let Some(probe) = health.and_then(|health| health.take(exec_id)) {
            self.found(&probe, -1, error.to_string());
        }
    }

    /// The probe's process has ended, and everything it said has been read.
    pub(super) fn conclude_probe(&mut self, exec_id: &str, exit: Exit) {
        self.forget_probe(exec_id);
        let Some(container) = &mut self.container else { return };
        container.note(What::ProbeExited { exec_id: exec_id.to_owned(), status: exit.status });
        let Some(health) = &mut container.health else { return };
        if let Some(probe) = health.take(exec_id) {
            let (exit_code, text) = health.outcome(&probe, exit.status);
            self.found(&probe, exit_code, text);
        }
    }

    fn forget_probe(&mut self, exec_id: &str) {
        self.execs.remove(exec_id);
        self.execs.shrink_to_fit();
        self.specs.remove(exec_id);
    }

    fn found(&mut self, probe: &Probe, exit_code: i32, output: String) {
        let Some(container) = &mut self.container else { return };
        let Some(health) = &mut container.health else { return };
        let (health, failing_streak) = health.found(probe, exit_code, Instant::now());
        let started_at_nanos = nanos(probe.started_at);
        container.note(What::Probed {
            started_at_nanos,
            exit_code,
            output,
            health,
            failing_streak,
        });
    }

    /// Kills a probe and what it has started.
    fn kill_probe(&mut self, exec_id: &str) {
        let Some(process) = self.execs.get(exec_id) else { return };
        let Ok(pid) = process.state.signal_target() else { return };
        if let Some(container) = &self.container {
            kill_family(pid, &container.cgroup);
        }
        // It has just ended, then.
        let _ = send(pid, Signal::SIGKILL as u32);
    }
}

/// Kills those who descend from `ancestor`, itself not. It is stopped first, so that it starts no others meanwhile.
fn kill_family(ancestor: u32, cgroup: &Cgroup) {
    // It has just ended, then, and its children are somebody else's.
    let _ = send(ancestor, Signal::SIGSTOP as u32);
    let parents: Vec<(u32, u32)> =
        cgroup.pids().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut family = vec![ancestor];
    let mut known = 0;
    while known < family.len() {
        let parent = family[known];
        known += 1;
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|&(pid, _)| pid);
        family.extend(children.collect::<Vec<_>>());
    }
    for &pid in &family[1..] {
        // It is the container's still: nobody but its own parent, which is stopped or one of these, may bury it.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in front may hold anything, blanks and parentheses included.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Returns an exec's id: 64 hex digits.
fn random_id() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
