//! A container's health, as its shim tells it. Source: Engine API v1.51, Health and HealthcheckResult.

use std::collections::VecDeque;

use cleat_proto::{docker::container::Config, journal::Health as Status};
use serde::{Deserialize, Serialize};

/// How many results are kept; Docker keeps as many.
const KEPT: usize = 5;

/// How a container's health stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Where it stands.
    pub status: Status,
    /// How many probes failed in a row.
    pub failing_streak: u32,
    /// What the last probes found, those of runs before included.
    pub log: VecDeque<Probe>,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Nanoseconds since the epoch.
    pub started_at_nanos: i64,
    /// Nanoseconds since the epoch.
    pub ended_at_nanos: i64,
    /// -1 if it could not be started, or not be ended in time.
    pub exit_code: i32,
    /// The beginning of what it said, or why it did not.
    pub output: String,
}

impl Default for Health {
    fn default() -> Self {
        Self { status: Status::Starting, failing_streak: 0, log: VecDeque::new() }
    }
}

impl Health {
    /// Returns how a run of a container so configured begins, which ended the last time with `before`.
    pub fn of_new_run(config: &Config, before: Option<&Self>) -> Option<Self> {
        command(config)?;
        let mut health = before.cloned().unwrap_or_default();
        health.begin();
        Some(health)
    }

    /// A run begins.
    pub fn begin(&mut self) {
        (self.status, self.failing_streak) = (Status::Starting, 0);
    }

    /// No probes are made any more.
    pub fn suspend(&mut self) {
        self.status = Status::Unhealthy;
    }

    /// Takes in a result; returns whether the status is another now.
    pub fn take(&mut self, probe: Probe, status: Status, failing_streak: u32) -> bool {
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(probe);
        self.failing_streak = failing_streak;
        std::mem::replace(&mut self.status, status) != status
    }
}

/// Returns what a probe executes; `None` where there is no health check.
pub fn command(config: &Config) -> Option<Vec<String>> {
    let test = config.healthcheck.as_ref()?.test.as_ref()?;
    let (kind, words) = test.split_first()?;
    let shell = || match &config.shell {
        Some(shell) if !shell.0.is_empty() => shell.0.clone(),
        _ => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
    };
    match kind.as_str() {
        "CMD" if !words.is_empty() => Some(words.to_vec()),
        "CMD-SHELL" => Some([shell(), words.to_vec()].concat()),
        _ => None,
    }
}

/// Returns the command as Docker's events show it: a blank follows the program even if it has no arguments.
pub fn command_line(config: &Config) -> String {
    let words = command(config).unwrap_or_default();
    let (program, args) = words.split_first().map_or(("", &[][..]), |(p, args)| (p.as_str(), args));
    format!("{program} {}", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::container::{HealthConfig, StrSlice};

    fn config(test: &[&str], shell: &[&str]) -> Config {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let healthcheck = HealthConfig { test: Some(words(test)), ..HealthConfig::default() };
        let shell = Some(StrSlice(words(shell)));
        Config { healthcheck: Some(healthcheck), shell, ..Config::default() }
    }

    #[track_caller]
    fn check(test: &[&str], shell: &[&str], expected: Option<&[&str]>) {
        let expected = expected.map(|words| words.iter().map(|&word| word.to_owned()).collect());
        assert_eq!(command(&config(test, shell)), expected);
    }

    #[test]
    fn a_probe_runs_a_command_or_the_images_shell() {
        check(&["CMD", "a", "b c"], &[], Some(&["a", "b c"]));
        check(&["CMD-SHELL", "a b"], &[], Some(&["/bin/sh", "-c", "a b"]));
        check(&["CMD-SHELL", "a b"], &["/bash", "-c"], Some(&["/bash", "-c", "a b"]));
        for none in [&["NONE", "x"][..], &["CMD"], &[""], &[]] {
            check(none, &[], None);
        }
        assert_eq!(command(&Config::default()), None);
    }

    #[test]
    fn only_the_last_results_are_kept_and_a_new_run_keeps_them() {
        let mut health = Health::default();
        for exit_code in 0..7 {
            let output = String::new();
            let probe = Probe { started_at_nanos: 1, ended_at_nanos: 2, exit_code, output };
            let changed = health.take(probe, Status::Unhealthy, 3);
            assert_eq!(changed, exit_code == 0);
        }
        let config = config(&["CMD", "a"], &[]);
        let new = Health::of_new_run(&config, Some(&health)).unwrap();
        let codes: Vec<_> = new.log.iter().map(|probe| probe.exit_code).collect();
        assert_eq!(
            (codes, new.status, new.failing_streak),
            (vec![2, 3, 4, 5, 6], Status::Starting, 0)
        );
        assert_eq!(Health::of_new_run(&Config::default(), Some(&health)), None);
    }
}
