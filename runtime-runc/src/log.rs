//! The log for the caller: `--log FILE`, `--log-format json|text`, `--debug`. Lines look like `runc`'s, which shims parse.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log; to be called once, first.
///
/// # Errors
/// Where the file cannot be opened for appending.
pub fn open(path: Option<&Path>, json: bool, debug: bool) -> std::io::Result<()> {
    let file =
        path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    let _ = LOG.set(Log { file, json, debug });
    Ok(())
}

/// Returns the log's descriptor, if it has one of its own.
pub fn descriptor() -> Option<RawFd> {
    LOG.get().and_then(|log| log.file.as_ref()).map(AsRawFd::as_raw_fd)
}

/// Writes what makes the verb fail, and prints it to stderr as well.
pub fn error(message: &str) {
    write("error", message);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        eprintln!("{message}");
    }
}

/// Writes what the caller might want to know.
pub fn warn(message: &str) {
    write("warning", message);
}

/// Writes what helps to find a fault, with `--debug` only.
pub fn debug(message: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", &message());
    }
}

fn write(level: &str, message: &str) {
    let json = LOG.get().is_some_and(|log| log.json);
    let time = rfc3339(SystemTime::now(), false);
    let quoted = serde_json::Value::from(message);
    let line = if json {
        format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n")
    } else {
        format!("time=\"{time}\" level={level} msg={quoted}\n")
    };
    // One write, so that lines of parent and child do not mix; a log that cannot be written is nobody's failure.
    let _ = match LOG.get().and_then(|log| log.file.as_ref()) {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// Formats a time as RFC 3339 in UTC, with nanoseconds if wanted.
pub fn rfc3339(time: SystemTime, nanoseconds: bool) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let fraction =
        if nanoseconds { format!(".{:09}", since.subsec_nanos()) } else { String::new() };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Returns year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last of its year; 719,468 days lie before 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[track_caller]
    fn check(seconds: u64, expected: &str) {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), false), expected);
    }

    #[test]
    fn times_are_utc_in_the_gregorian_calendar() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(1_700_000_000, "2023-11-14T22:13:20Z");
    }
}
