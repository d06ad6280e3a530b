//! The query string, read as Go and Docker's handlers read it.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use cleat_proto::docker::go_json::{self, Value};
use http::request::Parts;

use super::{
    error::{Error, Result},
    settle::Form,
};

/// All parameters, in order. An absent one is the empty text, as with Go's `Form.Get`.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut query = match parts.extensions.get::<Form>() {
            Some(Form(text)) => Self::parse(text)?,
            None => Self::default(),
        };
        query.0.extend(Self::parse(parts.uri.query().unwrap_or_default())?.0);
        Ok(query)
    }
}

impl Query {
    /// Splits and unescapes.
    ///
    /// # Errors
    /// 400 `invalid URL escape "%zz"`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(Error::invalid("invalid semicolon separator in query"));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((unescape(key)?, unescape(value)?));
        }
        Ok(Self(pairs))
    }

    /// Returns the first value, or the empty text.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    /// Returns the first value if it is there and not empty.
    pub fn optional(&self, key: &str) -> Option<&str> {
        Some(self.get(key)).filter(|value| !value.is_empty())
    }

    /// Returns every value of a parameter that may be repeated.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there, even if empty.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Reads a boolean: false is the empty text, `0`, `no`, `false` and `none` in any case, all else is true.
    pub fn bool(&self, key: &str) -> bool {
        let value = self.get(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Query::bool`], with a default for a parameter that is not there at all.
    pub fn bool_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) { self.bool(key) } else { default }
    }

    /// Reads a number; `None` if absent or empty.
    ///
    /// # Errors
    /// As Docker: **500** `strconv.Atoi: parsing "x": invalid syntax`.
    pub fn int(&self, key: &str) -> Result<Option<i64>, Error> {
        let Some(text) = self.optional(key) else { return Ok(None) };
        parse_go_int(text)
            .map(Some)
            .map_err(|why| Error::internal(format!("strconv.Atoi: parsing {text:?}: {why}")))
    }

    /// Reads a required size of a terminal.
    ///
    /// # Errors
    /// 400 `invalid resize height "x": invalid syntax`, as Docker has it.
    pub fn dimension(&self, key: &str, what: &str) -> Result<u32, Error> {
        let text = self.get(key);
        // Docker reads a signed number first, so that a negative one is out of range.
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let why = match digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
            false => "invalid syntax",
            true => match text.parse::<u32>() {
                Ok(value) => return Ok(value),
                Err(_) => "value out of range",
            },
        };
        Err(Error::invalid(format!("invalid resize {what} {text:?}: {why}")))
    }

    /// Reads the parameter `filters`.
    ///
    /// # Errors
    /// 400 `invalid filter`.
    pub fn filters(&self) -> Result<Filters, Error> {
        Filters::parse(self.get("filters"))
    }
}

/// Go's `strconv.Atoi`.
///
/// # Errors
/// `invalid syntax` or `value out of range`.
pub fn parse_go_int(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    text.parse().map_err(|_| "value out of range")
}

fn unescape(text: &str) -> Result<String, Error> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
                match (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
                    (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                    _ => {
                        let wrong = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]);
                        return Err(Error::invalid(format!("invalid URL escape {wrong:?}")));
                    }
                }
                at += 2;
            }
            other => out.push(other),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// `filters={"key":["a","b"]}`, or `{"key":{"a":true,"b":true}}` as Go's own client sends it. Values of one key are
/// alternatives, keys must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads either form; the empty text is no filter.
    ///
    /// # Errors
    /// 400 `invalid filter`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = || Error::invalid("invalid filter");
        let document = go_json::Document::parse(text.as_bytes()).map_err(|_| wrong())?;
        let entries = match document.value() {
            Value::Object(entries) => entries,
            Value::Null => return Ok(Self::default()),
            _ => return Err(wrong()),
        };
        let is_list = |value: &Value<'_>| matches!(value, Value::Array(_));
        let is_map = |value: &Value<'_>| matches!(value, Value::Object(_));
        // One form or the other, not both.
        let mut values = entries.iter().map(|(_, value)| value);
        if values.clone().any(is_list) && values.any(is_map) {
            return Err(wrong());
        }
        let mut filters = BTreeMap::<String, Vec<String>>::new();
        for (key, values) in entries {
            let known = filters.entry(key.to_string()).or_default();
            match values {
                Value::Null => {}
                Value::Array(items) => {
                    for item in items {
                        let Value::String(text) = item else { return Err(wrong()) };
                        known.push(text.to_string());
                    }
                }
                Value::Object(items) => {
                    for (text, on) in items {
                        match on {
                            Value::Bool(true) => known.push(text.to_string()),
                            // Go keeps the key of a false one too, and looks at keys only.
                            Value::Bool(false) => known.push(text.to_string()),
                            _ => return Err(wrong()),
                        }
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(Self(filters))
    }

    /// Adds a value, as if the client had sent it.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    /// Refuses keys that are not among `known`.
    ///
    /// # Errors
    /// 400 `invalid filter 'x'`.
    pub fn only(&self, known: &[&str]) -> Result<&Self, Error> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(self),
        }
    }

    /// Returns the values of a key; none is "no such filter".
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether there is a filter of that key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// No filter of that key, or one value for which `test` holds.
    pub fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// As [`Filters::any`] with equality.
    pub fn exact(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| value == text)
    }

    /// The `label` filters: each must hold, `name` for any value and `name=value` for that one.
    pub fn labels(&self, key: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.get(key).iter().all(|wanted| has_label(labels, wanted))
    }

    /// Prune's `label!`: none of them may hold.
    pub fn no_labels(&self, key: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        !self.get(key).iter().any(|unwanted| has_label(labels, unwanted))
    }

    /// Reads a filter that is a boolean (`1`, `true`, `0`, `false`); `None` if absent.
    ///
    /// # Errors
    /// 400 `invalid filter 'dangling=[…]'`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        let values = self.get(key);
        let has = |words: [&str; 2]| values.iter().any(|value| words.contains(&value.as_str()));
        match (values.is_empty(), has(["1", "true"]), has(["0", "false"])) {
            (true, ..) => Ok(None),
            (false, true, false) => Ok(Some(true)),
            (false, false, true) => Ok(Some(false)),
            _ => Err(Error::invalid(format!("invalid filter '{key}=[{}]'", values.join(" ")))),
        }
    }

    /// As [`Filters::until`], where Docker calls the client's mistake its own.
    ///
    /// # Errors
    /// 500.
    pub fn until_or_internal(&self) -> Result<Option<i64>, Error> {
        self.until().map_err(|error| Error::internal(error.message()))
    }

    /// Reads prune's `until`: a time (see [`super::time::parse`]); `None` if absent.
    ///
    /// # Errors
    /// 400 for more than one, or one that is no time.
    pub fn until(&self) -> Result<Option<i64>, Error> {
        match self.get("until") {
            [] => Ok(None),
            [one] => super::time::parse(one).map(Some).map_err(|_| {
                Error::invalid(format!("failed to parse value as time or duration: {one:?}"))
            }),
            _ => Err(Error::invalid("more than one until filter specified")),
        }
    }
}

fn has_label(labels: Option<&BTreeMap<String, String>>, wanted: &str) -> bool {
    let Some(labels) = labels else { return false };
    match wanted.split_once('=') {
        None => labels.contains_key(wanted),
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_dockers() {
        let query = Query::parse("a=1&b=false&c=True&d=None&e=&f").unwrap();
        let read: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g"].map(|key| query.bool(key)).into();
        assert_eq!(read, [true, false, true, false, false, false, false]);
        assert!(query.bool_or("g", true) && !query.bool_or("f", true));
    }

    #[test]
    fn numbers_fail_with_gos_words() {
        let query = Query::parse("a=x&b=-3&c=99999999999999999999").unwrap();
        assert_eq!(
            query.int("a").unwrap_err().message(),
            "strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(query.int("b").unwrap(), Some(-3));
        assert!(query.int("c").unwrap_err().message().ends_with("value out of range"));
        assert_eq!(query.int("d").unwrap(), None);
    }

    #[test]
    fn escapes_are_undone_or_refused() {
        assert_eq!(Query::parse("n=a%20b+c").unwrap().get("n"), "a b c");
        assert_eq!(Query::parse("n=%zz").unwrap_err().message(), "invalid URL escape \"%zz\"");
    }

    #[test]
    fn both_forms_of_filters_are_one() {
        let list = Filters::parse(r#"{"name":["a","b"]}"#).unwrap();
        assert_eq!(list, Filters::parse(r#"{"name":{"a":true,"b":true}}"#).unwrap());
        assert!(list.exact("name", "b") && !list.exact("name", "c") && list.exact("other", "x"));
    }

    #[test]
    fn broken_and_unknown_filters_are_refused() {
        for wrong in ["xx", "[]", r#"{"a":"b"}"#, r#"{"a":[1]}"#, r#"{"a":["x"],"b":{"x":true}}"#] {
            assert_eq!(Filters::parse(wrong).unwrap_err().message(), "invalid filter", "{wrong}");
        }
        let filters = Filters::parse(r#"{"bad":["x"]}"#).unwrap();
        assert_eq!(filters.only(&["name"]).unwrap_err().message(), "invalid filter 'bad'");
    }

    #[test]
    fn every_label_must_hold() {
        let labels =
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let check = |text: &str| Filters::parse(text).unwrap().labels("label", Some(&labels));
        assert!(check(r#"{"label":["a","b=2"]}"#));
        assert!(!check(r#"{"label":["a","b=3"]}"#));
        assert!(!check(r#"{"label":["c"]}"#));
    }
}
