//! The functions of templates: Go's, and those docker adds.

use super::parse::Operand;
use crate::go;
use crate::value::{Value, quoted, type_name};

/// Names, and how many arguments they take.
const TABLE: [(&str, usize, usize); 27] = [
    ("and", 1, usize::MAX),
    ("or", 1, usize::MAX),
    ("not", 1, 1),
    ("eq", 1, usize::MAX),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("len", 1, 1),
    ("index", 1, usize::MAX),
    ("slice", 1, usize::MAX),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("html", 0, usize::MAX),
    ("js", 0, usize::MAX),
    ("urlquery", 0, usize::MAX),
    ("call", 1, usize::MAX),
    ("json", 1, 1),
    ("split", 2, 2),
    ("join", 2, 2),
    ("title", 1, 1),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("pad", 3, 3),
    ("truncate", 2, 2),
];

/// Whether there is such a function.
pub fn exists(name: &str) -> bool {
    TABLE.iter().any(|(known, ..)| *known == name)
}

/// Checks the number of arguments.
///
/// # Errors
/// In Go's words.
pub fn check_count(name: &str, count: usize) -> Result<(), String> {
    let Some((_, least, most)) = TABLE.iter().find(|(known, ..)| *known == name) else {
        return Ok(());
    };
    if count < *least && *most == usize::MAX {
        return Err(format!("wrong number of args for {name}: want at least {least} got {count}"));
    }
    if count < *least || count > *most {
        return Err(format!("wrong number of args for {name}: want {least} got {count}"));
    }
    Ok(())
}

/// The text of a wrong type of argument `index`, if it is wrong.
pub fn check_type(
    name: &str,
    index: usize,
    value: &Value,
    operand: Option<&Operand>,
) -> Option<String> {
    let expected = match (name, index) {
        ("split" | "title" | "lower" | "upper", _) | ("join", 1) | ("pad" | "truncate", 0) => {
            "string"
        }
        ("join", 0) => "[]string",
        ("pad" | "truncate", _) => "int",
        _ => return None,
    };
    let fits = match expected {
        "string" => matches!(value, Value::Text(_) | Value::Time(_)),
        "int" => matches!(value, Value::Int(_)),
        _ => matches!(value, Value::List(_) | Value::NilList),
    };
    if fits {
        return None;
    }
    let literal = operand.is_some_and(|operand| !operand.to_string().starts_with(['.', '$', '(']));
    Some(match operand {
        Some(operand) if literal => format!(
            "expected {}; found {operand}",
            if expected == "int" { "integer" } else { expected }
        ),
        _ => format!("wrong type for value; expected {expected}; got {}", type_name(value)),
    })
}

