//! `--change` of import and commit: Dockerfile instructions that set a configuration's fields.
//!
//! Source: Dockerfile reference, for the instructions; Engine API v1.51, ImageCommit, for which of them are allowed. Error
//! texts are Docker's.

use std::collections::BTreeMap;

use cleat_proto::docker::{
    container::{Config, Empty, HealthConfig, StrSlice},
    go_duration,
};

use super::Error;

/// What a shell-form command is run by.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions, one a line, to a configuration.
///
/// # Errors
/// [`Error::Invalid`], in Docker's words.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let text = changes.join("\n");
    let lines = logical_lines(&text);
    if lines.is_empty() {
        return Err(invalid("file with no instructions"));
    }
    let mut instructions = Vec::with_capacity(lines.len());
    for line in &lines {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = Instruction::named(word)
            .ok_or_else(|| invalid(format!("{word} is not a valid change command")))?;
        instructions.push((instruction, rest.trim()));
    }
    let mut cmd_is_set = false;
    for (instruction, rest) in instructions {
        instruction.apply(config, rest, &mut cmd_is_set)?;
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}

/// Joins lines that end with a backslash, and leaves comments and empty lines out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        match trimmed.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(trimmed);
                lines.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.is_empty() {
        lines.push(open);
    }
    lines
}

#[derive(Clone, Copy)]
enum Instruction {
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    OnBuild,
    StopSignal,
    User,
    Volume,
    Workdir,
}

impl Instruction {
    fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "CMD" => Self::Cmd,
            "ENTRYPOINT" => Self::Entrypoint,
            "ENV" => Self::Env,
            "EXPOSE" => Self::Expose,
            "HEALTHCHECK" => Self::Healthcheck,
            "LABEL" => Self::Label,
            "ONBUILD" => Self::OnBuild,
            "STOPSIGNAL" => Self::StopSignal,
            "USER" => Self::User,
            "VOLUME" => Self::Volume,
            "WORKDIR" => Self::Workdir,
            _ => return None,
        })
    }

    fn apply(self, config: &mut Config, rest: &str, cmd_is_set: &mut bool) -> Result<(), Error> {
        match self {
            Self::Cmd => {
                config.cmd = command(config, rest);
                *cmd_is_set = true;
            }
            Self::Entrypoint => {
                config.entrypoint = if rest.is_empty() { None } else { command(config, rest) };
                // The base's command is an argument of the base's entrypoint, and means nothing to another.
                if !*cmd_is_set {
                    config.cmd = None;
                }
            }
            Self::Env => env(config, rest)?,
            Self::Expose => expose(config, rest)?,
            Self::Healthcheck => config.healthcheck = Some(healthcheck(config, rest)?),
            Self::Label => {
                let pairs = pairs("LABEL", rest, config)?;
                config.labels.get_or_insert_default().extend(pairs);
            }
            Self::OnBuild => on_build(config, rest)?,
            Self::StopSignal => {
                let signal = expand(&one("STOPSIGNAL", rest)?, config);
                if !is_signal(&signal) {
                    return Err(invalid(format!("invalid signal: {signal}")));
                }
                config.stop_signal = signal;
            }
            Self::User => config.user = expand(&one("USER", rest)?, config),
            Self::Volume => volume(config, rest)?,
            Self::Workdir => {
                let path = expand(&one("WORKDIR", rest)?, config);
                config.working_dir = join(&config.working_dir, &path);
            }
        }
        Ok(())
    }
}

/// The exec form, a JSON array of strings, or else the shell form.
fn command(config: &Config, rest: &str) -> Option<StrSlice> {
    match exec_form(rest) {
        Some(words) if words.is_empty() => None,
        Some(words) => Some(StrSlice(words)),
        None => {
            let shell = config
                .shell
                .as_ref()
                .map_or_else(|| SHELL.map(str::to_owned).to_vec(), |shell| shell.0.clone());
            let text = (!rest.is_empty()).then(|| rest.to_owned());
            Some(StrSlice(shell.into_iter().chain(text).collect()))
        }
    }
}

