//! `update`: new resource limits for a running container, as `LinuxResources` JSON or by flags.

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::spec;
use crate::state::{Container, Status};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "resources,r",
        "blkio-weight",
        "cpu-period",
        "cpu-quota",
        "cpu-burst",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpu-share",
        "cpu-idle",
        "cpuset-cpus",
        "cpuset-mems",
        "memory",
        "memory-reservation",
        "memory-swap",
        "pids-limit",
        "kernel-memory",
        "kernel-memory-tcp",
        "l3-cache-schema",
        "mem-bw-schema",
    ],
    switches: &[],
    least: 1,
    most: 1,
};

/// The largest document that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Runs the verb.
///
/// # Errors
/// [`Error`].
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("update", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    if arguments.has("l3-cache-schema") {
        return Err(Error::State("Intel RDT/CAT: l3 cache schema is not enabled".to_owned()));
    }
    if arguments.has("mem-bw-schema") {
        let text = "Intel RDT/MBA: memory bandwidth schema is not enabled";
        return Err(Error::State(text.to_owned()));
    }
    if arguments.has("kernel-memory") || arguments.has("kernel-memory-tcp") {
        crate::log::warn("Kernel memory settings are ignored and will be removed");
    }
    let resources = match arguments.value("resources") {
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin()
                .take(MAX_BYTES)
                .read_to_end(&mut text)
                .context(|| "read stdin".to_owned())?;
            spec::parse(&text, Path::new("stdin"))?
        }
        Some(path) => spec::read_json(Path::new(path))?,
        None => from_flags(&arguments)?,
    };
    if container.status()? == Status::Stopped {
        return Err(Error::State("container not running".to_owned()));
    }
    Ok(container.need_cgroup()?.update(&resources)?)
}

fn from_flags(arguments: &Arguments) -> Result<LinuxResources> {
    let mut document = json!({});
    let mut set = |group: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            document[group][key] = value;
        }
    };
    let number = |name: &str| Ok::<_, Error>(arguments.number::<i64>(name)?.map(Value::from));
    for (flag, key) in [
        ("cpu-period", "period"),
        ("cpu-quota", "quota"),
        ("cpu-burst", "burst"),
        ("cpu-rt-period", "realtimePeriod"),
        ("cpu-rt-runtime", "realtimeRuntime"),
        ("cpu-share", "shares"),
        ("cpu-idle", "idle"),
    ] {
        set("cpu", key, number(flag)?);
    }
    for (flag, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        set("cpu", key, arguments.value(flag).map(Value::from));
    }
    for (flag, key) in
        [("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swap", "swap")]
    {
        set("memory", key, arguments.value(flag).map(bytes).transpose()?.map(Value::from));
    }
    set("pids", "limit", number("pids-limit")?);
    set("blockIO", "weight", number("blkio-weight")?);
    serde_json::from_value(document).map_err(|error| Error::Usage(error.to_string()))
}

/// Reads an amount such as `64m` or `-1`.
fn bytes(text: &str) -> Result<i64> {
    let wrong = || Error::Usage(format!("invalid size: {text:?}"));
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units
        .iter()
        .find_map(|(letter, shift)| lower.strip_suffix(*letter).map(|digits| (digits, *shift)));
    let (digits, shift) = unit.unwrap_or((lower, 0));
    let amount: i64 = digits.parse().map_err(|_| wrong())?;
    amount.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        for (text, amount) in
            [("64m", 64 << 20), ("1G", 1 << 30), ("512kb", 512 << 10), ("-1", -1), ("7", 7)]
        {
            assert_eq!(bytes(text).unwrap(), amount, "{text}");
        }
        assert!(["", "m", "1x", "9999999999g"].iter().all(|text| bytes(text).is_err()));
    }

    #[test]
    fn flags_become_resources() {
        let words = ["--memory", "64m", "--cpuset-cpus", "0-1", "--pids-limit", "9", "web"]
            .map(str::to_owned);
        let resources =
            from_flags(&Arguments::parse_verb("update", &words, &SYNTAX).unwrap()).unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(64 << 20));
        assert_eq!(resources.cpu().as_ref().unwrap().cpus().as_deref(), Some("0-1"));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 9);
    }
}
