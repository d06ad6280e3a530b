//! The client's configuration directory: `config.json` and the contexts. Reading only; what is broken is reported and passed over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// What we use of `config.json`. Unknown keys are left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    /// Headers for every request.
    #[serde(rename = "HttpHeaders")]
    pub http_headers: BTreeMap<String, String>,
    /// Credentials by registry.
    pub auths: BTreeMap<String, Auth>,
    /// The credential helper for all registries.
    pub creds_store: String,
    /// Those for some.
    pub cred_helpers: BTreeMap<String, String>,
    /// Default detach keys.
    pub detach_keys: String,
    /// The context where none is named.
    pub current_context: String,
    /// Default formats.
    pub ps_format: String,
    /// As above, for `images`.
    pub images_format: String,
    /// As above, for `network ls`.
    pub networks_format: String,
    /// As above, for `volume ls`.
    pub volumes_format: String,
    /// As above, for `stats`.
    pub stats_format: String,
    /// Filters added to every prune.
    pub prune_filters: Vec<String>,
    /// Proxies to put into containers, by daemon; `default` for all others.
    pub proxies: BTreeMap<String, Proxy>,
}

/// Credentials of one registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// base64 of `user:password`.
    pub auth: String,
    /// A token instead of a password.
    pub identitytoken: String,
    /// A bearer token.
    pub registrytoken: String,
}

/// Proxies for containers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

/// The directory: `--config`, `DOCKER_CONFIG`, or `~/.docker`.
pub fn directory(given: &str) -> PathBuf {
    if !given.is_empty() {
        return given.into();
    }
    match std::env::var("DOCKER_CONFIG") {
        Ok(directory) if !directory.is_empty() => directory.into(),
        _ => PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".docker"),
    }
}

impl Config {
    /// Reads `config.json` in `directory`. A missing file is empty; a broken one is reported on stderr.
    pub fn load(directory: &std::path::Path) -> Self {
        let path = directory.join("config.json");
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                let reason = crate::go::path_error("open", &path.to_string_lossy(), &error);
                eprintln!("WARNING: Error loading config file: {reason}");
                return Self::default();
            }
        };
        serde_json::from_slice(&content).unwrap_or_else(|error| {
            let reason = crate::output::json::go_message(&content, &error);
            eprintln!("WARNING: Error parsing config file ({}): {reason}", path.display());
            Self::default()
        })
    }

    /// The proxy variables for a container, as `KEY=VALUE`; those in `environment` stand.
    pub fn proxy_variables(&self, host: &str, environment: &[String]) -> Vec<String> {
        let mut variables = BTreeMap::new();
        for word in environment {
            let (key, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(key, value)| (key, Some(value)));
            variables.insert(key.to_owned(), value.map(str::to_owned));
        }
        let proxy = self.proxies.get(host).or_else(|| self.proxies.get("default"));
        if let Some(proxy) = proxy {
            for (key, value) in [
                ("HTTP_PROXY", &proxy.http_proxy),
                ("HTTPS_PROXY", &proxy.https_proxy),
                ("NO_PROXY", &proxy.no_proxy),
                ("FTP_PROXY", &proxy.ftp_proxy),
                ("ALL_PROXY", &proxy.all_proxy),
            ] {
                if !value.is_empty() {
                    for name in [key.to_owned(), key.to_lowercase()] {
                        variables.entry(name).or_insert_with(|| Some(value.clone()));
                    }
                }
            }
        }
        variables
            .into_iter()
            .map(|(key, value)| value.map_or_else(|| key.clone(), |value| format!("{key}={value}")))
            .collect()
    }
}

/// Changes `currentContext` in `config.json`, and nothing else.
///
/// # Errors
/// The file is broken, or cannot be written.
pub fn set_current_context(directory: &std::path::Path, name: &str) -> Result<(), String> {
    edit(directory, |all| {
        if name.is_empty() {
            all.remove("currentContext");
        } else {
            all.insert("currentContext".into(), name.into());
        }
    })
}

/// Changes `config.json`: what nobody here knows stays.
///
/// # Errors
/// The file is broken, or cannot be written.
pub fn edit(
    directory: &std::path::Path,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Result<(), String> {
    let path = directory.join("config.json");
    let mut all: serde_json::Map<String, serde_json::Value> = match std::fs::read(&path) {
        Ok(content) => serde_json::from_slice(&content).map_err(|error| error.to_string())?,
        Err(_) => serde_json::Map::new(),
    };
    all.entry("auths").or_insert_with(|| serde_json::Map::new().into());
    change(&mut all);
    std::fs::create_dir_all(directory)
        .map_err(|error| crate::go::path_error("mkdir", &directory.to_string_lossy(), &error))?;
    let text = serde_json::to_string(&all).unwrap_or_default();
    crate::context::write_atomically(&path, crate::output::json::indent(&text, "\t").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_in_both_spellings_unless_set() {
        let config: Config = serde_json::from_str(
            r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"*.local"}}}"#,
        )
        .unwrap();
        let variables = config.proxy_variables("unix:///x", &["no_proxy=mine".into(), "B".into()]);
        assert_eq!(
            variables,
            [
                "B",
                "HTTP_PROXY=http://p:1",
                "NO_PROXY=*.local",
                "http_proxy=http://p:1",
                "no_proxy=mine"
            ]
        );
    }
}
