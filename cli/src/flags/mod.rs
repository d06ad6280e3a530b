//! Flags as docker parses them (pflag's rules): long and short forms, clusters, `--x=v` and `--x v`, values checked as they are set.
//!
//! A command's flags are a table ([`Flag`]); what was given becomes [`Flags`]. The texts of refusals are pflag's.

mod help;
mod kind;

pub use help::flag_usages;
pub use kind::Kind;

use crate::go;

/// One row of a command's flag table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// `\0` for none.
    pub short: char,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given, as text.
    pub default: &'static str,
    /// For `--help`.
    pub help: &'static str,
    /// Accepted, not listed.
    pub hidden: bool,
    /// The flag whose values it adds to; its own name unless it is an old spelling.
    pub target: &'static str,
    /// The API version it needs.
    pub since: &'static str,
    /// Only a daemon on Windows has it.
    pub windows: bool,
}

/// A row without a short form.
pub const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag {
        name,
        short: '\0',
        kind,
        default: "",
        help,
        hidden: false,
        target: name,
        since: "",
        windows: false,
    }
}

/// A row with a short form.
pub const fn short(short: char, name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { short, ..flag(name, kind, help) }
}

impl Flag {
    /// Sets the value where none is given.
    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// Leaves it out of `--help`.
    pub const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// Makes it an older spelling of another flag.
    pub const fn spelling_of(self, target: &'static str) -> Self {
        Self { hidden: true, target, ..self }
    }

    /// Leaves it to daemons on Windows. Not listed, as we ask none.
    pub const fn windows(self) -> Self {
        Self { windows: true, hidden: true, ..self }
    }

    /// Names the API version it needs.
    pub const fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    /// `-n, --last` or `--last`, as refusals name it.
    fn title(&self) -> String {
        if self.short == '\0' {
            format!("--{}", self.name)
        } else {
            format!("-{}, --{}", self.short, self.name)
        }
    }
}

/// What was given, in order.
#[derive(Debug, Default)]
pub struct Flags {
    table: Vec<&'static Flag>,
    given: Vec<(&'static str, String)>,
    old: Vec<&'static str>,
}

/// The outcome of parsing.
#[derive(Debug)]
pub enum Parsed {
    /// Flags and positional arguments.
    Run(Flags, Vec<String>),
    /// Help was asked for; true if by the deprecated `-h`.
    Help(bool),
}

impl Flags {
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        debug_assert!(
            self.table.iter().any(|flag| flag.name == name),
            "no flag {name} in the table"
        );
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Whether it was given at all.
    pub fn changed(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The last value given, or the default.
    pub fn text(&self, name: &str) -> &str {
        self.values(name).next_back().unwrap_or_else(|| {
            self.table.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default)
        })
    }

    /// A boolean's value.
    pub fn on(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).unwrap_or(false)
    }

    /// A number's value.
    pub fn int(&self, name: &str) -> i64 {
        let text = self.text(name);
        go::parse_int(text, 0, 64).unwrap_or(0)
    }

    /// A size in bytes.
    pub fn bytes(&self, name: &str) -> i64 {
        match self.text(name) {
            "" => 0,
            "-1" => -1,
            text => crate::opts::size::ram_in_bytes(text).unwrap_or(0),
        }
    }

    /// All values, in order.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.values(name).map(str::to_owned).collect()
    }

    /// All values, `None` if there are none: a Go slice that was never appended to.
    pub fn slice(&self, name: &str) -> Option<Vec<String>> {
        Some(self.list(name)).filter(|values| !values.is_empty())
    }

    /// The given flags that need an API version, with it.
    pub fn version_needs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let mut needs: Vec<_> = self
            .table
            .iter()
            .filter(|flag| {
                !flag.since.is_empty() && self.given.iter().any(|(given, _)| *given == flag.name)
            })
            .map(|flag| (flag.name, flag.since))
            .collect();
        needs.sort_unstable();
        needs.into_iter()
    }

    /// The old spellings given that announce their end, with the new ones. Only `--time` does.
    pub fn deprecated(&self) -> Option<(&'static str, &'static str)> {
        self.old.contains(&"time").then_some(("time", "timeout"))
    }

    /// The given flags that only daemons on Windows have.
    pub fn windows_only(&self) -> Vec<&'static str> {
        let given = |flag: &&&'static Flag| {
            flag.windows && self.given.iter().any(|(given, _)| *given == flag.name)
        };
        let mut names: Vec<_> = self.table.iter().filter(given).map(|flag| flag.name).collect();
        names.sort_unstable();
        names
    }

    fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        let values = flag.kind.check(value).map_err(|reason| {
            format!(
                "invalid argument {} for {} flag: {reason}",
                go::quote(value),
                go::quote(&flag.title())
            )
        })?;
        if flag.target != flag.name {
            self.old.push(flag.name);
        }
        self.given.extend(values.into_iter().map(|value| (flag.target, value)));
        Ok(())
    }
}

