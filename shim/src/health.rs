//! Health checks: when the next probe is due, and what the results mean. Touches nothing but its own state.
//!
//! ```text
//!            a probe succeeds                    retries failures in a row
//!  Starting ─────────────────▶ Healthy ─────────────────────────────────▶ Unhealthy
//!      │                          ▲                                        │   ▲
//!      │                          └──────────── a probe succeeds ──────────┘   │
//!      └── retries failures in a row, those in the start period not counted ───┘
//! ```
//! Every run begins at Starting; a pause and an end mean Unhealthy. As dockerd 28 does it (observed).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use cleat_proto::{journal::Health, shim_v1::HealthCheck};
use tokio::time::Instant;

/// How much of a probe's output is kept (dockerd's limit).
const OUTPUT_BYTES: usize = 4096;
/// How long the start of a probe may take, which does not count as its running time (dockerd's limit).
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How a container's health stands, and when the next probe is due.
pub struct Monitor {
    check: HealthCheck,
    health: Health,
    failing_streak: u32,
    began: Instant,
    /// When the next probe is due; none while one is under way, or none is wanted.
    next: Option<Instant>,
    probe: Option<Probe>,
}

/// A probe under way.
pub struct Probe {
    pub exec_id: String,
    /// What it says.
    pub output: Captured,
    /// For the log.
    pub started_at: SystemTime,
    began: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The runtime is at work, until this time at the latest.
    Starting(Instant),
    /// It runs, until this time at the latest.
    Running(Instant),
    /// It took too long, and has been killed.
    Overdue,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// A probe is to be started.
    Probe,
    /// The one under way could not be started in time.
    Wedged,
    /// The one under way is to be killed.
    Kill(String),
}

impl Monitor {
    /// Makes one for a container that does not run yet.
    pub fn new(check: HealthCheck) -> Self {
        let began = Instant::now();
        Self { check, health: Health::Starting, failing_streak: 0, began, next: None, probe: None }
    }

    /// A run begins.
    pub fn begin(&mut self, now: Instant) {
        (self.health, self.failing_streak, self.began) = (Health::Starting, 0, now);
        self.probe = None;
        self.resume(now);
    }

    /// It is paused, or has ended: no more probes, and what the one under way finds is of no interest. Returns that one's id.
    pub fn suspend(&mut self) -> Option<String> {
        self.health = Health::Unhealthy;
        self.next = None;
        self.probe.take().map(|probe| probe.exec_id)
    }

    /// It goes on.
    pub fn resume(&mut self, now: Instant) {
        self.next = Some(now + self.delay(now));
    }

    /// Returns when something is due.
    pub fn timer(&self) -> Option<Instant> {
        match self.probe.as_ref().map(|probe| probe.phase) {
            Some(Phase::Starting(at) | Phase::Running(at)) => Some(at),
            Some(Phase::Overdue) => None,
            None => self.next,
        }
    }

