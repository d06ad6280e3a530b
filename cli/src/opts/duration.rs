//! Durations in Go's notation: `1m30s`, `500ms`.

use crate::go;

/// Reads a duration in nanoseconds.
///
/// # Errors
/// In the words of Go's `time.ParseDuration`.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go::quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let value: f64 = number.parse().map_err(|_| invalid())?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", go::quote(text)));
        }
        let scale = scale(unit).ok_or_else(|| {
            format!("time: unknown unit {} in duration {}", go::quote(unit), go::quote(text))
        })?;
        total += value * scale;
        rest = after;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    let total = total.round() as i64;
    Ok(if negative { -total } else { total })
}

fn scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts() {
        assert_eq!(parse("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse("-1.5h"), Ok(-5_400_000_000_000));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn a_number_needs_its_unit() {
        assert_eq!(parse("1"), Err("time: missing unit in duration \"1\"".into()));
        assert_eq!(parse("1x"), Err("time: unknown unit \"x\" in duration \"1x\"".into()));
        assert_eq!(parse("bad"), Err("time: invalid duration \"bad\"".into()));
    }
}
