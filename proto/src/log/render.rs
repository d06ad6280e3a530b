//! Which records a client gets, and what they look like.

use serde::{Deserialize, Serialize};

use crate::docker::go_json::{Document, Value};

use super::record::Record;

/// What a client wants of a log. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Show what went to stdout.
    pub stdout: bool,
    /// Show what went to stderr.
    pub stderr: bool,
    /// Stay and show what comes.
    pub follow: bool,
    /// Nothing from before.
    pub since: Option<i64>,
    /// Nothing from after.
    pub until: Option<i64>,
    /// Put the time before each record.
    pub timestamps: bool,
    /// Put the attributes before each record.
    pub details: bool,
    /// Only so many of the last records.
    pub tail: Option<usize>,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the output, or does not belong there.
    Taken,
    /// It lies after `until`, as will all that follow.
    Past,
}

/// Turns records into what is sent.
pub struct Render {
    options: LogOptions,
    tty: bool,
    is_plain: bool,
}

/// Type and length, big-endian, before each record: Engine API v1.51, ContainerAttach, "Stream format".
const FRAME_BYTES: usize = 8;

impl Render {
    pub fn new(options: LogOptions, tty: bool) -> Self {
        let is_plain = options.since.is_none() && options.until.is_none();
        Self { options, tty, is_plain }
    }

    /// Appends one record. A damaged line is left out.
    pub fn record(&self, line: &[u8], out: &mut Vec<u8>) -> Verdict {
        let Some(record) = Record::parse(line) else { return Verdict::Taken };
        if !self.is_plain {
            match self.in_time(&record) {
                Some(true) => {}
                Some(false) => return Verdict::Taken,
                None => return Verdict::Past,
            }
        }
        if record.stderr && self.options.stderr || !record.stderr && self.options.stdout {
            self.append(&record, out);
        }
        Verdict::Taken
    }

    /// `None` when it is too late.
    fn in_time(&self, record: &Record<'_>) -> Option<bool> {
        let Some(at) = record.nanos() else { return Some(true) };
        if self.options.until.is_some_and(|until| at > until) {
            return None;
        }
        Some(self.options.since.is_none_or(|since| at >= since))
    }

    fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        if !self.tty {
            out.extend_from_slice(&[1 + u8::from(record.stderr), 0, 0, 0, 0, 0, 0, 0]);
        }
        if self.options.timestamps {
            fixed_time(&record.time, out);
            out.push(b' ');
        }
        if self.options.details {
            details(record.attributes, out);
            out.push(b' ');
        }
        out.extend_from_slice(&record.log);
        if !self.tty {
            let length = u32::try_from(out.len() - start - FRAME_BYTES).unwrap_or(u32::MAX);
            out[start + 4..start + FRAME_BYTES].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Fills the fraction up to nine digits, as clients show it.
fn fixed_time(time: &[u8], out: &mut Vec<u8>) {
    let Some(bare) = time.strip_suffix(b"Z") else { return out.extend_from_slice(time) };
    out.extend_from_slice(bare);
    let digits = match memchr::memchr(b'.', bare) {
        Some(point) => bare.len() - point - 1,
        None => {
            out.push(b'.');
            0
        }
    };
    out.extend(std::iter::repeat_n(b'0', 9_usize.saturating_sub(digits)));
    out.push(b'Z');
}

/// `k=v,k=v` with both parts escaped as in a query.
fn details(attributes: &[u8], out: &mut Vec<u8>) {
    let Ok(document) = Document::parse(attributes) else { return };
    let Value::Object(entries) = document.value() else { return };
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        query_escape(key, out);
        out.push(b'=');
        if let Value::String(text) = value {
            query_escape(text, out);
        }
    }
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            other => out.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        br#"{"log":"hi\n","stream":"stderr","attrs":{"a b":"c/d"},"time":"1970-01-01T00:00:05.5Z"}"#;

    #[track_caller]
    fn check(options: LogOptions, tty: bool, expected: &[u8]) {
        let mut out = Vec::new();
        Render::new(options, tty).record(LINE, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
    }

    #[test]
    fn records_are_framed_unless_there_is_a_terminal() {
        let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        check(both.clone(), false, b"\x02\0\0\0\0\0\0\x03hi\n");
        check(both.clone(), true, b"hi\n");
        check(LogOptions { stderr: false, ..both }, false, b"");
    }

    #[test]
    fn times_and_attributes_stand_before_the_text() {
        let options =
            LogOptions { stderr: true, timestamps: true, details: true, ..LogOptions::default() };
        check(options, true, b"1970-01-01T00:00:05.500000000Z a+b=c%2Fd hi\n");
    }

    #[test]
    fn since_and_until_include_their_moment() {
        let at = |since, until| LogOptions { stderr: true, since, until, ..LogOptions::default() };
        check(at(Some(5_500_000_000), Some(5_500_000_000)), true, b"hi\n");
        check(at(Some(5_500_000_001), None), true, b"");
        let past = Render::new(at(None, Some(5_499_999_999)), true).record(LINE, &mut Vec::new());
        assert_eq!(past, Verdict::Past);
    }
}
