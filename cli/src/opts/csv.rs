//! Comma-separated values on one line, with double quotes, as Go's `encoding/csv` reads them.

/// Splits a line into its fields.
///
/// # Errors
/// A misplaced quote, in Go's words.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".into());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) =
            if rest.starts_with('"') { quoted(line, rest)? } else { bare(line, rest)? };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn bare<'a>(line: &str, rest: &'a str) -> Result<(String, Option<&'a str>), String> {
    let (field, after) = match rest.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (rest, None),
    };
    if let Some(at) = field.find('"') {
        let column = line.len() - rest.len() + at + 1;
        return Err(format!("parse error on line 1, column {column}: bare \" in non-quoted-field"));
    }
    Ok((field.to_owned(), after))
}

fn quoted<'a>(line: &str, rest: &'a str) -> Result<(String, Option<&'a str>), String> {
    let mut field = String::new();
    let mut rest = &rest[1..];
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            let column = line.len() + 1;
            return Err(format!(
                "record on line 1; parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
            ));
        };
        field.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Ok((field, None));
        } else if let Some(after) = after.strip_prefix(',') {
            return Ok((field, Some(after)));
        } else {
            let column = line.len() - after.len();
            return Err(format!(
                "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(
            fields(r#"a,"b=c,d",e"#).as_deref(),
            Ok(&["a".to_owned(), "b=c,d".into(), "e".into()][..])
        );
        assert_eq!(fields(r#""a""b""#).as_deref(), Ok(&["a\"b".to_owned()][..]));
    }

    #[test]
    fn a_quote_inside_a_bare_field_is_refused_with_its_column() {
        assert_eq!(
            fields(r#"ab"c"#),
            Err("parse error on line 1, column 3: bare \" in non-quoted-field".into())
        );
    }
}
