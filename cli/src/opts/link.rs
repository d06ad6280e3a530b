//! Links to other containers: `NAME` or `NAME:ALIAS`.

/// Checks a link.
///
/// # Errors
/// Empty, or more than one colon.
pub fn validate(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Err("empty string specified for links".into());
    }
    if value.splitn(3, ':').count() > 2 {
        return Err(format!("bad format for links: {value}"));
    }
    Ok(value.to_owned())
}
