//! `hosts.toml`: who else serves a registry's images, what each may be asked for, and how to get in.
//!
//! Source: containerd, docs/hosts.md. `certs.d/HOST_PORT_/`, `certs.d/HOST:PORT/` and `certs.d/_default/` are looked for in this order;
//! the file is read for each pull, so that what was changed counts at once. Two things are ours: a key that is not known is an error,
//! and so is a file that cannot be read, since images would come from somewhere else than was said.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;

use super::{Credentials, Error};

/// What one host wants, beside what the daemon's own options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// More roots for its certificate.
    pub ca: Vec<PathBuf>,
    /// Our certificate, and its key if that is in a file of its own.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Any certificate will do.
    pub skip_verify: bool,
    /// Sent with each request to it, and to nobody else.
    pub headers: HeaderMap,
    /// How long a connection may take.
    pub dial_timeout: Option<Duration>,
}

impl Trust {
    /// Returns the credentials of its `authorization` header: a token server wants them too.
    pub fn credentials(&self) -> Credentials {
        let value = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let basic = value.and_then(|text| text.strip_prefix("Basic "));
        let text =
            basic.and_then(|text| String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok());
        let Some((username, password)) = text.as_deref().and_then(|text| text.split_once(':'))
        else {
            return Credentials::default();
        };
        Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Credentials::default()
        }
    }
}

/// One entry: a host, or the server itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As it was written.
    pub url: String,
    /// Blobs and manifests by digest.
    pub pull: bool,
    /// Tags to digests.
    pub resolve: bool,
    /// The way in the other direction.
    pub push: bool,
    /// The address is all of the API's root, without `/v2`.
    pub override_path: bool,
    /// How to get in.
    pub trust: Arc<Trust>,
}

/// A registry's hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// To be tried first, in this order.
    pub hosts: Vec<Host>,
    /// To be tried last; without one it is the registry itself.
    pub server: Option<Host>,
    /// What the file says of the registry itself where it names no server.
    pub own: Option<Host>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    capabilities: Option<Vec<String>>,
    ca: Option<Many>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: BTreeMap<String, Many>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Many {
    One(String),
    All(Vec<String>),
}

impl Many {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::All(all) => all,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    Files(Many),
    Pairs(Vec<(String, String)>),
}

