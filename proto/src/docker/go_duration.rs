//! Durations in Go's notation: `1m30s`, `-1.5h`, `500ms`. Source: Go's `time.ParseDuration`.

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is none at all, or longer than 292 years.
    Invalid,
    /// A number without a unit.
    MissingUnit,
    /// A unit that there is not.
    UnknownUnit(String),
}

/// Reads a duration in nanoseconds.
///
/// # Errors
/// See [`Error`].
pub fn parse(text: &str) -> Result<i64, Error> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Error::Invalid);
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return Err(Error::Invalid);
        }
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let part = nanos(number, unit)?;
        total = total.checked_add(part).ok_or(Error::Invalid)?;
        rest = after;
    }
    Ok(if negative { -total } else { total })
}

/// The whole part is exact, the fraction is as good as a float, and what is less than a nanosecond is cut off.
fn nanos(number: &str, unit: &str) -> Result<i64, Error> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return Err(Error::Invalid);
    }
    let scale = match unit {
        "" => return Err(Error::MissingUnit),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        other => return Err(Error::UnknownUnit(other.to_owned())),
    };
    let whole: i64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| Error::Invalid)?,
    };
    let fraction: f64 = match fraction {
        "" => 0.0,
        digits => format!("0.{digits}").parse().map_err(|_| Error::Invalid)?,
    };
    let part = (fraction * scale as f64) as i64;
    whole.checked_mul(scale).and_then(|nanos| nanos.checked_add(part)).ok_or(Error::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts() {
        assert_eq!(parse("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse("-1.5h"), Ok(-5_400_000_000_000));
        assert_eq!(parse("+.5s"), Ok(500_000_000));
        assert_eq!(parse("1.000000001s"), Ok(1_000_000_001));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn what_is_none_is_told_apart() {
        for text in ["", "-", "bad", "1.2.3s", ".s", "300000000h"] {
            assert_eq!(parse(text), Err(Error::Invalid), "{text}");
        }
        assert_eq!(parse("1"), Err(Error::MissingUnit));
        assert_eq!(parse("1m5"), Err(Error::MissingUnit));
        assert_eq!(parse("1x"), Err(Error::UnknownUnit("x".into())));
    }
}
