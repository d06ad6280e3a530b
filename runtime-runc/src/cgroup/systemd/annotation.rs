//! Properties of the unit from annotations: `org.systemd.property.NAME`, with a value in GVariant's text form. As with `runc`,
//! a name that ends in `Sec` is in seconds, where systemd's own is in microseconds (`USec`).
//! Source: GVariant Text Format; only single values and lists of strings are understood.

use super::super::error::{Error, Result};
use crate::dbus::wire::Value;
use std::collections::BTreeMap;

const PREFIX: &str = "org.systemd.property.";

/// Returns the properties that the annotations set.
pub fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let named =
        annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    named
        .map(|(key, name, text)| {
            let wrong = |what: &str| Error::InvalidLimit(format!("annotation {key} {what}"));
            if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(wrong("name incorrect: a property is named by three or more letters"));
            }
            let value =
                parse(text).ok_or_else(|| wrong(&format!("value parse error: {text:?}")))?;
            match name
                .strip_suffix("Sec")
                .filter(|name| name.ends_with(|l: char| l.is_ascii_lowercase()))
            {
                Some(name) => {
                    let value = microseconds(value)
                        .ok_or_else(|| wrong("value is no number of seconds"))?;
                    Ok((format!("{name}USec"), value))
                }
                None => Ok((name.to_owned(), value)),
            }
        })
        .collect()
}

fn microseconds(value: Value) -> Option<Value> {
    let whole = |seconds: u64| seconds.checked_mul(1_000_000).map(Value::U64);
    match value {
        Value::Byte(n) => whole(n.into()),
        Value::U16(n) => whole(n.into()),
        Value::U32(n) => whole(n.into()),
        Value::U64(n) => whole(n),
        Value::I16(n) => whole(n.try_into().ok()?),
        Value::I32(n) => whole(n.try_into().ok()?),
        Value::I64(n) => whole(n.try_into().ok()?),
        Value::Double(n) if n >= 0.0 => Some(Value::U64((n * 1e6) as u64)),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some((kind, rest)) = text.split_once(' ') {
        let rest = rest.trim();
        return match kind {
            "boolean" => boolean(rest),
            "byte" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::Byte),
            "int16" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::I16),
            "uint16" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::U16),
            "int32" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::I32),
            "uint32" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::U32),
            "int64" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::I64),
            "uint64" => integer(rest).and_then(|n| n.try_into().ok()).map(Value::U64),
            "double" => rest.parse().ok().map(Value::Double),
            "string" => string(rest).map(Value::Text),
            "objectpath" => string(rest).map(Value::Path),
            _ => untyped(text),
        };
    }
    untyped(text)
}

fn untyped(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[') {
        return texts(list.strip_suffix(']')?).map(Value::Texts);
    }
    boolean(text)
        .or_else(|| string(text).map(Value::Text))
        .or_else(|| integer(text).and_then(|n| n.try_into().ok()).map(Value::I32))
        .or_else(|| text.parse().ok().filter(|_| text.contains('.')).map(Value::Double))
}

fn boolean(text: &str) -> Option<Value> {
    text.parse().ok().map(Value::Bool)
}

/// Wide enough for every kind.
fn integer(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Reads a quoted string; a backslash takes its meaning from a quote or a backslash.
fn string(text: &str) -> Option<String> {
    let (string, rest) = first_string(text)?;
    rest.is_empty().then_some(string)
}

fn first_string(text: &str) -> Option<(String, &str)> {
    let mut letters = text.char_indices();
    let (_, quote) = letters.next().filter(|(_, quote)| matches!(quote, '\'' | '"'))?;
    let mut string = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => string.push(letters.next()?.1),
            _ if letter == quote => return Some((string, &text[at + 1..])),
            _ => string.push(letter),
        }
    }
    None
}

fn texts(mut list: &str) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    loop {
        let (text, rest) = first_string(list.trim_start())?;
        texts.push(text);
        match rest.trim_start() {
            "" => return Some(texts),
            rest => list = rest.strip_prefix(',')?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, text: &str) -> Result<(String, Value)> {
        let annotations = BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned())]);
        properties(&annotations).map(|mut properties| properties.remove(0))
    }

    #[track_caller]
    fn check(name: &str, text: &str, expected: (&str, Value)) {
        assert_eq!(
            property(name, text).unwrap(),
            (expected.0.to_owned(), expected.1),
            "{name} {text}"
        );
    }

    #[test]
    fn values_are_read_as_gvariant_writes_them() {
        check(
            "CollectMode",
            "'inactive-or-failed'",
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        );
        check(
            "Description",
            r#""it's a \"test\"""#,
            ("Description", Value::Text("it's a \"test\"".to_owned())),
        );
        check("TasksMax", "uint64 0x10", ("TasksMax", Value::U64(16)));
        check("CPUWeight", "7", ("CPUWeight", Value::I32(7)));
        check("SendSIGHUP", "true", ("SendSIGHUP", Value::Bool(true)));
        check(
            "Before",
            "['a.target', 'b.target']",
            ("Before", Value::Texts(vec!["a.target".into(), "b.target".into()])),
        );
    }

    #[test]
    fn seconds_become_microseconds() {
        check("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", Value::U64(5_000_000)));
        check("TimeoutStopSec", "0.5", ("TimeoutStopUSec", Value::U64(500_000)));
        check("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", Value::U64(5)));
    }

    #[test]
    fn what_is_no_property_is_refused() {
        for (name, text) in [
            ("ab", "1"),
            ("A.B", "1"),
            ("Foo", "'"),
            ("Foo", "byte 256"),
            ("XxSec", "'a'"),
            ("Foo", "[1]"),
        ] {
            assert!(property(name, text).is_err(), "{name} {text}");
        }
        assert!(
            properties(&BTreeMap::from([("other".to_owned(), "x".to_owned())])).unwrap().is_empty()
        );
    }
}