/// Reads what the directories say of a domain's registry; the first that says anything counts.
///
/// # Errors
/// [`Error::Config`] names the file.
pub fn of(directories: &[PathBuf], domain: &str) -> Result<Option<Hosts>, Error> {
    let with_port = domain.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = with_port.iter().map(String::as_str).chain([domain, "_default"]);
    for name in names {
        for directory in directories.iter().map(|directory| directory.join(name)) {
            let path = directory.join("hosts.toml");
            let wrong = |why: &dyn std::fmt::Display| {
                let why = why.to_string();
                let why = why.trim_end().replace('\n', " ");
                Error::Config(format!("cannot use {}: {why}", path.display()))
            };
            match fs::read_to_string(&path) {
                Ok(text) => {
                    return parse(&text, &directory).map(Some).map_err(|why| wrong(&why));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(wrong(&error)),
            }
        }
    }
    Ok(None)
}

fn parse(text: &str, directory: &Path) -> Result<Hosts, String> {
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let server = match table.remove("server") {
        None => None,
        Some(toml::Value::String(url)) if url.is_empty() => None,
        Some(toml::Value::String(url)) => Some(url),
        Some(_) => return Err("`server` is no text".into()),
    };
    let mut hosts = Vec::new();
    match table.remove("host") {
        None => {}
        Some(toml::Value::Table(entries)) => {
            for (url, fields) in entries {
                let fields = fields.try_into().map_err(|error| format!("host {url:?}: {error}"))?;
                hosts.push(host(url, fields, directory)?);
            }
        }
        Some(_) => return Err("`host` is no table".into()),
    }
    let has_more = !table.is_empty();
    let fields: Fields = table.try_into().map_err(|error| error.to_string())?;
    let last = host(server.clone().unwrap_or_default(), fields, directory)?;
    Ok(match server {
        Some(_) => Hosts { hosts, server: Some(last), own: None },
        None => Hosts { hosts, server: None, own: has_more.then_some(last) },
    })
}

fn host(url: String, fields: Fields, directory: &Path) -> Result<Host, String> {
    let wrong = |why: String| if url.is_empty() { why } else { format!("host {url:?}: {why}") };
    let (mut pull, mut resolve, mut push) = (false, false, false);
    match fields.capabilities {
        None => (pull, resolve, push) = (true, true, true),
        Some(names) => {
            for name in names {
                match name.to_ascii_lowercase().as_str() {
                    "pull" => pull = true,
                    "resolve" => resolve = true,
                    "push" => push = true,
                    // Artifacts that refer to an image: nothing here asks for them.
                    "referrers" => {}
                    _ => return Err(wrong(format!("unknown capability {name:?}"))),
                }
            }
        }
    }
    let client = match fields.client {
        None => Vec::new(),
        Some(Client::Files(files)) => {
            files.all().into_iter().map(|file| (directory.join(file), None)).collect()
        }
        Some(Client::Pairs(pairs)) => {
            let key = |key: String| (!key.is_empty()).then(|| directory.join(key));
            pairs.into_iter().map(|(cert, own)| (directory.join(cert), key(own))).collect()
        }
    };
    let mut headers = HeaderMap::new();
    for (name, values) in fields.header {
        let shown = wrong(format!("{name:?} is no header"));
        let name = HeaderName::try_from(&name).map_err(|_| shown.clone())?;
        for value in values.all() {
            let mut value = HeaderValue::try_from(value).map_err(|_| shown.clone())?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
    }
    let dial_timeout = match fields.dial_timeout {
        None => None,
        Some(text) => {
            Some(duration(&text).ok_or_else(|| wrong(format!("{text:?} is no duration")))?)
        }
    };
    let trust = Trust {
        ca: fields
            .ca
            .map_or_else(Vec::new, Many::all)
            .iter()
            .map(|ca| directory.join(ca))
            .collect(),
        client,
        skip_verify: fields.skip_verify == Some(true),
        headers,
        dial_timeout,
    };
    let override_path = fields.override_path == Some(true);
    Ok(Host { pull, resolve, push, override_path, trust: Arc::new(trust), url })
}

/// Reads `1s`, `1m30s`, `500ms`: Go's `time.ParseDuration`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let seconds = match &rest[end..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_order_and_what_each_may_do() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
              capabilities = ["pull"]
              ca = "z.crt"
              client = [["a.cert", "a.key"], ["/b.pem", ""]]
              dial_timeout = "1s500ms"
              [host."https://z.example".header]
                authorization = "Basic am9lOnNlY3JldA=="
                x-more = ["a", "b"]
            [host."http://a.example/sub"]
              override_path = true
              skip_verify = true
              client = "c.pem"
        "#;
        let hosts = parse(text, Path::new("/d")).unwrap();
        let [z, a] = &hosts.hosts[..] else { panic!("{hosts:?}") };
        assert_eq!(
            (z.url.as_str(), z.pull, z.resolve, z.push),
            ("https://z.example", true, false, false)
        );
        assert_eq!(z.trust.ca, [Path::new("/d/z.crt")]);
        let pairs = [("/d/a.cert".into(), Some("/d/a.key".into())), ("/b.pem".into(), None)];
        assert_eq!(z.trust.client, pairs);
        assert_eq!(z.trust.dial_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(z.trust.credentials().username, "joe");
        assert_eq!(z.trust.headers.get_all("x-more").iter().count(), 2);
        assert!(a.pull && a.resolve && a.push && a.override_path && a.trust.skip_verify);
        assert_eq!(a.trust.client, [("/d/c.pem".into(), None)]);
        assert_eq!(hosts.server.unwrap().url, "https://registry-1.docker.io");
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = parse(text, Path::new("/d")).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_told() {
        refused("server = 1", "`server` is no text");
        refused("nosuch = 1", "nosuch");
        refused("[host.\"https://a\"]\nnosuch = 1", "nosuch");
        refused("[host.\"https://a\"]\ncapabilities = [\"x\"]", "unknown capability \"x\"");
        refused("[host.\"https://a\"]\ndial_timeout = \"1 s\"", "no duration");
        refused("[host.\"https://a\"]\nheader = {\"a b\" = \"c\"}", "\"a b\" is no header");
        refused("[", "TOML");
    }

    #[test]
    fn the_directory_with_the_port_comes_first_and_the_default_last() {
        let dir = tempfile::tempdir().unwrap();
        let directories = [dir.path().join("none"), dir.path().to_owned()];
        assert_eq!(of(&directories, "a.example:5000").unwrap(), None);
        for name in ["_default", "a.example:5000", "a.example_5000_"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(
                dir.path().join(name).join("hosts.toml"),
                format!("server = \"https://{name}\""),
            )
            .unwrap();
            let server = of(&directories, "a.example:5000").unwrap().unwrap().server.unwrap();
            assert_eq!(server.url, format!("https://{name}"));
        }
        let other = of(&directories, "b.example").unwrap().unwrap().server.unwrap();
        assert_eq!(other.url, "https://_default");
        fs::write(dir.path().join("_default/hosts.toml"), "[").unwrap();
        let error = of(&directories, "b.example").unwrap_err().to_string();
        assert!(error.contains("_default/hosts.toml"), "{error}");
    }
}
