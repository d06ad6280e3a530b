//! From what the shim tells to where the container stands, and to the events that clients see. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use cleat_proto::journal::{Entry, Health as Status, What};

use super::{Container, State, health};

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Docker's name for it.
    pub action: Cow<'static, str>,
    /// What it adds to the container's attributes.
    pub attributes: BTreeMap<String, String>,
    /// When, in nanoseconds since the epoch.
    pub at_nanos: i64,
}

/// What the engine has to do besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing.
    None,
    /// The task has ended for good: commit, then tear down.
    Ended,
    /// An exec has ended.
    ExecEnded {
        /// Which.
        exec_id: String,
        /// How.
        status: u32,
    },
    /// A client left by the detach keys.
    Detached {
        /// From which process; empty for the first.
        exec_id: String,
    },
}

impl Container {
    /// Moves the container to where `entry` says it is now.
    pub fn follow(&mut self, entry: &Entry) -> (Vec<Happening>, Consequence) {
        self.run.journal_seq = entry.seq;
        let mut events = Vec::new();
        let mut tell = |action: Cow<'static, str>, attributes: BTreeMap<String, String>| {
            events.push(Happening { action, attributes, at_nanos: entry.at_nanos });
        };
        let mut consequence = Consequence::None;
        match &entry.what {
            What::Started { pid, restart_count } => {
                // The daemon's own start has told already.
                let told = *restart_count == 0 && self.state.pid() == *pid;
                self.state = State::Running { pid: *pid };
                self.run.restart_count = *restart_count;
                if !told {
                    self.run.started_at_nanos = entry.at_nanos;
                    self.run.oom_killed = false;
                    self.run.error.clear();
                    self.run.health.iter_mut().for_each(health::Health::begin);
                    tell("start".into(), BTreeMap::new());
                }
            }
            What::Restarting { status, oom_killed, .. } => {
                tell("die".into(), self.die_attributes(*status, entry.at_nanos));
                self.end(entry.at_nanos, *status, *oom_killed, None);
                self.state = State::Restarting;
            }
            What::Exited { status, oom_killed, error, by_hand } => {
                // Between two runs there was no process that could die once more.
                if self.state != State::Restarting {
                    tell("die".into(), self.die_attributes(*status, entry.at_nanos));
                }
                self.end(entry.at_nanos, *status, *oom_killed, error.as_deref());
                self.run.open = false;
                self.run.wanted &= !by_hand;
                self.state = State::Exited;
                consequence = Consequence::Ended;
            }
            What::Oom => {
                self.run.oom_killed = true;
                tell("oom".into(), BTreeMap::new());
            }
            What::Paused => {
                if let State::Running { pid } = self.state {
                    self.state = State::Paused { pid };
                    tell("pause".into(), BTreeMap::new());
                }
                // The daemon's own pause was told before.
                self.run.health.iter_mut().for_each(health::Health::suspend);
            }
            What::Resumed => {
                if let State::Paused { pid } = self.state {
                    self.state = State::Running { pid };
                    tell("unpause".into(), BTreeMap::new());
                }
            }
            What::ExecExited { exec_id, status } => {
                tell("exec_die".into(), exec_die_attributes(exec_id, *status));
                consequence = Consequence::ExecEnded { exec_id: exec_id.clone(), status: *status };
            }
            What::Detached { exec_id } if exec_id.is_empty() => {
                tell("detach".into(), BTreeMap::new());
                consequence = Consequence::Detached { exec_id: String::new() };
            }
            What::Detached { exec_id } => {
                tell("exec_detach".into(), exec_attributes(exec_id));
                consequence = Consequence::Detached { exec_id: exec_id.clone() };
            }
            What::Probing { exec_id } => {
                let line = health::command_line(&self.record.config);
                for action in ["exec_create", "exec_start"] {
                    tell(format!("{action}: {line}").into(), exec_attributes(exec_id));
                }
            }
            What::ProbeExited { exec_id, status } => {
                tell("exec_die".into(), exec_die_attributes(exec_id, *status));
            }
            What::Probed { started_at_nanos, exit_code, output, health, failing_streak } => {
                let probe = health::Probe {
                    started_at_nanos: *started_at_nanos,
                    ended_at_nanos: entry.at_nanos,
                    exit_code: *exit_code,
                    output: output.clone(),
                };
                if let Some(health) = self.probed(probe, *health, *failing_streak) {
                    tell(format!("health_status: {}", health.as_str()).into(), BTreeMap::new());
                }
            }
        }
        (events, consequence)
    }

    /// Takes in what a probe found; returns the health if that has changed.
    fn probed(&mut self, probe: health::Probe, health: Status, streak: u32) -> Option<Status> {
        // The daemon may know of a pause before the journal has told it.
        let is_paused = matches!(self.state, State::Paused { .. });
        let health = if is_paused { Status::Unhealthy } else { health };
        let known = self.run.health.get_or_insert_default();
        known.take(probe, health, streak).then_some(health)
    }

    fn end(&mut self, at_nanos: i64, status: u32, oom_killed: bool, error: Option<&str>) {
        self.run.finished_at_nanos = at_nanos;
        self.run.exit_code = status;
        self.run.oom_killed |= oom_killed;
        error.unwrap_or_default().clone_into(&mut self.run.error);
        self.run.health.iter_mut().for_each(health::Health::suspend);
        self.exits += 1;
    }

    fn die_attributes(&self, status: u32, at_nanos: i64) -> BTreeMap<String, String> {
        let seconds = (at_nanos - self.run.started_at_nanos).max(0) / 1_000_000_000;
        [("execDuration", seconds.to_string()), ("exitCode", status.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }
}

fn exec_attributes(exec_id: &str) -> BTreeMap<String, String> {
    [("execID".to_owned(), exec_id.to_owned())].into()
}

fn exec_die_attributes(exec_id: &str, status: u32) -> BTreeMap<String, String> {
    [("execID", exec_id.to_owned()), ("exitCode", status.to_string())]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Record, Run};
    use cleat_proto::docker::container::HealthConfig;
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000_000;

    fn container(state: State) -> Container {
        let record = Record::of_test("web");
        let run = Run { started_at_nanos: SECOND, open: true, ..Run::default() };
        Container {
            record: Arc::new(record),
            state,
            run,
            exec_ids: Vec::new(),
            exits: 0,
            gone: false,
        }
    }

    fn entry(seq: u64, what: What) -> Entry {
        Entry { seq, at_nanos: 4 * SECOND, what }
    }

    fn exited() -> What {
        What::Exited { status: 7, oom_killed: false, error: None, by_hand: false }
    }

    #[track_caller]
    fn check(state: State, what: What, expected: State, actions: &[&str]) -> Container {
        let mut container = container(state);
        let (events, _) = container.follow(&entry(3, what));
        assert_eq!(container.state, expected);
        assert_eq!(events.iter().map(|event| &*event.action).collect::<Vec<_>>(), actions);
        assert_eq!(container.run.journal_seq, 3);
        container
    }

    #[test]
    fn an_exit_is_recorded_and_told_with_how_long_it_ran() {
        let mut container = container(State::Running { pid: 9 });
        let (events, consequence) = container.follow(&entry(1, exited()));
        assert_eq!(consequence, Consequence::Ended);
        assert_eq!(events[0].attributes["exitCode"], "7");
        assert_eq!(events[0].attributes["execDuration"], "3");
        assert_eq!((container.run.exit_code, container.exits, container.run.open), (7, 1, false));
    }

    #[test]
    fn the_daemons_own_start_is_told_once() {
        let started = What::Started { pid: 9, restart_count: 0 };
        check(State::Running { pid: 9 }, started, State::Running { pid: 9 }, &[]);
    }

    #[test]
    fn a_start_that_no_daemon_saw_is_told() {
        let started = What::Started { pid: 9, restart_count: 0 };
        check(State::Exited, started, State::Running { pid: 9 }, &["start"]);
    }

    #[test]
    fn a_restart_by_policy_is_a_death_and_a_start() {
        let restarting = What::Restarting { status: 1, oom_killed: false, delay_millis: 100 };
        let between = check(State::Running { pid: 9 }, restarting, State::Restarting, &["die"]);
        assert_eq!(between.exits, 1);
        let started = What::Started { pid: 10, restart_count: 1 };
        let again = check(State::Restarting, started, State::Running { pid: 10 }, &["start"]);
        assert_eq!(again.run.restart_count, 1);
    }

    #[test]
    fn what_is_stopped_between_two_runs_does_not_die_twice() {
        check(State::Restarting, exited(), State::Exited, &[]);
    }

    #[test]
    fn pausing_what_is_paused_is_told_once() {
        check(State::Running { pid: 9 }, What::Paused, State::Paused { pid: 9 }, &["pause"]);
        check(State::Paused { pid: 9 }, What::Paused, State::Paused { pid: 9 }, &[]);
        check(State::Paused { pid: 9 }, What::Resumed, State::Running { pid: 9 }, &["unpause"]);
    }

    fn probed(exit_code: i32, health: Status, failing_streak: u32) -> What {
        let output = String::new();
        What::Probed { started_at_nanos: 1, exit_code, output, health, failing_streak }
    }

    #[test]
    fn only_a_change_of_health_is_told() {
        let running = State::Running { pid: 9 };
        let told =
            check(running, probed(0, Status::Healthy, 0), running, &["health_status: healthy"]);
        assert_eq!(told.run.health.unwrap().log[0].ended_at_nanos, 4 * SECOND);
        check(running, probed(1, Status::Starting, 1), running, &[]);
    }

    #[test]
    fn a_probe_is_an_exec() {
        let running = State::Running { pid: 9 };
        let mut container = container(running);
        let test = ["CMD-SHELL", "true"].map(str::to_owned).to_vec();
        let check = HealthConfig { test: Some(test), ..HealthConfig::default() };
        Arc::make_mut(&mut container.record).config.healthcheck = Some(check);
        let exec_id = "e".to_owned();
        let (events, _) = container.follow(&entry(1, What::Probing { exec_id: exec_id.clone() }));
        let actions: Vec<_> = events.iter().map(|event| &*event.action).collect();
        assert_eq!(actions, ["exec_create: /bin/sh -c true", "exec_start: /bin/sh -c true"]);
        assert_eq!(events[1].attributes["execID"], "e");
        let (events, _) = container.follow(&entry(2, What::ProbeExited { exec_id, status: 3 }));
        assert_eq!((&*events[0].action, &*events[0].attributes["exitCode"]), ("exec_die", "3"));
    }

    #[test]
    fn what_does_not_run_is_unhealthy_and_a_start_begins_anew() {
        let mut container = container(State::Running { pid: 9 });
        container.follow(&entry(1, probed(0, Status::Healthy, 0)));
        container.follow(&entry(2, What::Paused));
        assert_eq!(container.run.health.as_ref().unwrap().status, Status::Unhealthy);
        let restarting = What::Restarting { status: 1, oom_killed: false, delay_millis: 100 };
        container.follow(&entry(3, restarting));
        container.follow(&entry(4, What::Started { pid: 10, restart_count: 1 }));
        let health = container.run.health.as_ref().unwrap();
        assert_eq!((health.status, health.log.len()), (Status::Starting, 1));
    }

    #[test]
    fn who_stopped_it_by_hand_does_not_want_it_to_run() {
        let mut container = container(State::Running { pid: 9 });
        container.run.wanted = true;
        container.follow(&entry(1, exited()));
        assert!(container.run.wanted);
        let by_hand = What::Exited { status: 7, oom_killed: false, error: None, by_hand: true };
        container.follow(&entry(2, by_hand));
        assert!(!container.run.wanted);
    }
}
