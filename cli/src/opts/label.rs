//! Labels: `KEY` or `KEY=VALUE`.

/// Checks a label's name.
///
/// # Errors
/// An empty name, or one with blanks.
pub fn validate(value: &str) -> Result<String, String> {
    let key = value.split_once('=').map_or(value, |(key, _)| key).trim_start_matches([' ', '\t']);
    if key.is_empty() {
        return Err(format!("invalid label '{value}': empty name"));
    }
    if key.contains([' ', '\t']) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(value.to_owned())
}
