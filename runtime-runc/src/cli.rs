//! The command line, as `runc` has it: Go-style flags (`-x`, `--x`, `--x v`, `--x=v`), global ones before the verb, a verb's
//! before its arguments. Parsed by hand, since the worker's start-up time is part of every container's.

use crate::error::{Error, Result};
use crate::help;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a verb accepts.
pub struct Syntax {
    /// Flags with a value, as `name` or `name,short`.
    pub values: &'static [&'static str],
    /// Flags without.
    pub switches: &'static [&'static str],
    /// How many arguments there must be at least.
    pub least: usize,
    /// And at most.
    pub most: usize,
}

/// Every verb has it.
const HELP: &str = "help,h";

/// The flags before the verb.
pub const GLOBAL: Syntax = Syntax {
    values: &["root", "log", "log-format", "rootless", "criu", "die-with"],
    switches: &["debug", "systemd-cgroup", "version,v"],
    least: 0,
    most: usize::MAX,
};

/// A parsed command line, or the part of it that belongs to one verb.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, Vec<String>>,
    /// What is left after the flags.
    pub rest: Vec<String>,
}

impl Arguments {
    /// Takes the flags off the front of `words`; with `anywhere`, also those that come after an argument.
    ///
    /// # Errors
    /// [`Error::Usage`] for a flag that is not in `syntax`, and where a value is missing.
    pub fn parse(words: &[String], syntax: &Syntax, anywhere: bool) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                parsed.rest.push(word.clone());
                if anywhere {
                    continue;
                }
                break;
            };
            if flag == "-" {
                break;
            }
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if let Some(name) = find(syntax.switches, name).or_else(|| find(&[HELP], name)) {
                let value = match value {
                    None | Some("true" | "1") => "true",
                    Some("false" | "0") => continue,
                    Some(other) => {
                        return Err(Error::Usage(format!(
                            "invalid boolean value {other:?} for -{name}: parse error"
                        )));
                    }
                };
                parsed.values.entry(name).or_default().push(value.to_owned());
            } else if let Some(name) = find(syntax.values, name) {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None => words
                        .next()
                        .ok_or_else(|| Error::Usage(format!("flag needs an argument: -{name}")))?
                        .clone(),
                };
                parsed.values.entry(name).or_default().push(value);
            } else {
                return Err(Error::Usage(format!("flag provided but not defined: -{name}")));
            }
        }
        parsed.rest.extend(words.cloned());
        Ok(parsed)
    }

    /// Takes a verb's flags and checks the number of its arguments. With `--help` it prints what the verb takes and ends the
    /// process.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn parse_verb(verb: &str, words: &[String], syntax: &Syntax) -> Result<Self> {
        // What follows the container's name is a command line of its own there.
        let parsed = Self::parse(words, syntax, !matches!(verb, "exec" | "ps"))?;
        if parsed.has("help") {
            crate::say(help::of_verb(verb, syntax).trim_end_matches('\n'));
            std::process::exit(0);
        }
        let count = parsed.rest.len();
        let complaint = if count < syntax.least && syntax.least == syntax.most {
            format!("exactly {}", syntax.least)
        } else if count < syntax.least {
            format!("a minimum of {}", syntax.least)
        } else if count > syntax.most && syntax.least == syntax.most {
            format!("exactly {}", syntax.most)
        } else if count > syntax.most {
            format!("a maximum of {}", syntax.most)
        } else {
            return Ok(parsed);
        };
        Err(Error::Usage(format!("runc: {verb:?} requires {complaint} argument(s)")))
    }

    /// Returns whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns a flag's last value; an empty one is none.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a flag's last value as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// Returns every value of a flag that may be repeated.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns a flag's value as a number.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.value(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::Usage(format!("invalid value {text:?} for flag -{name}: parse error"))
                })
            })
            .transpose()
    }

    /// Refuses flags of `runc` that make a difference and that this worker has not.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn refuse(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| self.has(name)) {
            Some(name) => Err(Error::Usage(format!("--{name} is not supported by cleat-runc"))),
            None => Ok(()),
        }
    }
}

/// Returns the long name of a flag given by either.
fn find(flags: &[&'static str], given: &str) -> Option<&'static str> {
    flags.iter().find_map(|flag| {
        let (long, short) = flag.split_once(',').unwrap_or((flag, ""));
        (given == long || (!short.is_empty() && given == short)).then_some(long)
    })
}

/// Checks a container's name: it becomes a directory's.
///
/// # Errors
/// [`Error::Invalid`], as runc's `validateID`.
pub fn check_id(id: &str) -> Result<&str> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() {
        return Err(Error::Invalid("container id cannot be empty".to_owned()));
    }
    if id.len() > 255 || id == "." || id == ".." || !id.bytes().all(allowed) {
        return Err(Error::Invalid("invalid container ID format".to_owned()));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: Syntax = Syntax {
        values: &["env,e", "pid-file"],
        switches: &["tty,t", "detach,d"],
        least: 1,
        most: 99,
    };

    fn parse(line: &str) -> Result<Arguments> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse_verb("exec", &words, &EXEC)
    }

    #[test]
    fn flags_end_at_the_first_argument() {
        let parsed = parse("-t --env A=b -e=C=d web ls -d --env x").unwrap();
        assert!(parsed.has("tty") && !parsed.has("detach"));
        assert_eq!(parsed.all("env"), ["A=b", "C=d"]);
        assert_eq!(parsed.rest, ["web", "ls", "-d", "--env", "x"]);
    }

    #[test]
    fn flags_of_other_verbs_may_follow_the_argument() {
        let words = ["web", "--pid-file", "x", "-d", "--", "-t"].map(str::to_owned);
        let parsed = Arguments::parse_verb("update", &words, &EXEC).unwrap();
        assert_eq!(parsed.value("pid-file"), Some("x"));
        assert!(parsed.has("detach") && !parsed.has("tty"));
        assert_eq!(parsed.rest, ["web", "-t"]);
    }

    #[test]
    fn two_dashes_end_the_flags() {
        assert_eq!(parse("-- -t").unwrap().rest, ["-t"]);
    }

    #[test]
    fn unknown_flags_and_missing_values_are_usage_errors() {
        assert_eq!(
            parse("--nope web").unwrap_err().to_string(),
            "flag provided but not defined: -nope"
        );
        assert_eq!(parse("--env").unwrap_err().to_string(), "flag needs an argument: -env");
        assert_eq!(
            parse("").unwrap_err().to_string(),
            "runc: \"exec\" requires a minimum of 1 argument(s)"
        );
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        assert!(["", ".", "..", "a/b", "a b", "\u{e9}"].iter().all(|id| check_id(id).is_err()));
        assert!(["a", "A-1_2.3+4", "..."].iter().all(|id| check_id(id).is_ok()));
    }
}