/// Calls a function.
///
/// # Errors
/// In Go's words, to follow `error calling NAME: `.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |index: usize| arguments.get(index).map(Value::text).unwrap_or_default();
    let number = |index: usize| arguments.get(index).map_or(0, Value::int);
    Ok(match name {
        "not" => Value::Bool(!arguments[0].is_true()),
        "eq" => {
            let mut equal = false;
            if arguments.len() < 2 {
                return Err("missing argument for comparison".into());
            }
            for other in &arguments[1..] {
                equal |= equals(&arguments[0], other)?;
            }
            Value::Bool(equal)
        }
        "ne" => Value::Bool(!equals(&arguments[0], &arguments[1])?),
        "lt" => Value::Bool(less(&arguments[0], &arguments[1])?),
        "le" => Value::Bool(
            less(&arguments[0], &arguments[1])? || equals(&arguments[0], &arguments[1])?,
        ),
        "gt" => Value::Bool(
            !less(&arguments[0], &arguments[1])? && !equals(&arguments[0], &arguments[1])?,
        ),
        "ge" => Value::Bool(!less(&arguments[0], &arguments[1])?),
        "len" => Value::Int(length(&arguments[0])?),
        "index" => index(&arguments[0], &arguments[1..])?,
        "slice" => slice(&arguments[0], &arguments[1..])?,
        "print" => Value::Text(print(arguments)),
        "println" => {
            let words: Vec<String> = arguments.iter().map(Value::print).collect();
            Value::Text(format!("{}\n", words.join(" ")))
        }
        "printf" => Value::Text(format(text(0), &arguments[1..])),
        "html" => Value::Text(html(&print(arguments))),
        "js" => Value::Text(
            print(arguments).replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\""),
        ),
        "urlquery" => {
            Value::Text(crate::client::escape(&print(arguments), false).replace("%20", "+"))
        }
        "json" => Value::Text(arguments[0].json()),
        "split" => split(text(0), text(1)),
        "join" => {
            let words: Vec<String> = arguments[0].items().iter().map(Value::print).collect();
            Value::Text(words.join(text(1)))
        }
        "title" => Value::Text(title(text(0))),
        "lower" => Value::Text(text(0).to_lowercase()),
        "upper" => Value::Text(text(0).to_uppercase()),
        "pad" if text(0).is_empty() => Value::Text(String::new()),
        "pad" => {
            let blanks = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0));
            Value::Text(format!("{}{}{}", blanks(number(1)), text(0), blanks(number(2))))
        }
        "truncate" => {
            let mut end = usize::try_from(number(1)).unwrap_or(0).min(text(0).len());
            while !text(0).is_char_boundary(end) {
                end -= 1;
            }
            Value::Text(text(0)[..end].to_owned())
        }
        other => return Err(format!("{other} is no function")),
    })
}

fn split(text: &str, separator: &str) -> Value {
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|character| Value::Text(character.to_string())).collect()
    } else {
        text.split(separator).map(Value::from).collect()
    };
    Value::List(parts)
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for character in text.chars() {
        if start {
            out.extend(character.to_uppercase());
        } else {
            out.push(character);
        }
        start = !(character.is_alphanumeric() || character == '_' || character == '\'');
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// `fmt.Sprint`: a blank between operands that are both no texts.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in arguments.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if index > 0 && !is_text(value) && !is_text(&arguments[index - 1]) {
            out.push(' ');
        }
        out.push_str(&value.print());
    }
    out
}

fn equals(left: &Value, right: &Value) -> Result<bool, String> {
    match (left, right) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Text(_) | Value::Time(_), _)
            if std::mem::discriminant(left) == std::mem::discriminant(right) =>
        {
            Ok(left == right)
        }
        (Value::Record(left), Value::Record(right)) => Ok(left == right),
        (Value::List(_) | Value::Map(_) | Value::NilList | Value::NilMap | Value::Record(_), _) => {
            Err(format!("non-comparable type {}: {}", left.print(), type_name(left)))
        }
        _ => Err("incompatible types for comparison".into()),
    }
}

fn less(left: &Value, right: &Value) -> Result<bool, String> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(left < right),
        (Value::Float(left), Value::Float(right)) => Ok(left < right),
        (Value::Text(left), Value::Text(right)) => Ok(left < right),
        (
            Value::Int(_) | Value::Float(_) | Value::Text(_),
            Value::Int(_) | Value::Float(_) | Value::Text(_),
        ) => Err("incompatible types for comparison".into()),
        _ => Err("invalid type for comparison".into()),
    }
}

