//! Values as Go templates see them: JSON in the order it came, or typed fields with their Go names.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::go;

/// A value. The `Nil…` kinds are Go's typed nils: empty to look at, `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    #[default]
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A point in time, as RFC 3339 text.
    Time(String),
    List(Vec<Value>),
    NilList,
    Map(Map),
    NilMap,
    Record(Arc<Record>),
}

/// An object without a fixed shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Its values are texts, so that a missing one is the empty text.
    pub of_text: bool,
    /// Keys and values, in the order they came.
    pub entries: Vec<(String, Value)>,
}

/// A Go struct, or a row of a list with its methods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Go's name of the type, for error texts.
    pub type_name: &'static str,
    /// What it holds.
    pub fields: Vec<Field>,
    /// What `.Label "key"` looks into.
    pub labels: Option<Map>,
    /// It is a row: Go's own JSON encoder writes it, which escapes `<`, `>` and `&` for HTML.
    pub is_row: bool,
    /// It is the column titles: `.Label "a.b"` is the title `b`, and what is unknown has no value.
    pub is_header: bool,
}

/// A field of a [`Record`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name in templates.
    pub name: &'static str,
    /// The name in JSON; empty if it is not there.
    pub json: &'static str,
    /// Left out of JSON when empty.
    pub omit_empty: bool,
    /// Its value.
    pub value: Value,
}

impl Map {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl Record {
    /// A row of a list: names and values; JSON has the same names in alphabetical order.
    pub fn row(type_name: &'static str, mut fields: Vec<(&'static str, Value)>) -> Self {
        fields.sort_by_key(|(name, _)| *name);
        let fields = fields
            .into_iter()
            .map(|(name, value)| Field { name, json: name, omit_empty: false, value })
            .collect();
        Self { type_name, fields, is_row: true, ..Self::default() }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(values: Vec<Value>) -> Self {
        Self::List(values)
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self::Record(Arc::new(record))
    }
}

impl Value {
    /// The member `key` of an object; nil otherwise.
    pub fn at(&self, key: &str) -> &Value {
        static NIL: Value = Value::Nil;
        match self {
            Self::Map(map) => map.get(key).unwrap_or(&NIL),
            _ => &NIL,
        }
    }

    /// Its text; empty if it is none.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Time(text) => text,
            _ => "",
        }
    }

    /// Its number; 0 if it is none.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(value) => *value,
            Self::Float(value) => *value as i64,
            _ => 0,
        }
    }

    /// Its truth; false if it is none.
    pub fn bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// Its elements.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// Its members.
    pub fn entries(&self) -> &[(String, Value)] {
        match self {
            Self::Map(map) => &map.entries,
            _ => &[],
        }
    }

    /// Its members as a map of texts.
    pub fn texts(&self) -> Map {
        Map { of_text: true, entries: self.entries().to_vec() }
    }

    /// Go's notion of emptiness, for `if`, `and`, `not`, and JSON's `omitempty`.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::NilList | Self::NilMap => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Time(_) | Self::Record(_) => true,
        }
    }

    /// JSON as Go writes it without HTML escapes.
    pub fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, false);
        out
    }

    fn write_json(&self, out: &mut String, html: bool) {
        match self {
            Self::Nil | Self::NilList | Self::NilMap => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Float(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Text(text) | Self::Time(text) => write_string(out, text, html),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out, html);
                }
                out.push(']');
            }
            Self::Map(map) => {
                let mut entries: Vec<&(String, Value)> = map.entries.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                write_object(
                    out,
                    html,
                    entries.into_iter().map(|(key, value)| (key.as_str(), value)),
                );
            }
            Self::Record(record) => {
                let fields = record.fields.iter().filter(|field| {
                    !field.json.is_empty() && (!field.omit_empty || field.value.is_true())
                });
                write_object(
                    out,
                    html || record.is_row,
                    fields.map(|field| (field.json, &field.value)),
                );
            }
        }
    }

    /// `%v`: how Go prints it.
    pub fn print(&self) -> String {
        match self {
            Self::Nil => "<nil>".into(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => print_float(*value),
            Self::Text(text) => text.clone(),
            Self::Time(text) => crate::output::time::go_string_of(text),
            Self::NilList => "[]".into(),
            Self::NilMap => "map[]".into(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Value::print).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Map(map) => {
                let mut entries: Vec<&(String, Value)> = map.entries.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{key}:{}", value.print())).collect();
                format!("map[{}]", entries.join(" "))
            }
            Self::Record(record) => {
                let fields: Vec<String> =
                    record.fields.iter().map(|field| field.value.print()).collect();
                format!("{{{}}}", fields.join(" "))
            }
        }
    }
}

fn print_float(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-4 || value.abs() >= 1e21) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    value.to_string()
}

fn write_object<'a>(
    out: &mut String,
    html: bool,
    members: impl Iterator<Item = (&'a str, &'a Value)>,
) {
    out.push('{');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key, html);
        out.push(':');
        value.write_json(out, html);
    }
    out.push('}');
}

/// A JSON string as Go writes it.
fn write_string(out: &mut String, text: &str, html: bool) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            other if (other as u32) < 0x20 || (html && matches!(other, '<' | '>' | '&')) => {
                let _ = write!(out, "\\u{:04x}", other as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::default();
        while let Some(entry) = access.next_entry()? {
            map.entries.push(entry);
        }
        Ok(Value::Map(map))
    }
}

/// The reference a `%T`-like error text needs: Go's name of the value's type.
pub fn type_name(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Bool(_) => "bool".into(),
        Value::Int(_) => "int".into(),
        Value::Float(_) => "float64".into(),
        Value::Text(_) => "string".into(),
        Value::Time(_) => "time.Time".into(),
        Value::List(_) | Value::NilList => "[]string".into(),
        Value::Map(map) if !map.of_text => "map[string]interface {}".into(),
        Value::Map(_) | Value::NilMap => "map[string]string".into(),
        Value::Record(record) => record.type_name.into(),
    }
}

/// Quoted like `%q`.
pub fn quoted(value: &Value) -> String {
    go::quote(&value.print())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_values_and_sorts_keys_as_go_does() {
        let value: Value = serde_json::from_str(r#"{"b":[1,null,"x<"],"a":{"c":1.5}}"#).unwrap();
        assert_eq!(value.json(), r#"{"a":{"c":1.5},"b":[1,null,"x<"]}"#);
        assert_eq!(value.at("b").print(), "[1 <nil> x<]");
        assert_eq!(value.at("a").print(), "map[c:1.5]");
    }
}
