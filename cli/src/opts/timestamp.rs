//! Points in time as `--since` and `--until` take them: a Go duration before now, an RFC 3339 time or part of one, or Unix seconds.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::duration;
use crate::go;

/// Writes `value` as Unix seconds (with nanoseconds where they are known), which is what the API takes.
///
/// # Errors
/// Text in none of the forms, in Go's words.
pub fn parse(value: &str, now: Timestamp) -> Result<String, String> {
    if let (Ok(ago), false) = (duration::parse(value), value == "0") {
        let at = now.as_nanosecond() - i128::from(ago);
        return Ok(at.div_euclid(1_000_000_000).to_string());
    }
    let local = !value.contains(['z', 'Z', '+']) && value.matches('-').count() != 3;
    let (layout, completed) = complete(value, local);
    let found = if local {
        completed
            .parse::<DateTime>()
            .ok()
            .and_then(|civil| civil.to_zoned(TimeZone::system()).ok())
            .map(|at| at.timestamp())
    } else {
        completed.parse::<Timestamp>().ok()
    };
    match found.filter(|_| value.contains('-')) {
        Some(at) => Ok(format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())),
        None if value.contains('-') => {
            let quoted = go::quote(value);
            Err(format!(
                "parsing time {quoted} as {}: cannot parse {quoted} as \"2006\"",
                go::quote(layout)
            ))
        }
        None if is_unix(value) => Ok(value.to_owned()),
        None => Err(format!("failed to parse value as time or duration: {}", go::quote(value))),
    }
}

/// The layout that the punctuation chooses, and the text with what the layout leaves out.
fn complete(value: &str, local: bool) -> (&'static str, String) {
    let zone = value
        .rfind(['z', 'Z', '+'])
        .or_else(|| value.rfind('-'))
        .filter(|_| !local)
        .unwrap_or(value.len());
    let (clock, zone) = value.split_at(zone);
    if value.contains('.') {
        let layout = if local {
            "2006-01-02T15:04:05.999999999"
        } else {
            "2006-01-02T15:04:05.999999999Z07:00"
        };
        return (layout, value.to_owned());
    }
    if !value.contains('T') {
        let layout = if local { "2006-01-02" } else { "2006-01-02Z07:00" };
        return (layout, format!("{clock}T00:00:00{zone}"));
    }
    match (clock.matches(':').count(), local) {
        (0, true) => ("2006-01-02T15", format!("{clock}:00:00")),
        (0, false) => ("2006-01-02T15Z07:00", format!("{clock}:00:00{zone}")),
        (1, true) => ("2006-01-02T15:04", format!("{clock}:00")),
        (1, false) => ("2006-01-02T15:04Z07:00", format!("{clock}:00{zone}")),
        (_, true) => ("2006-01-02T15:04:05", value.to_owned()),
        (_, false) => ("2006-01-02T15:04:05Z07:00", value.to_owned()),
    }
}

fn is_unix(value: &str) -> bool {
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, "0"));
    go::atoi(seconds).is_ok() && go::atoi(fraction).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_back_from_now() {
        let now = Timestamp::from_second(10_000).unwrap();
        assert_eq!(parse("1h", now), Ok("6400".into()));
        assert_eq!(parse("1700000000.5", now).as_deref(), Ok("1700000000.5"));
        assert_eq!(parse("0", now).as_deref(), Ok("0"));
    }

    #[test]
    fn zoned_times_become_seconds() {
        assert_eq!(
            parse("2001-01-01T00:00:00Z", Timestamp::now()),
            Ok("978307200.000000000".into())
        );
        assert_eq!(
            parse("2001-01-01T01:00+01:00", Timestamp::now()),
            Ok("978307200.000000000".into())
        );
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(
            parse("bad", Timestamp::now()),
            Err("failed to parse value as time or duration: \"bad\"".into())
        );
    }
}
