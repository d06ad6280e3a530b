//! Filters of lists: `NAME=VALUE`, sent as a JSON object of sets.

use std::collections::BTreeMap;

/// Checks one `--filter` and writes its name in lower case. The empty filter is dropped.
///
/// # Errors
/// No equals sign.
pub fn check(value: &str) -> Result<Vec<String>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let (name, text) = value.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok(vec![format!("{}={}", name.trim().to_lowercase(), text.trim())])
}

/// Filters as the API takes them: a map of sets.
#[derive(Clone, Debug, Default)]
pub struct Filters(BTreeMap<String, BTreeMap<String, bool>>);

impl Filters {
    /// Collects checked `NAME=VALUE` words.
    pub fn new(words: &[String]) -> Self {
        let mut filters = Self::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            filters.add(name, value);
        }
        filters
    }

    /// Adds a value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned(), true);
    }

    /// Whether `name` has `value`.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.0.get(name).is_some_and(|values| values.contains_key(value))
    }

    /// Whether `name` is filtered by at all.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON text for a query.
    pub fn json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}
