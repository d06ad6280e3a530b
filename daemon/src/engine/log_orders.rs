//! What a container's shim is told about its log: `LogConfig`, checked in two steps as Docker does it.
//!
//! At create the driver, the names of its options and the delivery mode are looked at; their values only when the container
//! starts and the log is opened. Source: dockerd 28.5 (observed), Docker's documentation "JSON File logging driver".

use std::collections::{BTreeMap, HashMap};

use cleat_proto::{
    docker::container::{Config, LogConfig},
    kind::Kind,
    shim_v1::Log,
};
use regex_lite::Regex;

use super::{Error, Result, log_tag};
use crate::container::Record;

/// The default log driver, and the one that keeps nothing.
const DRIVERS: [&str; 2] = crate::config::LOG_DRIVERS;

/// Those that Docker has besides.
const DOCKERS_DRIVERS: [&str; 8] =
    ["awslogs", "fluentd", "gcplogs", "gelf", "journald", "local", "splunk", "syslog"];

/// The options of `json-file`.
const OPTIONS: [&str; 8] =
    ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];

/// What Docker says before an option's value that makes no sense.
const FAILED: &str = "failed to create task for container: failed to initialize logging driver";

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

/// Checks at create what Docker checks then.
///
/// # Errors
/// Docker's words; of a driver that we do not have, its name.
pub(super) fn check(log: &LogConfig) -> Result<()> {
    let driver = log.kind.as_str();
    if !DRIVERS.contains(&driver) {
        if !DOCKERS_DRIVERS.contains(&driver) {
            return Err(invalid(format!(
                "error looking up logging plugin {driver}: plugin {driver:?} not found"
            )));
        }
        let text = format!("the logging driver {driver} is not implemented by cleat yet");
        return Err(Error::new(Kind::NotImplemented, text));
    }
    let options = log.config.iter().flatten();
    let options: BTreeMap<&str, &str> =
        options.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    check_delivery(&options)?;
    let is_known = |key: &str| {
        driver != "json-file" || OPTIONS.contains(&key) || matches!(key, "mode" | "max-buffer-size")
    };
    match options.keys().find(|key| !is_known(key)) {
        Some(key) => Err(invalid(format!("unknown log opt '{key}' for json-file log driver"))),
        None => Ok(()),
    }
}

/// Both modes are one: the shim never lets a container wait for its log longer than its own write takes, and loses nothing of
/// it, so that there is no buffer to be sized.
fn check_delivery(options: &BTreeMap<&str, &str>) -> Result<()> {
    let mode = options.get("mode").copied().unwrap_or_default();
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(invalid(format!("logger: logging mode not supported: {mode}")));
    }
    let Some(text) = options.get("max-buffer-size") else { return Ok(()) };
    if mode != "non-blocking" {
        let text = "logger: max-buffer-size option is only supported with 'mode=non-blocking'";
        return Err(invalid(text.to_owned()));
    }
    size(text).map(drop).ok_or_else(|| {
        invalid(format!("error parsing option max-buffer-size: invalid size: '{text}'"))
    })
}

/// Makes the orders for a start. `path` is where the log is.
///
/// # Errors
/// Docker's words for a value that makes no sense.
pub(super) fn orders(record: &Record, path: String) -> Result<Log> {
    let failed = |why: String| Error::new(Kind::Internal, format!("{FAILED}: {why}"));
    let none = BTreeMap::new();
    let log = &record.host_config.log_config;
    let options = log.config.as_ref().unwrap_or(&none);
    let (max_size_bytes, max_files, compress) = rotation(options).map_err(failed)?;
    let mut attributes = HashMap::new();
    if log.kind == "json-file" {
        attributes = self::attributes(options, &record.config).map_err(failed)?;
        let tag = option(options, "tag").map(|tag| log_tag::expand(tag, record, &path)).transpose();
        if let Some(tag) = tag.map_err(failed)?.filter(|tag| !tag.is_empty()) {
            attributes.insert("tag".to_owned(), tag);
        }
    }
    Ok(Log { driver: log.kind.clone(), path, max_size_bytes, max_files, compress, attributes })
}

/// An empty option is none.
fn option<'a>(options: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    options.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// How large, how many, packed or not.
fn rotation(options: &BTreeMap<String, String>) -> Result<(u64, u32, bool), String> {
    let max_size_bytes = match option(options, "max-size") {
        None | Some("-1") => 0,
        Some(text) => size(text).ok_or_else(|| format!("invalid size: '{text}'"))?,
    };
    let max_files = match option(options, "max-file") {
        None => 1,
        Some(text) => {
            let files = text
                .parse::<i64>()
                .map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))?;
            u32::try_from(files)
                .ok()
                .filter(|files| *files >= 1)
                .ok_or("max-file cannot be less than 1")?
        }
    };
    let compress = match option(options, "compress") {
        None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
        Some(text) => return Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    };
    if compress && (max_files < 2 || max_size_bytes == 0) {
        return Err("compress cannot be true when max-file is less than 2 or max-size is not set"
            .to_owned());
    }
    Ok((max_size_bytes, max_files, compress))
}