    /// Returns what is due, if something is; it will not be said twice.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.timer().is_none_or(|at| at > now) {
            return None;
        }
        match &mut self.probe {
            None => {
                self.next = None;
                Some(Due::Probe)
            }
            Some(Probe { phase: Phase::Starting(_), .. }) => Some(Due::Wedged),
            Some(probe) => {
                probe.phase = Phase::Overdue;
                Some(Due::Kill(probe.exec_id.clone()))
            }
        }
    }

    /// A probe begins; returns what its output goes to.
    pub fn probing(&mut self, exec_id: String, now: Instant) -> Captured {
        let output = Captured::default();
        self.probe = Some(Probe {
            exec_id,
            output: output.clone(),
            started_at: SystemTime::now(),
            began: now,
            phase: Phase::Starting(now + START_TIMEOUT),
        });
        output
    }

    /// The probe's process runs; false if it is not wanted any more.
    pub fn running(&mut self, exec_id: &str, now: Instant) -> bool {
        let timeout = Duration::from_nanos(self.check.timeout_nanos);
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.exec_id == exec_id) else {
            return false;
        };
        probe.phase = Phase::Running(now + timeout);
        true
    }

    /// Takes the probe `exec_id` if it is the one under way.
    pub fn take(&mut self, exec_id: &str) -> Option<Probe> {
        self.probe.take_if(|probe| probe.exec_id == exec_id)
    }

    /// Takes the probe under way.
    pub fn take_any(&mut self) -> Option<Probe> {
        self.probe.take()
    }

    /// Says what the end of `probe` by exit code `status` means: the exit code for the log, and the text.
    pub fn outcome(&self, probe: &Probe, status: u32) -> (i32, String) {
        let said = probe.output.text();
        if probe.phase != Phase::Overdue {
            return (i32::try_from(status).unwrap_or(-1), said);
        }
        let limit = go_duration(self.check.timeout_nanos);
        let colon = if said.is_empty() { "" } else { ": " };
        (-1, format!("Health check exceeded timeout ({limit}){colon}{said}"))
    }

    /// Takes in what `probe` found, and returns how the container stands then.
    pub fn found(&mut self, probe: &Probe, exit_code: i32, now: Instant) -> (Health, u32) {
        self.judge(exit_code == 0, probe.began);
        self.resume(now);
        (self.health, self.failing_streak)
    }

    fn judge(&mut self, succeeded: bool, probe_began: Instant) {
        if succeeded {
            (self.health, self.failing_streak) = (Health::Healthy, 0);
            return;
        }
        let may_fail = probe_began.duration_since(self.began) < self.start_period();
        if self.health == Health::Starting && may_fail {
            return;
        }
        self.failing_streak = self.failing_streak.saturating_add(1);
        if self.failing_streak >= self.check.retries {
            self.health = Health::Unhealthy;
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        let is_early = now.duration_since(self.began) < self.start_period();
        let nanos = if is_early && self.health == Health::Starting {
            self.check.start_interval_nanos
        } else {
            self.check.interval_nanos
        };
        Duration::from_nanos(nanos)
    }

    fn start_period(&self) -> Duration {
        Duration::from_nanos(self.check.start_period_nanos)
    }

    /// Returns the OCI process of a probe.
    pub fn process(&self) -> &[u8] {
        &self.check.process
    }
}

/// The beginning of what a probe says. Clones share it.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Beginning>>);

#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    has_more: bool,
}

impl Captured {
    /// Keeps as much of `data` as there is room for.
    pub fn push(&self, data: &[u8]) {
        let mut beginning = self.lock();
        let kept = data.len().min(OUTPUT_BYTES - beginning.bytes.len());
        beginning.bytes.extend_from_slice(&data[..kept]);
        beginning.has_more |= kept < data.len();
    }

