//! Environment variables from flags and files.

use crate::go;

/// Checks one `KEY`, `KEY=VALUE` of `--env`; a bare key takes its value from our own environment, if it has one.
///
/// # Errors
/// An empty name.
pub fn validate(value: &str) -> Result<String, String> {
    let (key, has_value) = value.split_once('=').map_or((value, false), |(key, _)| (key, true));
    if key.is_empty() {
        return Err(format!("invalid environment variable: {value}"));
    }
    if has_value {
        return Ok(value.to_owned());
    }
    Ok(std::env::var(key).map_or_else(|_| value.to_owned(), |found| format!("{key}={found}")))
}

/// Reads the files' variables, then adds the flags'. `lookup` answers for names without a value.
///
/// # Errors
/// A file that cannot be read, or a line that is no variable.
pub fn read(
    files: &[String],
    flags: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<Vec<String>>, String> {
    let mut variables = Vec::new();
    for file in files {
        let content = std::fs::read(file).map_err(|error| go::path_error("open", file, &error))?;
        let parsed = parse_file(&content, &lookup)
            .map_err(|reason| format!("invalid env file ({file}): {reason}"))?;
        variables.extend(parsed);
    }
    variables.extend_from_slice(flags);
    Ok(Some(variables).filter(|variables| !variables.is_empty()))
}

/// Our own environment, for [`read`].
pub fn from_environment(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

fn parse_file(
    content: &[u8],
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut variables = Vec::new();
    let mut lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    for (index, line) in lines.into_iter().enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| {
            let bytes: Vec<String> = line.iter().map(u8::to_string).collect();
            format!("invalid utf8 bytes at line {}: [{}]", index + 1, bytes.join(" "))
        })?;
        let text = if index == 0 { text.trim_start_matches('\u{feff}') } else { text };
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (key, has_value) = text.split_once('=').map_or((text, false), |(key, _)| (key, true));
        if key.is_empty() {
            return Err(format!("no variable name on line '{text}'"));
        }
        if key.contains([' ', '\t']) {
            return Err(format!("variable '{key}' contains whitespaces"));
        }
        if has_value {
            variables.push(text.to_owned());
        } else if let Some(value) = lookup(text) {
            variables.push(format!("{key}={value}"));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_comments_and_names_from_the_environment() {
        let lookup = |key: &str| (key == "TAKEN").then(|| "yes".to_owned());
        let parsed = parse_file(b"# c\nA=1\n\n  B=two \nTAKEN\nMISSING\r\n", &lookup);
        assert_eq!(
            parsed.as_deref(),
            Ok(&["A=1".to_owned(), "B=two ".into(), "TAKEN=yes".into()][..])
        );
    }

    #[test]
    fn a_name_with_a_blank_is_refused() {
        assert_eq!(
            parse_file(b"A B=1\n", &|_| None),
            Err("variable 'A B' contains whitespaces".into())
        );
        assert_eq!(parse_file(b"=1\n", &|_| None), Err("no variable name on line '=1'".into()));
    }

    #[test]
    fn a_flag_needs_a_name() {
        assert_eq!(validate("=x"), Err("invalid environment variable: =x".into()));
        assert_eq!(validate("A="), Ok("A=".into()));
    }
}
