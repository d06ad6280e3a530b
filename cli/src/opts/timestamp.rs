//! Points in time as `--since` and `--until` take them: a Go duration before now, an RFC 3339 time or part of one, or Unix seconds.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::duration;

/// Writes `value` as Unix seconds (with nanoseconds where they are known), which is what the API takes.
///
/// # Errors
/// Text in none of the forms, in Go's words.
pub fn parse(value: &str, now: Timestamp) -> Result<String, String> {
    if let Ok(ago) = duration::parse(value) {
        let at = now.as_nanosecond() - i128::from(ago);
        return Ok(at.div_euclid(1_000_000_000).to_string());
    }
    let Some((layout, time)) = layout(value) else { return Ok(value.to_owned()) };
    match time {
        Some(at) => Ok(format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())),
        // What starts with digits and dashes may still be Unix seconds, which are passed on as they are.
        None if value.contains('-') => Err(format!(
            "parsing time {q} as {l}: cannot parse {q} as \"2006\"",
            q = crate::go::quote(value),
            l = crate::go::quote(layout)
        )),
        None => Ok(value.to_owned()),
    }
}

/// Picks the layout by the punctuation, as docker does, and reads the time by it.
fn layout(value: &str) -> Option<(&'static str, Option<Timestamp>)> {
    let zoned = value.contains(['Z', '+']) || value.matches('-').count() == 3;
    let local = |text: &str| {
        let civil: DateTime = text.parse().ok()?;
        civil.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp())
    };
    if value.contains('.') && zoned {
        return Some(("2006-01-02T15:04:05.999999999Z07:00", value.parse().ok()));
    }
    if value.contains('.') {
        return Some(("2006-01-02T15:04:05.999999999", local(value)));
    }
    let colons = value.matches(':').count();
    let (colons, clock) = if zoned && colons > 0 { (colons - 1, true) } else { (colons, zoned) };
    match (value.contains('T'), colons, clock) {
        (true, 2, true) => Some(("2006-01-02T15:04:05Z07:00", value.parse().ok())),
        (true, 2, false) => Some(("2006-01-02T15:04:05", local(value))),
        (true, 1, false) => Some(("2006-01-02T15:04", local(&format!("{value}:00")))),
        (true, 0, false) => Some(("2006-01-02T15", local(&format!("{value}:00:00")))),
        (false, 0, false) => Some(("2006-01-02", local(&format!("{value}T00:00:00")))),
        _ => Some(("2006-01-02Z07:00", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_back_from_now() {
        let now = Timestamp::from_second(10_000).unwrap();
        assert_eq!(parse("1h", now), Ok("6400".into()));
        assert_eq!(parse("1700000000.5", now).as_deref(), Ok("1700000000.5"));
    }

    #[test]
    fn zoned_times_become_seconds() {
        assert_eq!(parse("2001-01-01T00:00:00Z", Timestamp::now()), Ok("978307200.000000000".into()));
    }
}