    /// Returns it as text, each byte that is none replaced, as Go's JSON does; with dots if there was more.
    fn text(&self) -> String {
        let beginning = self.lock();
        let mut text = String::with_capacity(beginning.bytes.len() + 3);
        for chunk in beginning.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        if beginning.has_more {
            text.push_str("...");
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Beginning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a duration as Go does: `1m30s`, `1.5s`, `100ms`. Source: Go's `time.Duration.String`.
fn go_duration(nanos: u64) -> String {
    let fraction = |unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", nanos % unit);
        let rest = rest.trim_end_matches('0');
        let dot = if rest.is_empty() { "" } else { "." };
        (nanos / unit, format!("{dot}{rest}{name}"))
    };
    if nanos < 1_000_000_000 {
        let (whole, rest) = match nanos {
            0 => return "0s".to_owned(),
            1..1_000 => return format!("{nanos}ns"),
            1_000..1_000_000 => fraction(1_000, "µs"),
            _ => fraction(1_000_000, "ms"),
        };
        return format!("{whole}{rest}");
    }
    let (seconds, rest) = fraction(1_000_000_000, "s");
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{rest}"),
        (0, _) => format!("{minutes}m{seconds}{rest}"),
        _ => format!("{hours}h{minutes}m{seconds}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn monitor(start_period: u64) -> Monitor {
        let mut monitor = Monitor::new(HealthCheck {
            process: Vec::new(),
            interval_nanos: 30 * SECOND,
            timeout_nanos: 2 * SECOND,
            start_period_nanos: start_period * SECOND,
            start_interval_nanos: 5 * SECOND,
            retries: 2,
        });
        let began = monitor.began;
        monitor.begin(began);
        monitor
    }

    fn at(monitor: &Monitor, seconds: u64) -> Instant {
        monitor.began + Duration::from_secs(seconds)
    }

    /// Holds what follows each probe (when it began, how it ended) against health, streak and the seconds to the next one.
    #[track_caller]
    fn check(start_period: u64, probes: &[(u64, i32, Health, u32, u64)]) {
        let mut monitor = monitor(start_period);
        for &(began, exit_code, health, streak, next) in probes {
            let now = at(&monitor, began);
            monitor.probing("x".into(), now);
            let probe = monitor.take("x").unwrap();
            assert_eq!(monitor.found(&probe, exit_code, now), (health, streak), "at {began}");
            assert_eq!(monitor.timer(), Some(now + Duration::from_secs(next)), "at {began}");
        }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        check(
            0,
            &[
                (30, 1, Health::Starting, 1, 30),
                (60, 1, Health::Unhealthy, 2, 30),
                (90, 1, Health::Unhealthy, 3, 30),
                (120, 0, Health::Healthy, 0, 30),
                (150, -1, Health::Healthy, 1, 30),
                (180, 0, Health::Healthy, 0, 30),
            ],
        );
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_a_success() {
        check(
            20,
            &[
                (5, 1, Health::Starting, 0, 5),
                (10, 1, Health::Starting, 0, 5),
                (20, 1, Health::Starting, 1, 30),
            ],
        );
        check(20, &[(5, 0, Health::Healthy, 0, 30), (10, 1, Health::Healthy, 1, 30)]);
    }

    #[test]
    fn a_pause_means_unhealthy_and_the_probe_is_forgotten() {
        let mut monitor = monitor(0);
        let now = at(&monitor, 30);
        assert_eq!(monitor.due(now), Some(Due::Probe));
        monitor.probing("x".into(), now);
        assert_eq!(monitor.suspend().as_deref(), Some("x"));
        assert_eq!((monitor.health, monitor.timer()), (Health::Unhealthy, None));
        assert!(!monitor.running("x", now) && monitor.take("x").is_none());
        monitor.resume(now);
        assert_eq!(monitor.timer(), Some(now + Duration::from_secs(30)));
    }

    #[test]
    fn a_probe_that_takes_too_long_is_killed_once_and_says_so() {
        let mut monitor = monitor(0);
        let now = at(&monitor, 30);
        let output = monitor.probing("x".into(), now);
        output.push(b"out\n");
        assert_eq!(monitor.due(at(&monitor, 59)), None);
        assert_eq!(monitor.due(at(&monitor, 60)), Some(Due::Wedged));
        assert!(monitor.running("x", now));
        assert_eq!(monitor.due(at(&monitor, 32)), Some(Due::Kill("x".into())));
        assert_eq!((monitor.due(at(&monitor, 99)), monitor.timer()), (None, None));
        let probe = monitor.take("x").unwrap();
        let text = "Health check exceeded timeout (2s): out\n".to_owned();
        assert_eq!(monitor.outcome(&probe, 137), (-1, text));
    }

    #[test]
    fn only_the_beginning_of_the_output_is_kept() {
        let output = Captured::default();
        output.push(b"a\xff\xfeb");
        assert_eq!(output.text(), "a\u{fffd}\u{fffd}b");
        output.push(&[b'x'; OUTPUT_BYTES]);
        output.push(b"more");
        let text = output.text();
        assert!(text.ends_with("x...") && output.lock().bytes.len() == OUTPUT_BYTES);
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, expected) in [
            (1_500_000_000, "1.5s"),
            (30 * SECOND, "30s"),
            (60 * SECOND, "1m0s"),
            (3_661 * SECOND + 20_000_000, "1h1m1.02s"),
            (1_000_000, "1ms"),
            (1_234_567, "1.234567ms"),
            (7_000, "7µs"),
            (7, "7ns"),
            (0, "0s"),
        ] {
            assert_eq!(go_duration(nanos), expected);
        }
    }
}
