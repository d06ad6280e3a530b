//! What registries are told about who asks: kept in `config.json`, or with a credential helper.
//!
//! Helpers are programs called `docker-credential-NAME` that read a request on stdin: `get`, `store`, `erase`. Source:
//! docker-credential-helpers, "Development"; keys `auths`, `credsStore` and `credHelpers` of `config.json`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::config;

/// Docker Hub's name among credentials.
pub const HUB: &str = "https://index.docker.io/v1/";
/// The user name that says that the secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// One registry's. (Engine API, AuthConfig.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    /// With the password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// With the name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// The registry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// A token instead of a password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// A bearer token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

/// How a helper answers `get`, and what it reads for `store`.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Secret {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// `X-Registry-Auth`: base64url of the credentials for a registry, as JSON.
pub fn registry_auth(app: &App, domain: &str) -> String {
    let key = if domain == "docker.io" { HUB } else { domain };
    let credentials = find(app, key).unwrap_or_default();
    URL_SAFE.encode(serde_json::to_string(&credentials).unwrap_or_default())
}

/// `X-Registry-Config`: all that are known, by registry.
pub fn registry_config(app: &App) -> String {
    let keys = app.config.auths.keys().chain(app.config.cred_helpers.keys());
    let known = keys.filter_map(|key| Some((key.as_str(), find(app, key)?)));
    let known: std::collections::BTreeMap<&str, Credentials> = known.collect();
    URL_SAFE.encode(serde_json::to_string(&known).unwrap_or_default())
}

/// Returns what is known for a registry.
pub fn find(app: &App, key: &str) -> Option<Credentials> {
    if let Some(helper) = helper(app, key) {
        let answer = call(helper, "get", key.as_bytes()).ok()?;
        let secret: Secret = serde_json::from_slice(&answer).ok()?;
        let serveraddress = key.to_owned();
        return Some(match secret.username.as_str() {
            TOKEN_USER => Credentials {
                identitytoken: secret.secret,
                serveraddress,
                ..Credentials::default()
            },
            _ => Credentials {
                username: secret.username,
                password: secret.secret,
                serveraddress,
                ..Credentials::default()
            },
        });
    }
    let auths = &app.config.auths;
    let by_host = || auths.iter().find(|(name, _)| host_of(name) == key).map(|(_, auth)| auth);
    let auth = auths.get(key).or_else(by_host)?;
    let decoded = STANDARD.decode(&auth.auth).unwrap_or_default();
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let (user, password) = decoded.split_once(':').unwrap_or(("", ""));
    Some(Credentials {
        username: user.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
        serveraddress: key.to_owned(),
        identitytoken: auth.identitytoken.clone(),
        registrytoken: auth.registrytoken.clone(),
    })
}

/// Keeps credentials. Returns whether that is in the file itself, in the open.
///
/// # Errors
/// The file cannot be written, or the helper refuses.
pub fn store(app: &App, credentials: &Credentials) -> Result<bool, String> {
    let key = credentials.serveraddress.as_str();
    let has_token = !credentials.identitytoken.is_empty();
    if let Some(helper) = helper(app, key) {
        let (username, secret) = match has_token {
            true => (TOKEN_USER, &credentials.identitytoken),
            false => (credentials.username.as_str(), &credentials.password),
        };
        let secret = Secret {
            server_url: key.to_owned(),
            username: username.to_owned(),
            secret: secret.clone(),
        };
        let text = serde_json::to_vec(&secret).map_err(|error| error.to_string())?;
        call(helper, "store", &text)?;
        edit_auths(app, |auths| drop(auths.insert(key.to_owned(), json!({}))))?;
        return Ok(false);
    }
    let password = if has_token { "" } else { credentials.password.as_str() };
    let mut entry =
        json!({ "auth": STANDARD.encode(format!("{}:{password}", credentials.username)) });
    if has_token {
        entry["identitytoken"] = credentials.identitytoken.as_str().into();
    }
    edit_auths(app, |auths| drop(auths.insert(key.to_owned(), entry)))?;
    Ok(true)
}

/// Forgets what is known for a registry.
///
/// # Errors
/// As [`store`].
pub fn erase(app: &App, key: &str) -> Result<(), String> {
    if let Some(helper) = helper(app, key) {
        call(helper, "erase", key.as_bytes())?;
    }
    edit_auths(app, |auths| auths.retain(|name, _| name != key && host_of(name) != key))
}

fn helper<'a>(app: &'a App, key: &str) -> Option<&'a str> {
    let own = app.config.cred_helpers.get(key);
    let name = own.unwrap_or(&app.config.creds_store);
    (!name.is_empty()).then_some(name.as_str())
}

fn call(helper: &str, verb: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let program = format!("docker-credential-{helper}");
    let failed = |error: std::io::Error| format!("error getting credentials - err: {error}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing says so by its exit code.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(format!("error getting credentials - err: {}, out: `{said}`", output.status))
}

fn edit_auths(app: &App, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), String> {
    config::edit(&app.directory, |all| {
        let auths = all.entry("auths").or_insert_with(|| Map::new().into());
        if let Value::Object(auths) = auths {
            change(auths);
        }
    })
}

/// The host of a registry's address as it is stored.
pub fn host_of(address: &str) -> &str {
    let bare = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    bare.split('/').next().unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_is_between_scheme_and_path() {
        for (address, host) in
            [("https://r.example/v2/", "r.example"), ("localhost:5000", "localhost:5000")]
        {
            assert_eq!(host_of(address), host);
        }
    }
}
