//! Whether and when a container is started again after its first process has ended. Touches nothing.

use std::time::Duration;

use cleat_proto::shim_v1::{self, restart_policy::Kind};

/// moby's restart manager: the first delay, its limit, and the run after which it starts over.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

/// A policy and what has happened under it.
#[derive(Debug, Default)]
pub struct RestartPolicy {
    kind: Kind,
    max_retries: u32,
    count: u32,
    delay: Option<Duration>,
}

impl RestartPolicy {
    /// Takes over what the daemon ordered; the count goes on.
    pub fn set(&mut self, orders: &shim_v1::RestartPolicy) {
        self.kind = orders.kind();
        self.max_retries = orders.max_retries;
    }

    /// Returns how often it has said yes.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Decides about a run of `ran_for` that ended with `status`; answers with the delay before the next one.
    pub fn decide(&mut self, status: u32, ran_for: Duration) -> Option<Duration> {
        let again = match self.kind {
            Kind::No => false,
            Kind::Always | Kind::UnlessStopped => true,
            Kind::OnFailure => {
                status != 0 && (self.max_retries == 0 || self.count < self.max_retries)
            }
        };
        if !again {
            return None;
        }
        let delay = match self.delay {
            Some(delay) if ran_for < LONG_RUN => (delay * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.delay = Some(delay);
        self.count += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(kind: Kind, max_retries: u32) -> RestartPolicy {
        RestartPolicy { kind, max_retries, ..RestartPolicy::default() }
    }

    #[track_caller]
    fn check(mut policy: RestartPolicy, runs: &[(u32, u64)], expected: &[Option<u64>]) {
        let decide = |&(status, seconds)| policy.decide(status, Duration::from_secs(seconds));
        let delays: Vec<_> = runs
            .iter()
            .map(decide)
            .map(|delay| delay.map(|delay| delay.as_millis() as u64))
            .collect();
        assert_eq!(delays, expected);
    }

    #[test]
    fn no_policy_restarts_nothing() {
        check(policy(Kind::No, 0), &[(1, 0)], &[None]);
    }

    #[test]
    fn on_failure_counts_failures_only() {
        check(policy(Kind::OnFailure, 2), &[(1, 0), (7, 0), (1, 0)], &[Some(100), Some(200), None]);
        check(policy(Kind::OnFailure, 0), &[(137, 0), (0, 0)], &[Some(100), None]);
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_starts_over_after_a_long_run() {
        let mut expected: Vec<_> = (0..10).map(|power| Some(100 << power)).collect();
        expected.extend([Some(60_000), Some(60_000), Some(100), Some(200)]);
        let mut runs = [(0, 1); 14];
        runs[12].1 = 10;
        check(policy(Kind::Always, 0), &runs, &expected);
    }
}
