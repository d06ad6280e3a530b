//! `--security-opt`: seccomp profiles are read here and sent whole.

use crate::go;

/// What the options become in the request.
#[derive(Debug, Default, PartialEq)]
pub struct Security {
    /// `HostConfig.SecurityOpt`.
    pub options: Option<Vec<String>>,
    /// `systempaths=unconfined` was given: no path is masked or read-only.
    pub open_system_paths: bool,
}

/// Reads the options.
///
/// # Errors
/// An option without a value, a profile that cannot be read or is no JSON.
pub fn parse(options: Vec<String>) -> Result<Security, String> {
    if options.is_empty() {
        return Ok(Security::default());
    }
    let mut security = Security { options: Some(Vec::new()), open_system_paths: false };
    for option in options {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':').filter(|_| option != "no-new-privileges"))
            .unwrap_or((&option, ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {}", go::quote(&option)));
        }
        let kept = match (key, value) {
            ("seccomp", "builtin" | "unconfined") => option,
            ("seccomp", file) => format!("seccomp={}", profile(file)?),
            _ => option,
        };
        if kept == "systempaths=unconfined" {
            security.open_system_paths = true;
        } else {
            security.options.get_or_insert_default().push(kept);
        }
    }
    Ok(security)
}

fn profile(file: &str) -> Result<String, String> {
    let content = std::fs::read(file).map_err(|error| {
        format!("opening seccomp profile ({file}) failed: {}", go::path_error("open", file, &error))
    })?;
    crate::output::json::compact(&content)
        .map_err(|error| format!("compacting json for seccomp profile ({file}) failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_and_sent_compact() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{ \"a\": [1,\n 2] }\n").unwrap();
        let security = parse(vec![format!("seccomp={}", file.path().display())]).unwrap();
        assert_eq!(security.options, Some(vec!["seccomp={\"a\":[1,2]}".into()]));
    }

    #[test]
    fn system_paths_are_taken_out() {
        let security =
            parse(vec!["systempaths=unconfined".into(), "no-new-privileges".into()]).unwrap();
        assert!(security.open_system_paths);
        assert_eq!(security.options, Some(vec!["no-new-privileges".into()]));
        assert_eq!(parse(vec!["x".into()]), Err("Invalid --security-opt: \"x\"".into()));
    }
}