/// Parses `args` by the table. With `options_first` the first positional argument ends the flags.
///
/// # Errors
/// pflag's text of what is wrong.
pub fn parse(
    table: &[&'static [Flag]],
    args: &[String],
    options_first: bool,
) -> Result<Parsed, String> {
    let table: Vec<&'static Flag> = table.iter().flat_map(|part| part.iter()).collect();
    let mut flags = Flags { table, given: Vec::new(), old: Vec::new() };
    let mut positional = Vec::new();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            positional.extend(rest.cloned());
            break;
        }
        let step = if let Some(long) = word.strip_prefix("--") {
            parse_long(&mut flags, word, long, &mut rest)?
        } else if word.len() > 1 && word.starts_with('-') {
            parse_cluster(&mut flags, &word[1..], &mut rest)?
        } else {
            positional.push(word.clone());
            if options_first {
                positional.extend(rest.cloned());
                break;
            }
            continue;
        };
        if let Step::Help(deprecated) = step {
            return Ok(Parsed::Help(deprecated));
        }
    }
    if flags.table.iter().any(|flag| flag.name == "help") && flags.on("help") {
        return Ok(Parsed::Help(false));
    }
    Ok(Parsed::Run(flags, positional))
}

enum Step {
    Next,
    Help(bool),
}

type Words<'a> = std::slice::Iter<'a, String>;

fn parse_long(
    flags: &mut Flags,
    word: &str,
    long: &str,
    rest: &mut Words<'_>,
) -> Result<Step, String> {
    if long.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {word}"));
    }
    let (name, inline) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    let Some(flag) = flags.table.iter().copied().find(|flag| flag.name == name) else {
        return if name == "help" {
            Ok(Step::Help(false))
        } else {
            Err(format!("unknown flag: --{name}"))
        };
    };
    let value = match (inline, flag.kind) {
        (Some(value), _) => value,
        (None, Kind::Bool) => "true",
        (None, _) => rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    flags.set(flag, value)?;
    Ok(Step::Next)
}

fn parse_cluster(flags: &mut Flags, cluster: &str, rest: &mut Words<'_>) -> Result<Step, String> {
    let mut at = 0;
    while let Some(letter) = cluster[at..].chars().next() {
        let here = &cluster[at..];
        let after = &here[letter.len_utf8()..];
        let Some(flag) = flags.table.iter().copied().find(|flag| flag.short == letter) else {
            if letter == 'h' {
                return Ok(Step::Help(true));
            }
            return Err(format!("unknown shorthand flag: {} in -{here}", go::quote_rune(letter)));
        };
        if let Some(value) = after.strip_prefix('=').filter(|value| !value.is_empty()) {
            flags.set(flag, value)?;
            return Ok(Step::Next);
        }
        if flag.kind == Kind::Bool {
            flags.set(flag, "true")?;
            at += letter.len_utf8();
            continue;
        }
        let value = if after.is_empty() {
            rest.next().ok_or_else(|| {
                format!("flag needs an argument: {} in -{here}", go::quote_rune(letter))
            })?
        } else {
            after
        };
        flags.set(flag, value)?;
        return Ok(Step::Next);
    }
    Ok(Step::Next)
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[Flag] = &[
        short('a', "all", Kind::Bool, ""),
        short('n', "last", Kind::Int, "").default("-1"),
        short('e', "env", Kind::List, ""),
        flag("dns-option", Kind::List, ""),
        flag("dns-opt", Kind::List, "").spelling_of("dns-option"),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[track_caller]
    fn given(text: &str, first: bool) -> (Flags, Vec<String>) {
        match parse(&[TABLE], &words(text), first) {
            Ok(Parsed::Run(flags, rest)) => (flags, rest),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        match parse(&[TABLE], &words(text), false) {
            Err(reason) => assert_eq!(reason, expected, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn flags_and_arguments_mix_unless_the_first_argument_ends_them() {
        let (flags, rest) = given("x -a y", false);
        assert!(flags.on("all"));
        assert_eq!(rest, ["x", "y"]);
        let (flags, rest) = given("x -a y", true);
        assert!(!flags.on("all"));
        assert_eq!(rest, ["x", "-a", "y"]);
    }

    #[test]
    fn clusters_take_a_value_at_their_end() {
        let (flags, _) = given("-aeA=1 -n 3 -e=B --all=false", false);
        assert_eq!(flags.list("env"), ["A=1", "B"]);
        assert_eq!(flags.int("last"), 3);
        assert!(!flags.on("all"));
    }

    #[test]
    fn an_old_spelling_adds_to_the_new_flag() {
        let (flags, _) = given("--dns-opt a --dns-option b", false);
        assert_eq!(flags.list("dns-option"), ["a", "b"]);
    }

    #[test]
    fn two_dashes_end_the_flags() {
        assert_eq!(given("-- -a", false).1, ["-a"]);
    }

    #[test]
    fn refusals_have_pflags_words() {
        refused("--bogus", "unknown flag: --bogus");
        refused("-aZ", "unknown shorthand flag: 'Z' in -Z");
        refused("--env", "flag needs an argument: --env");
        refused("-ae", "flag needs an argument: 'e' in -e");
        refused("--=x", "bad flag syntax: --=x");
        refused(
            "-n x",
            r#"invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax"#,
        );
        refused(
            "--all=x",
            r#"invalid argument "x" for "-a, --all" flag: strconv.ParseBool: parsing "x": invalid syntax"#,
        );
    }
}
