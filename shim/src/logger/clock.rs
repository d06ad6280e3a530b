//! Times as log records carry them: RFC 3339 in UTC, nanoseconds without trailing zeros (Go's `RFC3339Nano`).

use std::time::{Duration, SystemTime};

/// Formats times, and remembers the last second's text: a busy log asks thousands of times a second.
#[derive(Default)]
pub struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// Appends `at` to `out`. Times before 1970 count as 1970.
    pub fn append(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if self.text.is_empty() || since.as_secs() != self.second {
            self.second = since.as_secs();
            self.text = second_text(self.second);
        }
        out.extend_from_slice(self.text.as_bytes());
        append_fraction(since.subsec_nanos(), out);
        out.push(b'Z');
    }
}

fn append_fraction(nanos: u32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let mut digits = *b".000000000";
    let mut rest = nanos;
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let used = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&digits[..used]);
}

fn second_text(second: u64) -> String {
    let (year, month, day) = date(second / 86_400);
    let rest = second % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Returns the date of the Gregorian calendar that is `days` after 1970-01-01.
///
/// Counted in eras of 400 years that begin on 1 March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(second: u64, nanos: u32, expected: &str) {
        let mut out = Vec::new();
        Clock::default().append(SystemTime::UNIX_EPOCH + Duration::new(second, nanos), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn times_are_as_go_writes_them() {
        check(0, 0, "1970-01-01T00:00:00Z");
        check(951_782_399, 6, "2000-02-28T23:59:59.000000006Z");
        check(951_782_400, 120_000_000, "2000-02-29T00:00:00.12Z");
        check(1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z");
        check(4_107_542_400, 10, "2100-03-01T00:00:00.00000001Z");
    }

    #[test]
    fn the_remembered_second_does_not_stick() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        for second in [59, 60] {
            clock.append(SystemTime::UNIX_EPOCH + Duration::from_secs(second), &mut out);
        }
        assert_eq!(out, b"1970-01-01T00:00:59Z1970-01-01T00:01:00Z");
    }
}