fn length(value: &Value) -> Result<i64, String> {
    Ok(match value {
        Value::Text(text) => text.len() as i64,
        Value::List(items) => items.len() as i64,
        Value::Map(map) => map.entries.len() as i64,
        Value::NilList | Value::NilMap => 0,
        Value::Nil => return Err("len of nil pointer".into()),
        other => return Err(format!("len of type {}", type_name(other))),
    })
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Nil, _) => return Err("index of untyped nil".into()),
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
                found.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::NilList, Value::Int(at)) => return Err(format!("index out of range: {at}")),
            (Value::Text(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                found
                    .map(|byte| Value::Int(i64::from(*byte)))
                    .ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::List(_) | Value::NilList | Value::Text(_), Value::Nil) => {
                return Err("cannot index slice/array with nil".into());
            }
            (Value::List(_) | Value::NilList | Value::Text(_), other) => {
                return Err(format!("cannot index slice/array with type {}", type_name(other)));
            }
            (Value::Map(map), Value::Text(key)) => map.get(key).cloned().unwrap_or_else(|| {
                if map.of_text { Value::Text(String::new()) } else { Value::Nil }
            }),
            (Value::NilMap, Value::Text(_)) => Value::Text(String::new()),
            (Value::Map(_) | Value::NilMap, other) => {
                return Err(format!("value has type {}; should be string", type_name(other)));
            }
            (other, _) => return Err(format!("can't index item of type {}", type_name(other))),
        };
    }
    Ok(value)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let total = length(value)?;
    let bound = |index: usize, default: i64| match bounds.get(index) {
        None => Ok(default),
        Some(Value::Int(at)) if (0..=total).contains(at) => Ok(*at),
        Some(other) => Err(format!("index out of range: {}", other.print())),
    };
    let (start, end) = (bound(0, 0)?, bound(1, total)?);
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    let (start, end) = (start as usize, end as usize);
    Ok(match value {
        Value::Text(text) => {
            Value::Text(String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned())
        }
        Value::List(items) => Value::List(items[start..end].to_vec()),
        other => return Err(format!("can't slice item of type {}", type_name(other))),
    })
}

/// `fmt.Sprintf`.
fn format(template: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags: String = rest.chars().take_while(|c| "-+# 0".contains(*c)).collect();
        rest = &rest[flags.len()..];
        let width: String = rest.chars().take_while(char::is_ascii_digit).collect();
        rest = &rest[width.len()..];
        let precision = rest
            .strip_prefix('.')
            .map(|after| after.chars().take_while(char::is_ascii_digit).collect::<String>());
        rest = &rest[precision.as_ref().map_or(0, |digits| digits.len() + 1)..];
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let precision = precision.map(|digits| digits.parse().unwrap_or(0));
        let shown = verb_text(verb, value, precision, &flags);
        out.push_str(&padded(&shown, &flags, width.parse().unwrap_or(0), value));
    }
    out.push_str(rest);
    let extra: Vec<String> =
        arguments.map(|value| format!("{}={}", type_name(value), value.print())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn padded(text: &str, flags: &str, width: usize, value: &Value) -> String {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        return format!("{text}{}", " ".repeat(missing));
    }
    if flags.contains('0') && matches!(value, Value::Int(_) | Value::Float(_)) {
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>, flags: &str) -> String {
    let bad = || format!("%!{verb}({}={})", type_name(value), value.print());
    let cut = |text: &str| match precision {
        Some(limit) => text.chars().take(limit).collect(),
        None => text.to_owned(),
    };
    match (verb, value) {
        ('v', Value::Nil) => "<nil>".into(),
        ('v', _) => value.print(),
        ('T', _) => type_name(value),
        ('s', Value::Text(text)) => cut(text),
        ('s', Value::Int(_) | Value::Float(_) | Value::Bool(_)) => bad(),
        ('s', Value::Nil) => "%!s(<nil>)".into(),
        ('s', _) => value.print(),
        ('q', Value::Text(text)) => go::quote(text),
        ('q', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(quoted).collect();
            format!("[{}]", items.join(" "))
        }
        ('d', Value::Int(number)) if flags.contains('+') && *number >= 0 => format!("+{number}"),
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::List(_)) => value.print(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).map_or_else(bad, String::from)
        }
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('f' | 'F', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('g', Value::Float(_)) => value.print(),
        ('e', Value::Float(number)) => format!("{number:.*e}", precision.unwrap_or(6)),
        _ => bad(),
    }
}
