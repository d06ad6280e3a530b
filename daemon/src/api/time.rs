//! Times in requests and answers: what `since` and `until` accept, and how Go prints a time.

use cleat_proto::docker::go_duration;

use crate::event::now_nanos;

/// What Docker shows for "never".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// Reads a time: unix seconds with or without a fraction, RFC 3339, a date (`2026-01-02`, `2026-01-02T15:04:05`), or a
/// Go duration before now (`10m`, `1h30m`). Answers nanoseconds since the epoch.
///
/// # Errors
/// What Go says about it.
pub fn parse(text: &str) -> Result<i64, String> {
    // A 0 is a point in time.
    if text != "0"
        && let Ok(duration) = go_duration::parse(text)
    {
        return Ok(now_nanos().saturating_sub(duration));
    }
    if text.contains(['-', 'T', ':'])
        && !text.starts_with('-')
        && let Some(nanos) = date(text)
    {
        return Ok(nanos);
    }
    unix_seconds(text)
}

/// Reads `since` and `until` of logs and events: unix seconds only, since clients send those.
///
/// # Errors
/// Go's text.
pub fn unix_seconds(text: &str) -> Result<i64, String> {
    let number = |part: &str| {
        super::query::parse_go_int(part)
            .map_err(|why| format!("strconv.ParseInt: parsing {part:?}: {why}"))
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = number(seconds)?;
    let nanos = if fraction.is_empty() {
        0
    } else {
        let padded = format!("{fraction:0<9}");
        number(padded.get(..9).unwrap_or(fraction))?
    };
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Prints a time as Go's RFC3339Nano does: no fraction if it is zero, else without trailing zeros.
pub fn rfc3339_nano(nanos: i64) -> String {
    let mut text = rfc3339_fixed(nanos);
    text.pop();
    while text.ends_with('0') {
        text.pop();
    }
    if text.ends_with('.') {
        text.pop();
    }
    text.push('Z');
    text
}

/// Whole seconds: how volumes show it.
pub fn rfc3339_seconds(nanos: i64) -> String {
    rfc3339_nano(nanos.div_euclid(1_000_000_000) * 1_000_000_000)
}

/// As [`rfc3339_nano`], and [`ZERO`] for 0: how `inspect` shows what has not happened.
pub fn or_zero(nanos: i64) -> String {
    if nanos == 0 { ZERO.to_owned() } else { rfc3339_nano(nanos) }
}

/// Nine digits always: how logs show it (`RFC3339NanoFixed`).
pub fn rfc3339_fixed(nanos: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    format!("{at:.9}")
}

fn date(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(at.as_nanosecond()).ok();
    }
    let local: jiff::civil::DateTime = text.trim_end_matches('Z').parse().ok()?;
    let at = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    i64::try_from(at.timestamp().as_nanosecond()).ok()
}

/// How long ago in words, as Docker's `units.HumanDuration` has it.
pub fn human_duration(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let minutes = seconds / 60;
    // Go rounds hours: half an hour more is the next one.
    let hours = (nanos as f64 / 3.6e12 + 0.5) as i64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", nanos as f64 as i64 / 3_600_000_000_000 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn times_are_seconds_dates_or_durations() {
        assert_eq!(parse("5.5"), Ok(5 * SECOND + 500_000_000));
        assert_eq!(parse("2026-01-02"), Ok(1_767_312_000 * SECOND));
        assert_eq!(parse("2026-01-02T00:00:01Z"), Ok(1_767_312_001 * SECOND));
        let ten_minutes_ago = parse("10m").unwrap();
        assert!((now_nanos() - ten_minutes_ago - 600 * SECOND).abs() < 5 * SECOND);
        assert_eq!(
            parse("garbage").unwrap_err(),
            "strconv.ParseInt: parsing \"garbage\": invalid syntax"
        );
    }

    #[test]
    fn go_prints_no_trailing_zeros() {
        assert_eq!(rfc3339_nano(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nano(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339_fixed(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(or_zero(0), ZERO);
    }

    #[test]
    fn durations_have_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (49 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (65 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds * SECOND), words, "{seconds} s");
        }
    }
}
