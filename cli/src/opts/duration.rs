//! Durations in Go's notation: `1m30s`, `500ms`.

use cleat_proto::docker::go_duration::{self, Error};

use crate::go;

/// Reads a duration in nanoseconds.
///
/// # Errors
/// In the words of Go's `time.ParseDuration`.
pub fn parse(text: &str) -> Result<i64, String> {
    let quoted = || go::quote(text);
    go_duration::parse(text).map_err(|error| match error {
        Error::Invalid => format!("time: invalid duration {}", quoted()),
        Error::MissingUnit => format!("time: missing unit in duration {}", quoted()),
        Error::UnknownUnit(unit) => {
            format!("time: unknown unit {} in duration {}", go::quote(&unit), quoted())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts() {
        assert_eq!(parse("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse("-1.5h"), Ok(-5_400_000_000_000));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn a_number_needs_its_unit() {
        assert_eq!(parse("1"), Err("time: missing unit in duration \"1\"".into()));
        assert_eq!(parse("1x"), Err("time: unknown unit \"x\" in duration \"1x\"".into()));
        assert_eq!(parse("bad"), Err("time: invalid duration \"bad\"".into()));
    }
}
