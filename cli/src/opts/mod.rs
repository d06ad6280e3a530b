//! What users write as option values, turned into what the Engine API takes. Pure functions; errors are docker's texts.

pub mod address;
pub mod blkio;
pub mod container;
pub mod cpus;
pub mod csv;
pub mod device;
pub mod duration;
pub mod env;
pub mod filter;
pub mod gpus;
pub mod label;
pub mod link;
pub mod mount;
pub mod network;
pub mod port;
pub mod reference;
pub mod restart;
pub mod security;
pub mod size;
pub mod timestamp;
pub mod ulimit;
pub mod volume;

use std::collections::BTreeMap;

/// `KEY=VALUE` words as a map; a word without `=` has the empty value, and the last of equal keys wins.
pub fn pairs_to_map(words: &[String]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// One of the standard streams, for `--attach`.
///
/// # Errors
/// Any other word.
pub fn stream(value: &str) -> Result<String, String> {
    let name = value.to_lowercase();
    if matches!(name.as_str(), "stdin" | "stdout" | "stderr") {
        return Ok(name);
    }
    Err("valid streams are STDIN, STDOUT and STDERR".into())
}

/// A sysctl that belongs to a namespace, for `--sysctl`.
///
/// # Errors
/// Sysctls of the whole host, and words without a value.
pub fn sysctl(value: &str) -> Result<String, String> {
    use cleat_proto::docker::sysctl::IPC;
    match value.split_once('=') {
        Some((key, _))
            if IPC.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.") =>
        {
            Ok(value.to_owned())
        }
        _ => Err(format!("sysctl '{value}' is not allowed")),
    }
}
