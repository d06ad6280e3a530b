//! Times as Go prints them.

use jiff::{Timestamp, Zoned, tz::TimeZone};

/// Now, in Unix seconds.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// `2006-01-02 15:04:05 -0700 MST` in the local zone.
pub fn go_string(seconds: i64) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else { return String::new() };
    zoned_string(&at.to_zoned(TimeZone::system()))
}

fn zoned_string(at: &Zoned) -> String {
    let zone = at.time_zone().to_offset_info(at.timestamp());
    let name = zone.abbreviation().to_owned();
    let nanos = at.subsec_nanosecond();
    let fraction = if nanos == 0 {
        String::new()
    } else {
        format!(".{nanos:09}").trim_end_matches('0').to_owned()
    };
    format!("{}{fraction} {} {name}", at.strftime("%Y-%m-%d %H:%M:%S"), at.strftime("%z"))
}

/// A `time.Time`, given as RFC 3339 text, as Go prints it: in its own zone, UTC for `Z`.
pub fn go_string_of(text: &str) -> String {
    let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
    if text.ends_with('Z') {
        return zoned_string(&at.to_zoned(TimeZone::UTC));
    }
    let offset = &text[text.len() - 6..];
    let digits = offset.replace(':', "");
    let shift: i64 = {
        let hours: i64 = digits.get(1..3).and_then(|part| part.parse().ok()).unwrap_or(0);
        let minutes: i64 = digits.get(3..5).and_then(|part| part.parse().ok()).unwrap_or(0);
        let total = hours * 3600 + minutes * 60;
        if digits.starts_with('-') { -total } else { total }
    };
    let local =
        Timestamp::from_second(at.as_second() + shift).unwrap_or(at).to_zoned(TimeZone::UTC);
    let nanos = at.subsec_nanosecond();
    let fraction = if nanos == 0 {
        String::new()
    } else {
        format!(".{nanos:09}").trim_end_matches('0').to_owned()
    };
    format!("{}{fraction} {digits} {digits}", local.strftime("%Y-%m-%d %H:%M:%S"))
}

/// Unix seconds of RFC 3339 text.
pub fn seconds_of(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|at| at.as_second())
}

/// RFC 3339 with all nine digits, in the local zone: `2006-01-02T15:04:05.000000000Z`.
pub fn rfc3339_nano_fixed(nanoseconds: i128) -> String {
    let Ok(at) = Timestamp::from_nanosecond(nanoseconds) else { return String::new() };
    let zoned = at.to_zoned(TimeZone::system());
    format!(
        "{}.{:09}{}",
        zoned.strftime("%Y-%m-%dT%H:%M:%S"),
        zoned.subsec_nanosecond(),
        offset(&zoned)
    )
}

/// RFC 3339 in the local zone, seconds only.
pub fn rfc3339(seconds: i64) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else { return String::new() };
    let zoned = at.to_zoned(TimeZone::system());
    format!("{}{}", zoned.strftime("%Y-%m-%dT%H:%M:%S"), offset(&zoned))
}

fn offset(at: &Zoned) -> String {
    if at.offset().seconds() == 0 { "Z".into() } else { at.strftime("%:z").to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_with_their_zone() {
        assert_eq!(go_string_of("2024-05-06T07:08:09.5Z"), "2024-05-06 07:08:09.5 +0000 UTC");
        assert_eq!(go_string_of("2024-05-06T07:08:09+02:00"), "2024-05-06 07:08:09 +0200 +0200");
    }
}
