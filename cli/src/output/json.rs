//! JSON as text: taken apart and put together again without touching its values.

/// Removes the blanks between tokens.
///
/// # Errors
/// It is no JSON; in Go's words where they are simple.
pub fn compact(text: &[u8]) -> Result<String, String> {
    let raw: Box<serde_json::value::RawValue> =
        serde_json::from_slice(text).map_err(|error| go_message(text, &error))?;
    let mut out = String::new();
    tokens(raw.get(), |token| out.push_str(token));
    Ok(out)
}

/// What Go says about broken JSON, for the commonest faults.
pub fn go_message(content: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let lines = content.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let before: usize = lines.map(|line| line.len() + 1).sum();
    match content.get(before + error.column().saturating_sub(1)) {
        Some(byte) if error.is_syntax() => {
            let place = if error.to_string().starts_with("key must be") {
                "looking for beginning of object key string"
            } else {
                "looking for beginning of value"
            };
            format!("invalid character {} {place}", crate::go::quote_rune(*byte as char))
        }
        _ => error.to_string(),
    }
}

/// Indents with `indent`, as Go's `json.Indent` does: empty lists and objects stay on one line.
pub fn indent(text: &str, indent: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let mut opened = false;
    tokens(text, |token| {
        let closing = matches!(token, "]" | "}");
        if closing {
            depth -= 1;
        }
        if opened != closing {
            line(&mut out, indent, depth);
        }
        opened = false;
        match token {
            "[" | "{" => {
                out.push_str(token);
                depth += 1;
                opened = true;
            }
            ":" => out.push_str(": "),
            "," => {
                out.push(',');
                line(&mut out, indent, depth);
            }
            token => out.push_str(token),
        }
    });
    out
}

fn line(out: &mut String, indent: &str, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(indent);
    }
}

/// Calls `found` with each token: brackets, commas, colons, strings, and the rest.
fn tokens<'a>(text: &'a str, mut found: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
            }
            b'[' | b']' | b'{' | b'}' | b',' | b':' => at += 1,
            _ => {
                while at < bytes.len()
                    && !matches!(
                        bytes[at],
                        b' ' | b'\t' | b'\r' | b'\n' | b']' | b'}' | b',' | b':'
                    )
                {
                    at += 1;
                }
            }
        }
        found(&text[start..at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_leaves_empty_ones_closed() {
        let text = r#"[{"a": {}, "b":[ ],"c":[1,"x,]"]}]"#;
        let expected = "[\n    {\n        \"a\": {},\n        \"b\": [],\n        \"c\": [\n            1,\n            \"x,]\"\n        ]\n    }\n]";
        assert_eq!(indent(text, "    "), expected);
    }

    #[test]
    fn compact_json_has_no_blanks_outside_strings() {
        assert_eq!(compact(b" { \"a b\" : [ 1 , 2 ] }\n"), Ok(r#"{"a b":[1,2]}"#.into()));
        assert_eq!(compact(b"{"), Err("unexpected end of JSON input".into()));
    }
}
