//! The parts of Go's standard library whose behaviour, and whose error texts, show through docker's command line.

use std::fmt::Write as _;

/// Quotes as `strconv.Quote` (`%q`) does.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_escaped(&mut quoted, character, '"');
    }
    quoted.push('"');
    quoted
}

/// Quotes one character as `%q` does with a rune.
pub fn quote_rune(character: char) -> String {
    let mut quoted = String::from("'");
    push_escaped(&mut quoted, character, '\'');
    quoted.push('\'');
    quoted
}

fn push_escaped(out: &mut String, character: char, delimiter: char) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        other if other == delimiter => {
            out.push('\\');
            out.push(other);
        }
        other if (other as u32) < 0x20 || other as u32 == 0x7f => {
            let _ = write!(out, "\\x{:02x}", other as u32);
        }
        other => out.push(other),
    }
}

/// The failures of `strconv`'s number parsers, with their texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFault {
    /// Not a number in this syntax.
    Syntax,
    /// Does not fit the type.
    Range,
}

impl NumberFault {
    /// Go's words for it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        }
    }

    /// The text of a `strconv.NumError`.
    pub fn message(self, function: &str, text: &str) -> String {
        format!("strconv.{function}: parsing {}: {}", quote(text), self.text())
    }
}

/// `strconv.ParseUint`; base 0 takes the base from the prefix and allows underscores.
pub fn parse_uint(text: &str, base: u32, bits: u32) -> Result<u64, NumberFault> {
    let (digits, base) = if base == 0 { split_base(text) } else { (text.to_owned(), base) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(NumberFault::Syntax);
    }
    let value = u64::from_str_radix(&digits, base).map_err(|_| NumberFault::Range)?;
    if bits < 64 && value >> bits != 0 {
        return Err(NumberFault::Range);
    }
    Ok(value)
}

/// `strconv.ParseInt`.
pub fn parse_int(text: &str, base: u32, bits: u32) -> Result<i64, NumberFault> {
    let (negative, magnitude) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint(magnitude, base, 64)?;
    let limit = 1u64 << (bits - 1);
    match negative {
        true if magnitude <= limit => Ok((magnitude as i64).wrapping_neg()),
        false if magnitude < limit => Ok(magnitude as i64),
        _ => Err(NumberFault::Range),
    }
}

/// `strconv.Atoi`.
pub fn atoi(text: &str) -> Result<i64, NumberFault> {
    parse_int(text, 10, 64)
}

fn split_base(text: &str) -> (String, u32) {
    let lower = text.to_ascii_lowercase();
    let (rest, base) = if let Some(rest) = lower.strip_prefix("0x") {
        (rest, 16)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (rest, 2)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (rest, 8)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (&lower[1..], 8)
    } else {
        (lower.as_str(), 10)
    };
    (rest.replace('_', ""), base)
}

/// `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `strconv.FormatFloat(value, 'g', precision)`, as `%.4g` prints it.
pub fn format_g(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let exponent = format!("{value:.*e}", precision - 1)
        .split('e')
        .nth(1)
        .and_then(|text| text.parse::<i32>().ok())
        .unwrap_or(0);
    if exponent < -4 || exponent >= precision as i32 {
        let text = format!("{value:.*e}", precision - 1);
        let (mantissa, _) = text.split_once('e').unwrap_or((&text, ""));
        let mantissa = trim_zeros(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `path.Clean`.
pub fn clean_path(path: &str) -> String {
    if path.is_empty() {
        return ".".into();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// `filepath.Abs`.
pub fn absolute_path(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return Some(clean_path(path));
    }
    let current = std::env::current_dir().ok()?;
    Some(clean_path(&format!("{}/{path}", current.to_str()?)))
}

/// The text of a failed system call as Go's `PathError` has it: `open x: no such file or directory`.
pub fn path_error(operation: &str, path: &str, error: &std::io::Error) -> String {
    format!("{operation} {path}: {}", os_error(error))
}

/// The text of an `errno` in Go's words, which are the C library's in lower case.
pub fn os_error(error: &std::io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let text = nix::errno::Errno::from_raw(number).desc();
    match number {
        libc::EIO => "input/output error".into(),
        libc::ENOTDIR => "not a directory".into(),
        libc::EISDIR => "is a directory".into(),
        _ => {
            let mut characters = text.chars();
            characters
                .next()
                .map(|first| first.to_lowercase().chain(characters).collect())
                .unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_with_gos_escapes() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), r#""a\"b\\\n\x01é""#);
        assert_eq!(quote_rune('x'), "'x'");
    }

    #[test]
    fn numbers_are_parsed_by_prefix_when_the_base_is_open() {
        assert_eq!(parse_int("-0x10", 0, 64), Ok(-16));
        assert_eq!(parse_int("010", 0, 64), Ok(8));
        assert_eq!(parse_int("1_000", 0, 64), Ok(1000));
        assert_eq!(parse_int("", 10, 64), Err(NumberFault::Syntax));
        assert_eq!(parse_uint("65536", 10, 16), Err(NumberFault::Range));
        assert_eq!(
            NumberFault::Syntax.message("ParseInt", "x"),
            r#"strconv.ParseInt: parsing "x": invalid syntax"#
        );
    }

    #[test]
    fn four_significant_digits_lose_their_zeros() {
        assert_eq!(format_g(2.0621, 4), "2.062");
        assert_eq!(format_g(64.0, 4), "64");
        assert_eq!(format_g(999.96, 4), "1000");
        assert_eq!(format_g(0.5, 4), "0.5");
        assert_eq!(format_g(12345.0, 4), "1.234e+04");
    }

    #[test]
    fn paths_are_cleaned_as_text() {
        assert_eq!(clean_path("/tmp/../up/"), "/up");
        assert_eq!(clean_path("a/./b/../../.."), "..");
        assert_eq!(clean_path("/../x"), "/x");
        assert_eq!(clean_path(""), ".");
    }
}