fn exec_form(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

fn one(name: &str, rest: &str) -> Result<String, Error> {
    if rest.is_empty() {
        return Err(invalid(format!("{name} requires exactly one argument")));
    }
    Ok(rest.to_owned())
}

fn at_least_one(name: &str, rest: &str) -> Result<(), Error> {
    if rest.is_empty() {
        return Err(invalid(format!("{name} requires at least one argument")));
    }
    Ok(())
}

fn env(config: &mut Config, rest: &str) -> Result<(), Error> {
    let pairs = pairs("ENV", rest, config)?;
    let env = config.env.get_or_insert_default();
    for (key, value) in pairs {
        let entry = format!("{key}={value}");
        let known = env.iter_mut().find(|old| old.split('=').next() == Some(key.as_str()));
        match known {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
    Ok(())
}

fn expose(config: &mut Config, rest: &str) -> Result<(), Error> {
    at_least_one("EXPOSE", rest)?;
    let mut ports = Vec::new();
    for word in words(rest) {
        ports.extend(port_range(&expand(&word, config))?);
    }
    let exposed = config.exposed_ports.get_or_insert_default();
    exposed.extend(ports.into_iter().map(|port| (port, Empty {})));
    Ok(())
}

/// Reads `[[host:]hostport:]port[-port][/proto]`; of it only the container's side counts here.
fn port_range(text: &str) -> Result<Vec<String>, Error> {
    let (ports, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = proto.to_ascii_lowercase();
    let ports = ports.rsplit(':').next().unwrap_or_default();
    let bad = || invalid(format!("Invalid containerPort: {ports}"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    if !matches!(proto.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid(format!("Invalid proto: {proto}")));
    }
    Ok((first..=last).map(|port| format!("{port}/{proto}")).collect())
}

fn on_build(config: &mut Config, rest: &str) -> Result<(), Error> {
    at_least_one("ONBUILD", rest)?;
    let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match trigger.as_str() {
        "ONBUILD" => return Err(invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => {
            return Err(invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
        }
        _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
    }
    Ok(())
}

fn volume(config: &mut Config, rest: &str) -> Result<(), Error> {
    at_least_one("VOLUME", rest)?;
    let volumes = exec_form(rest).unwrap_or_else(|| words(rest));
    for volume in volumes {
        let volume = expand(volume.trim(), config);
        if volume.is_empty() {
            return Err(invalid("VOLUME specified can not be an empty string"));
        }
        config.volumes.get_or_insert_default().insert(volume, Empty {});
    }
    Ok(())
}

fn healthcheck(config: &Config, rest: &str) -> Result<HealthConfig, Error> {
    at_least_one("HEALTHCHECK", rest)?;
    let mut health = HealthConfig::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        health_flag(&mut health, flag)?;
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if !command.is_empty() => {
            return Err(invalid("HEALTHCHECK NONE takes no arguments"));
        }
        "NONE" => vec!["NONE".to_owned()],
        "CMD" if command.is_empty() => {
            return Err(invalid("Missing command after HEALTHCHECK CMD"));
        }
        "CMD" => match exec_form(command) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(invalid(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    };
    let _ = config;
    health.test = Some(test);
    Ok(health)
}

fn health_flag(health: &mut HealthConfig, flag: &str) -> Result<(), Error> {
    let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
    let field = match name {
        "interval" => &mut health.interval,
        "timeout" => &mut health.timeout,
        "start-period" => &mut health.start_period,
        "start-interval" => &mut health.start_interval,
        "retries" => {
            let retries: i64 = value.parse().map_err(|_| {
                invalid(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
            })?;
            if retries < 0 {
                return Err(invalid(format!("--retries cannot be negative ({retries})")));
            }
            health.retries = retries;
            return Ok(());
        }
        _ => return Err(invalid(format!("unknown flag: --{name}"))),
    };
    let nanos = go_duration::parse(value)
        .map_err(|_| invalid(format!("time: invalid duration {value:?}")))?;
    if nanos < 0 {
        return Err(invalid(format!("Interval {name:?} cannot be negative")));
    }
    if nanos > 0 && nanos < 1_000_000 {
        return Err(invalid(format!("Interval {name:?} cannot be less than 1ms")));
    }
    *field = nanos;
    Ok(())
}

/// Reads `key=value …`, or the old form `key value`, and expands variables in both.
fn pairs(name: &str, rest: &str, config: &Config) -> Result<BTreeMap<String, String>, Error> {
    at_least_one(name, rest)?;
    let words = words(rest);
    let first = words.first().cloned().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| invalid(format!("{name} must have two arguments")))?;
        return Ok(BTreeMap::from([(expand(key, config), expand(value.trim(), config))]));
    }
    let mut pairs = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            )));
        };
        if key.is_empty() {
            return Err(invalid(format!("{name} names can not be blank")));
        }
        pairs.insert(expand(key, config), expand(value, config));
    }
    Ok(pairs)
}

/// Splits at white space, but not inside quotes or after a backslash. Both stay in the word, for [`expand`].
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == '\\' && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes quotes and backslashes and replaces `$name`, `${name}`, `${name:-default}` and `${name:+other}` from the environment.
fn expand(text: &str, config: &Config) -> String {
    let env = config.env.as_deref().unwrap_or_default();
    let value = |name: &str| {
        env.iter()
            .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    };
    let mut out = String::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                if let Some(next) = rest.chars().next() {
                    if quote == Some('"') && !matches!(next, '"' | '$' | '\\') {
                        out.push('\\');
                    }
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
            (None | Some('"'), '$') => rest = variable(rest, &value, &mut out),
            (_, c) => out.push(c),
        }
    }
    out
}

/// Expands what follows a `$`; returns what follows it.
fn variable<'t, 'e>(
    rest: &'t str,
    value: &impl Fn(&str) -> Option<&'e str>,
    out: &mut String,
) -> &'t str {
    if let Some(inner) = rest.strip_prefix('{')
        && let Some((inside, after)) = inner.split_once('}')
    {
        let text = if let Some((name, default)) = inside.split_once(":-") {
            value(name).filter(|value| !value.is_empty()).unwrap_or(default)
        } else if let Some((name, other)) = inside.split_once(":+") {
            value(name).filter(|value| !value.is_empty()).map_or("", |_| other)
        } else {
            value(inside).unwrap_or_default()
        };
        out.push_str(text);
        return after;
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    if end == 0 {
        out.push('$');
    } else {
        out.push_str(value(&rest[..end]).unwrap_or_default());
    }
    &rest[end..]
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = name.strip_prefix("RTMIN").or_else(|| name.strip_prefix("RTMAX"));
    if let Some(offset) = realtime {
        return offset.is_empty() || offset[1..].parse::<u8>().is_ok_and(|offset| offset <= 30);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
}

/// Joins a path to a directory and cleans it, in the text alone.
fn join(dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{dir}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<Config, String> {
        let mut config = Config::default();
        let changes: Vec<String> = changes.iter().map(|&text| text.to_owned()).collect();
        apply(&mut config, &changes).map(|()| config).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(change: &str, message: &str) {
        assert_eq!(applied(&[change]).map(|_| ()), Err(message.to_owned()), "{change}");
    }

    #[test]
    fn refusals_are_in_dockers_words() {
        refused("NOSUCH x", "NOSUCH is not a valid change command");
        refused("RUN x", "RUN is not a valid change command");
        refused("ENV", "ENV requires at least one argument");
        refused("ENV a", "ENV must have two arguments");
        refused("ENV =x", "ENV names can not be blank");
        refused(
            "ENV a=b c",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        );
        refused("EXPOSE x", "Invalid containerPort: x");
        refused("EXPOSE 80/foo", "Invalid proto: foo");
        refused("VOLUME [\"\"]", "VOLUME specified can not be an empty string");
        refused("USER", "USER requires exactly one argument");
        refused("STOPSIGNAL NOPE", "invalid signal: NOPE");
        refused("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
        refused("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger");
        refused("HEALTHCHECK X", "Unknown type \"X\" in HEALTHCHECK (try CMD)");
        refused("HEALTHCHECK --interval=x CMD true", "time: invalid duration \"x\"");
        refused("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
        refused("HEALTHCHECK --foo=1 CMD x", "unknown flag: --foo");
        refused("", "file with no instructions");
        refused("# comment", "file with no instructions");
    }

    #[test]
    fn a_command_is_a_json_array_or_a_shell_line() {
        let cmd = |change| applied(&[change]).unwrap().cmd.map(|slice| slice.0);
        assert_eq!(cmd("CMD echo hi").unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(cmd(r#"cmd ["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(cmd("CMD [bad").unwrap(), ["/bin/sh", "-c", "[bad"]);
        assert_eq!(cmd("CMD []"), None);
    }

    #[test]
    fn an_entrypoint_clears_the_command_that_came_with_the_base() {
        let mut config = Config { cmd: Some(StrSlice(vec!["base".into()])), ..Config::default() };
        apply(&mut config, &["ENTRYPOINT [\"x\"]".to_owned()]).unwrap();
        assert_eq!(config.cmd, None);
        let both = applied(&["CMD x", "ENTRYPOINT y"]).unwrap();
        assert!(both.cmd.is_some());
    }

    #[test]
    fn variables_come_from_the_environment_so_far() {
        let config = applied(&["ENV a=1", "ENV b=$a c=\"d e\"", "LABEL l=${a}x m='$a'"]).unwrap();
        assert_eq!(config.env.unwrap(), ["a=1", "b=1", "c=d e"]);
        let labels = config.labels.unwrap();
        assert_eq!((labels["l"].as_str(), labels["m"].as_str()), ("1x", "$a"));
    }

    #[test]
    fn the_rest_sets_its_field() {
        let config = applied(&[
            "EXPOSE 80-81 90/udp 1:2",
            "VOLUME /a /b",
            "USER a b",
            "WORKDIR a",
            "WORKDIR ../c",
            "STOPSIGNAL SIGTERM",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s CMD true",
        ])
        .unwrap();
        let ports: Vec<_> = config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(ports, ["2/tcp", "80/tcp", "81/tcp", "90/udp"]);
        assert_eq!(config.volumes.unwrap().len(), 2);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("a b", "/c"));
        assert_eq!(config.stop_signal, "SIGTERM");
        assert_eq!(config.on_build.unwrap(), ["RUN x"]);
        let health = config.healthcheck.unwrap();
        assert_eq!(health.interval, 5_000_000_000);
        assert_eq!(health.test.unwrap(), ["CMD-SHELL", "true"]);
    }
}