/// Labels and environment that stand beside each line. What is named later wins, the environment over labels.
fn attributes(
    options: &BTreeMap<String, String>,
    config: &Config,
) -> Result<HashMap<String, String>, String> {
    let labels: BTreeMap<&str, &str> =
        config.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let env: BTreeMap<&str, &str> =
        config.env.iter().flatten().filter_map(|entry| entry.split_once('=')).collect();
    let mut chosen = HashMap::new();
    for (names, pattern, values) in [("labels", "labels-regex", labels), ("env", "env-regex", env)]
    {
        // Docker does not look at a pattern for the names of no variables at all.
        if names == "env" && values.is_empty() {
            break;
        }
        let listed: Vec<&str> = option(options, names).unwrap_or_default().split(',').collect();
        let pattern = option(options, pattern).map(Regex::new).transpose();
        let pattern = pattern.map_err(|error| format!("error parsing regexp: {error}"))?;
        let wanted = |key: &str| {
            listed.contains(&key) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(key))
        };
        for (key, value) in values.into_iter().filter(|(key, _)| wanted(key)) {
            chosen.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(chosen)
}

/// Reads `10m`: a number with a unit of 1024's.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        text.split_whitespace().map(pair).collect()
    }

    #[track_caller]
    fn created(driver: &str, text: &str, expected: Result<(), &str>) {
        let log = LogConfig { kind: driver.into(), config: Some(options(text)) };
        let got = check(&log).map_err(|error| error.whole());
        assert_eq!(got, expected.map_err(str::to_owned), "{driver} {text}");
    }

    #[test]
    fn names_and_mode_are_checked_at_create() {
        created("json-file", "max-size=x compress=x tag={{ labels-regex=[", Ok(()));
        created("json-file", "mode=non-blocking max-buffer-size=1m", Ok(()));
        created("none", "x=y", Ok(()));
        created("json-file", "x=y", Err("unknown log opt 'x' for json-file log driver"));
        created("json-file", "mode=bad", Err("logger: logging mode not supported: bad"));
        created(
            "json-file",
            "max-buffer-size=1m",
            Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        );
        created(
            "json-file",
            "mode=non-blocking max-buffer-size=x",
            Err("error parsing option max-buffer-size: invalid size: 'x'"),
        );
        created("local", "", Err("the logging driver local is not implemented by cleat yet"));
        created("bad", "", Err("error looking up logging plugin bad: plugin \"bad\" not found"));
    }

    #[test]
    fn values_are_checked_when_the_log_is_opened() {
        let check = |text: &str| rotation(&options(text));
        assert_eq!(check("max-size=10m max-file=3 compress=true"), Ok((10 << 20, 3, true)));
        assert_eq!(check("max-file=2"), Ok((0, 2, false)));
        for (text, why) in [
            ("max-size=x", "invalid size: 'x'"),
            ("max-file=x", "strconv.Atoi: parsing \"x\": invalid syntax"),
            ("max-file=0", "max-file cannot be less than 1"),
            ("compress=x", "strconv.ParseBool: parsing \"x\": invalid syntax"),
            (
                "compress=true",
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            assert_eq!(check(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn attributes_are_named_or_matched() {
        let config = |env: &[&str]| Config {
            labels: Some(options("app=web tier=front x.y=1")),
            env: Some(env.iter().map(|&entry| entry.to_owned()).collect()),
            ..Config::default()
        };
        let read = |text: &str, env: &[&str]| {
            let chosen = attributes(&options(text), &config(env))?;
            let mut chosen: Vec<String> =
                chosen.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            chosen.sort();
            Ok::<_, String>(chosen.join(" "))
        };
        assert_eq!(read("labels=app,nope", &[]).unwrap(), "app=web");
        assert_eq!(read("labels-regex=^t|x", &[]).unwrap(), "tier=front x.y=1");
        assert_eq!(read("env=A env-regex=^B", &["A=1", "B1=2", "C=3"]).unwrap(), "A=1 B1=2");
        assert_eq!(read("labels=app env=app", &["app=env"]).unwrap(), "app=env");
        assert!(read("labels-regex=[", &[]).unwrap_err().starts_with("error parsing regexp: "));
        assert_eq!(read("env-regex=[", &[]).unwrap(), "");
        assert!(read("env-regex=[", &["A=1"]).is_err());
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("10m", Some(10 << 20)),
            ("1G", Some(1 << 30)),
            ("512", Some(512)),
            ("0", None),
            ("m", None),
            ("1x", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
