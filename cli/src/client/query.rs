//! The query of a request.

/// Keys and values, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// One pair to begin with.
    pub fn of(key: &str, value: impl Into<String>) -> Self {
        Self::default().with(key, value)
    }

    /// Adds a pair.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.add(key, value);
        self
    }

    /// Adds a pair if `value` is not empty.
    pub fn with_some(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(key, value) }
    }

    /// Adds a pair.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into()));
    }

    /// `?a=b&c=d`, or nothing.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(&escape(key, false));
            text.push('=');
            text.push_str(&escape(value, false));
        }
        text
    }
}

/// Percent-encodes; slashes stay if `path`.
pub fn escape(text: &str, path: bool) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte as char)
            }
            b'/' | b':' | b'@' if path => escaped.push(byte as char),
            byte => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        assert_eq!(Query::of("a", "b c&d").with("e", "/").render(), "?a=b%20c%26d&e=%2F");
    }
}
