//! `events`: a line of JSON for every look at a container's statistics and for every time it ran out of memory, until its cgroup
//! has gone.

mod oom;
mod stats;

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::state::{Container, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oom::Watch;
use serde_json::{Value, json};
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub const SYNTAX: Syntax =
    Syntax { values: &["interval"], switches: &["stats"], least: 1, most: 1 };

/// As runc's.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the verb.
///
/// # Errors
/// Where the container does not run.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("events", words, &SYNTAX)?;
    let interval = arguments.value("interval").map_or(Ok(DEFAULT_INTERVAL), duration)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    if container.status()? == Status::Stopped {
        let id = &container.state.id;
        return Err(Error::State(format!("container with id {id} is not running")));
    }
    if arguments.has("stats") {
        return print(&statistics(&container)?);
    }
    let watch = Watch::new(&container.state.cgroup_paths)?;
    follow(&container, &watch, interval)
}

fn follow(container: &Container, watch: &Watch, interval: Duration) -> Result<()> {
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, so that it is time when poll says so.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Err(cleat_sys::Errno::EINTR) => continue,
            Err(errno) => return Err(Error::Kernel { what: "poll".to_owned(), errno }),
            Ok(0) => {}
            Ok(_) => {
                for _ in 0..watch.count()? {
                    print(&json!({"type": "oom", "id": container.state.id}))?;
                }
            }
        }
        if watch.has_ended() {
            return Ok(());
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            match statistics(container) {
                Ok(line) => print(&line)?,
                // It may be going just now.
                Err(error) => crate::log::error(&error.to_string()),
            }
        }
    }
}

fn statistics(container: &Container) -> Result<Value> {
    let data = stats::collect(&container.state.cgroup_paths);
    Ok(json!({"type": "stats", "id": container.state.id, "data": data}))
}

/// In the order that readers of lines look for: type, id, data.
fn print(event: &Value) -> Result<()> {
    let mut line = format!("{{\"type\":{},\"id\":{}", event["type"], event["id"]);
    if let Some(data) = event.get("data") {
        line = format!("{line},\"data\":{data}");
    }
    line.push_str("}\n");
    std::io::stdout().write_all(line.as_bytes()).context(|| "write to stdout".to_owned())
}

/// Reads a duration as Go spells it: `1.5s`, `100ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::Usage(format!("invalid value {text:?} for flag -interval: parse error"));
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = after;
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(Error::Usage("duration interval must be greater than 0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5s", 1500)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert!(["", "0s", "5", "s", "1x"].iter().all(|text| duration(text).is_err()));
    }
}
