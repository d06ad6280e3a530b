//! Waiting for an event instead of for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks until `probe` has an answer, for at most a minute, and fails with what was waited for.
///
/// # Panics
/// When the minute is over.
#[track_caller]
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
