//! One record of the `json-file` driver: `{"log":"…\n","stream":"stdout","attrs":{…},"time":"…"}`.
//!
//! Our shim writes the keys in this order and escapes little, so the text is found by looking for two bytes, and copied. Anything
//! else that is JSON of this meaning is read too, only slower.

use std::borrow::Cow;

use crate::docker::go_json::{Document, Value};

/// A record, borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub log: Cow<'a, [u8]>,
    pub stderr: bool,
    /// The JSON object after `"attrs":`, or nothing.
    pub attributes: &'a [u8],
    /// RFC 3339, as written.
    pub time: Cow<'a, [u8]>,
}

impl<'a> Record<'a> {
    /// Reads one line without its newline; `None` for a damaged one.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        fast(line).or_else(|| any(line))
    }

    /// Returns the time in nanoseconds since the epoch.
    pub fn nanos(&self) -> Option<i64> {
        nanos(&self.time)
    }
}

fn fast(line: &[u8]) -> Option<Record<'_>> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let (log, rest) = text(rest)?;
    let rest = rest.strip_prefix(b",\"stream\":\"std")?;
    let (stderr, rest) = match rest.get(..4)? {
        b"out\"" => (false, &rest[4..]),
        b"err\"" => (true, &rest[4..]),
        _ => return None,
    };
    let (attributes, rest) = match rest.strip_prefix(b",\"attrs\":") {
        None => (&rest[..0], rest),
        Some(rest) => {
            let end = rest.windows(9).rposition(|window| window == b",\"time\":\"")?;
            rest.split_at(end)
        }
    };
    let time = rest.strip_prefix(b",\"time\":\"")?.strip_suffix(b"\"}")?;
    Some(Record { log, stderr, attributes, time: Cow::Borrowed(time) })
}

/// Reads a JSON string up to its closing quote; returns what follows that.
fn text(data: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let first = memchr::memchr2(b'"', b'\\', data)?;
    if data[first] == b'"' {
        return Some((Cow::Borrowed(&data[..first]), &data[first + 1..]));
    }
    let mut out = Vec::with_capacity(data.len().min(first + 32));
    out.extend_from_slice(&data[..first]);
    let mut at = first;
    loop {
        // `at` is at a backslash.
        let (escaped, length) = unescape(&data[at..])?;
        let mut bytes = [0; 4];
        out.extend_from_slice(escaped.encode_utf8(&mut bytes).as_bytes());
        at += length;
        let next = memchr::memchr2(b'"', b'\\', &data[at..])?;
        out.extend_from_slice(&data[at..at + next]);
        at += next;
        if data[at] == b'"' {
            return Some((Cow::Owned(out), &data[at + 1..]));
        }
    }
}

/// Undoes one escape; returns how long it was. Pairs of surrogates are left to the slow path.
fn unescape(data: &[u8]) -> Option<(char, usize)> {
    let character = match data.get(1)? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
        b'u' => {
            let digits = std::str::from_utf8(data.get(2..6)?).ok()?;
            return Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 6));
        }
        _ => return None,
    };
    Some((character, 2))
}

/// Reads any JSON object that has these keys.
fn any(line: &[u8]) -> Option<Record<'_>> {
    let document = Document::parse(line).ok()?;
    let Value::Object(entries) = document.value() else { return None };
    let find = |key: &str| {
        entries.iter().rev().find(|(name, _)| name == key).and_then(|(_, value)| match value {
            Value::String(text) => Some(text.to_string().into_bytes()),
            _ => None,
        })
    };
    Some(Record {
        log: Cow::Owned(find("log")?),
        stderr: find("stream").is_some_and(|stream| stream == b"stderr"),
        attributes: &[],
        time: Cow::Owned(find("time")?),
    })
}

/// Reads `2026-01-02T03:04:05.123Z` without going through a calendar library: a filter asks for each line.
fn nanos(text: &[u8]) -> Option<i64> {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range)?.iter().try_fold(0_i64, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let rest = text.get(19..)?;
    let rest = rest.strip_suffix(b"Z")?;
    let fraction = match rest.strip_prefix(b".") {
        None if rest.is_empty() => 0,
        None => return None,
        Some(fraction) if fraction.len() <= 9 => {
            let value = digits(20..20 + fraction.len())?;
            value * 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?)
        }
        Some(_) => return None,
    };
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let seconds = digits(11..13)? * 3600 + digits(14..16)? * 60 + digits(17..19)?;
    Some((days_from_epoch(year, month, day) * 86400 + seconds) * 1_000_000_000 + fraction)
}

/// Days since 1970-01-01 in the Gregorian calendar: years begin in March here, so that leap days come last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, log: &str, stderr: bool) {
        let record = Record::parse(line.as_bytes()).expect(line);
        assert_eq!(String::from_utf8_lossy(&record.log), log, "{line}");
        assert_eq!((record.stderr, &*record.time), (stderr, b"T".as_slice()), "{line}");
    }

    #[test]
    fn our_own_form_and_any_other_are_read() {
        check(r#"{"log":"a\n","stream":"stdout","time":"T"}"#, "a\n", false);
        check(r#"{"log":"a","stream":"stderr","attrs":{"k":"v"},"time":"T"}"#, "a", true);
        check(
            r#"{"log":"\"\\\t\u001b\u003c\n","stream":"stdout","time":"T"}"#,
            "\"\\\t\u{1b}<\n",
            false,
        );
        check(r#"{"log":"\ud83d\ude00","stream":"stdout","time":"T"}"#, "😀", false);
        check(r#"{ "time": "T", "stream": "stderr", "log": "x" }"#, "x", true);
    }

    #[test]
    fn the_fast_path_takes_what_the_shim_writes() {
        for line in [
            r#"{"log":"plain\n","stream":"stdout","time":"T"}"#,
            r#"{"log":"\"q\"\n","stream":"stderr","attrs":{"a":"b\"c"},"time":"T"}"#,
        ] {
            assert!(fast(line.as_bytes()).is_some(), "{line}");
        }
        let record = fast(br#"{"log":"","stream":"stdout","attrs":{"a":"b"},"time":"T"}"#).unwrap();
        assert_eq!(record.attributes, br#"{"a":"b"}"#);
    }

    #[test]
    fn damaged_lines_are_none() {
        for line in ["", "x", r#"{"log":"a"#, r#"{"log":5,"time":"T"}"#, "\0\0\0"] {
            assert!(Record::parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn times_are_nanoseconds_since_the_epoch() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2026-11-24T09:32:50.774840906Z",
            "2024-02-29T23:59:59.5Z",
            "2000-03-01T00:00:00.000000001Z",
        ] {
            let wanted: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(
                nanos(text.as_bytes()).map(i128::from),
                Some(wanted.as_nanosecond()),
                "{text}"
            );
        }
        assert_eq!(nanos(b"garbage"), None);
    }
}
