//! From what the shim tells to where the container stands, and to the events that clients see. Pure.

use std::collections::BTreeMap;

use cleat_proto::journal::{Entry, What};

use super::{Container, State};

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Docker's name for it.
    pub action: &'static str,
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
        let mut tell = |action, attributes: BTreeMap<String, String>| {
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
                    tell("start", BTreeMap::new());
                }
            }
            What::Restarting { status, oom_killed, .. } => {
                tell("die", self.die_attributes(*status, entry.at_nanos));
                self.end(entry.at_nanos, *status, *oom_killed, None);
                self.state = State::Restarting;
            }
            What::Exited { status, oom_killed, error } => {
                // Between two runs there was no process that could die once more.
                if self.state != State::Restarting {
                    tell("die", self.die_attributes(*status, entry.at_nanos));
                }
                self.end(entry.at_nanos, *status, *oom_killed, error.as_deref());
                self.run.open = false;
                self.state = State::Exited;
                consequence = Consequence::Ended;
            }
            What::Oom => {
                self.run.oom_killed = true;
                tell("oom", BTreeMap::new());
            }
            What::Paused => {
                if let State::Running { pid } = self.state {
                    self.state = State::Paused { pid };
                    tell("pause", BTreeMap::new());
                }
            }
            What::Resumed => {
                if let State::Paused { pid } = self.state {
                    self.state = State::Running { pid };
                    tell("unpause", BTreeMap::new());
                }
            }
            What::ExecExited { exec_id, status } => {
                tell(
                    "exec_die",
                    [("execID", exec_id.clone()), ("exitCode", status.to_string())]
                        .map(|(key, value)| (key.to_owned(), value))
                        .into(),
                );
                consequence = Consequence::ExecEnded { exec_id: exec_id.clone(), status: *status };
            }
            What::Detached { exec_id } if exec_id.is_empty() => {
                tell("detach", BTreeMap::new());
                consequence = Consequence::Detached { exec_id: String::new() };
            }
            What::Detached { exec_id } => {
                tell("exec_detach", [("execID".to_owned(), exec_id.clone())].into());
                consequence = Consequence::Detached { exec_id: exec_id.clone() };
            }
        }
        (events, consequence)
    }

    fn end(&mut self, at_nanos: i64, status: u32, oom_killed: bool, error: Option<&str>) {
        self.run.finished_at_nanos = at_nanos;
        self.run.exit_code = status;
        self.run.oom_killed |= oom_killed;
        error.unwrap_or_default().clone_into(&mut self.run.error);
        self.exits += 1;
    }

    fn die_attributes(&self, status: u32, at_nanos: i64) -> BTreeMap<String, String> {
        let seconds = (at_nanos - self.run.started_at_nanos).max(0) / 1_000_000_000;
        [("execDuration", seconds.to_string()), ("exitCode", status.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Phase, Record, Run};
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000_000;

    fn container(state: State) -> Container {
        let record = Record {
            id: "a".repeat(64).parse().unwrap(),
            name: "web".into(),
            created_at_nanos: 1,
            image_id: String::new(),
            top_layer: None,
            platform: String::new(),
            path: "sh".into(),
            args: Vec::new(),
            config: Default::default(),
            host_config: Default::default(),
            networks: Default::default(),
            mounts: Vec::new(),
            phase: Phase::Present,
            run: Run::default(),
        };
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
        What::Exited { status: 7, oom_killed: false, error: None }
    }

    #[track_caller]
    fn check(state: State, what: What, expected: State, actions: &[&str]) -> Container {
        let mut container = container(state);
        let (events, _) = container.follow(&entry(3, what));
        assert_eq!(container.state, expected);
        assert_eq!(events.iter().map(|event| event.action).collect::<Vec<_>>(), actions);
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
}
