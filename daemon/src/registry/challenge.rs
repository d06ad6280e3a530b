//! `WWW-Authenticate`: RFC 9110, 11.6.1.

/// How a registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: String,
    },
}

/// Reads all challenges of a header's value; schemes that we do not know are left out.
pub fn parse(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len());
        let scheme = rest[..end].trim_end_matches(',').to_ascii_lowercase();
        let (params, after) = parameters(rest[end..].trim_start());
        let get = |name: &str| {
            let value = params.iter().find(|(key, _)| key == name);
            value.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        match scheme.as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" if !get("realm").is_empty() => {
                found.push(Challenge::Bearer { realm: get("realm"), service: get("service") });
            }
            _ => {}
        }
        rest = after.trim_start();
    }
    found
}

/// Reads `key=value` pairs until a word without `=`, which begins the next challenge.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut params = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let Some((key, after)) = rest.split_once('=') else { return (params, rest) };
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == ',') {
            return (params, rest);
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        params.push((key.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into() }
    }

    #[test]
    fn a_challenge_says_how_and_where() {
        for (text, expected) in [
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://a/token?x=1,2",service="s",scope="repository:a:pull,push""#,
                vec![bearer("https://a/token?x=1,2", "s")],
            ),
            (r#"Negotiate, Basic realm="a b""#, vec![Challenge::Basic]),
            (
                r#"Bearer realm=https://a, service=s, Basic realm="q\"q""#,
                vec![bearer("https://a", "s"), Challenge::Basic],
            ),
            ("Bearer", vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", "")]),
            (",,,", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
