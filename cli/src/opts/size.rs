//! Sizes such as `64m`: units are powers of 1024.

use crate::go;

/// Reads a size in bytes.
///
/// # Errors
/// Not a number, negative, or an unknown suffix; in the words of docker's go-units.
pub fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let end =
        text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, suffix) = match text.as_bytes()[end] {
        b' ' => (&text[..end], &text[end + 1..]),
        _ => text.split_at(end + 1),
    };
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", go::quote(number));
    if number.is_empty() || number.starts_with(|c: char| c.is_alphabetic()) {
        return Err(syntax());
    }
    let size: f64 = number.parse().map_err(|_| syntax())?;
    if size < 0.0 {
        return Err(invalid());
    }
    Ok((size * unit(suffix)?) as i64)
}

fn unit(suffix: &str) -> Result<f64, String> {
    let lower = suffix.to_lowercase();
    let bad = |suffix: &str| Err(format!("invalid suffix: '{suffix}'"));
    if lower.is_empty() {
        return Ok(1.0);
    }
    if suffix.len() > 3 {
        return bad(suffix);
    }
    let power = match lower.as_bytes()[0] {
        b'b' => return if lower.len() == 1 { Ok(1.0) } else { bad(&lower) },
        b'k' => 1,
        b'm' => 2,
        b'g' => 3,
        b't' => 4,
        b'p' => 5,
        _ => return bad(&lower),
    };
    match &lower[1..] {
        "" | "b" | "ib" => Ok(1024f64.powi(power)),
        _ => bad(&lower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("16777216b", 16_777_216),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("1 KiB", 1024),
            ("5", 5),
        ] {
            assert_eq!(ram_in_bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named() {
        for (text, expected) in [
            ("abc", "invalid size: 'abc'"),
            ("1x", "invalid suffix: 'x'"),
            ("1bb", "invalid suffix: 'bb'"),
            ("-1m", "invalid size: '-1m'"),
            ("1.2.3", "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
        ] {
            assert_eq!(ram_in_bytes(text), Err(expected.to_owned()), "{text}");
        }
    }
}
