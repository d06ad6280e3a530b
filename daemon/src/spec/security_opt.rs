//! `--security-opt`: `no-new-privileges`, `seccomp=…`, `label=…`, `apparmor=…`, `writable-cgroups`.

use super::Error;

/// What the options say, put together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `no-new-privileges[=true]`.
    pub no_new_privileges: bool,
    /// `writable-cgroups[=…]`; absent: as privileged.
    pub writable_cgroups: Option<bool>,
    /// The filter.
    pub seccomp: Seccomp,
}

/// Which filter.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Nothing was said: the default profile, none for a privileged container.
    #[default]
    Default,
    /// `builtin`: the default profile, said aloud.
    Builtin,
    /// `unconfined`.
    Unconfined,
    /// A profile's text.
    Profile(String),
}

/// Reads the options.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words for what is no option, and for what this host does not have.
pub fn parse(options: &[String]) -> Result<SecurityOptions, Error> {
    let mut parsed = SecurityOptions::default();
    for option in options {
        let second = || Error::Unsound(format!("invalid --security-opt 2: {option:?}"));
        let (key, value) = match option.as_str() {
            "no-new-privileges" => ("no-new-privileges", "true"),
            "writable-cgroups" => ("writable-cgroups", "true"),
            "disable" => ("label", "disable"),
            text => text
                .split_once('=')
                .or_else(|| text.split_once(':'))
                .ok_or_else(|| Error::Unsound(format!("invalid --security-opt 1: {option:?}")))?,
        };
        match key {
            "no-new-privileges" => parsed.no_new_privileges = boolean(value).ok_or_else(second)?,
            "writable-cgroups" => {
                parsed.writable_cgroups = Some(boolean(value).ok_or_else(second)?)
            }
            "seccomp" => {
                parsed.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" | "default" => Seccomp::Builtin,
                    text => Seccomp::Profile(text.to_owned()),
                };
            }
            // Without SELinux there are no labels, and nobody reads what they should be.
            "label" => {}
            "apparmor"
                if matches!(value, "unconfined" | "docker-default" | "")
                    || !super::apparmor_is_enabled() => {}
            "apparmor" => {
                return Err(Error::Invalid(format!(
                    "the AppArmor profile {value:?} cannot be applied: profiles are not supported yet"
                )));
            }
            _ => return Err(second()),
        }
    }
    Ok(parsed)
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Result<SecurityOptions, String> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        parse(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn both_separators_and_the_bare_form_count() {
        assert!(read(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(read(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!read(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(read(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(read(&["label=disable"]).unwrap(), SecurityOptions::default());
    }

    #[test]
    fn what_is_no_option_is_refused_in_dockers_words() {
        assert_eq!(read(&["bogus=1"]).unwrap_err(), "invalid --security-opt 2: \"bogus=1\"");
        assert_eq!(read(&["bogus"]).unwrap_err(), "invalid --security-opt 1: \"bogus\"");
        assert_eq!(
            read(&["no-new-privileges=x"]).unwrap_err(),
            "invalid --security-opt 2: \"no-new-privileges=x\""
        );
    }
}
