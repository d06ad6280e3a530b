//! What every command gets: the configuration, and the client made when it is first needed.

use std::cell::OnceCell;
use std::path::PathBuf;

use crate::client::{self, Client};
use crate::config::{self, Config};
use crate::error::{Error, Outcome};
use crate::flags::Flags;
use crate::host;

/// The name messages use for the program.
pub const NAME: &str = "cleat";

/// One run of the program.
pub struct App {
    /// `config.json`.
    pub config: Config,
    /// Its directory.
    pub directory: PathBuf,
    /// `--debug`.
    pub debug: bool,
    hosts: Vec<String>,
    context: String,
    tls: Tls,
    client: OnceCell<Result<Client, String>>,
}

/// What the `--tls` flags ask for.
struct Tls {
    wanted: bool,
    /// Must be there, as must the other two if they were named.
    ca: String,
    named: Vec<String>,
    /// The daemon's certificate is checked.
    verify: bool,
    /// Our certificate and its key.
    own: Option<(PathBuf, PathBuf)>,
}

impl App {
    /// Takes the global flags.
    ///
    /// # Errors
    /// `--host` and `--context` together.
    pub fn new(flags: &Flags) -> Outcome<Self> {
        let hosts = flags.list("host");
        let context = flags.text("context").to_owned();
        if !context.is_empty() && !hosts.is_empty() {
            return Err("conflicting options: cannot specify both --host and --context".into());
        }
        let directory = config::directory(flags.text("config"));
        let config = Config::load(&directory);
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let wanted = flags.on("tls")
            || flags.on("tlsverify")
            || (!flags.changed("tls") && set("DOCKER_TLS"))
            || (!flags.changed("tlsverify") && set("DOCKER_TLS_VERIFY"));
        let certificates = std::env::var("DOCKER_CERT_PATH").ok().filter(|path| !path.is_empty());
        let certificates = certificates.map_or_else(|| directory.clone(), PathBuf::from);
        let ca = match flags.text("tlscacert") {
            "" => certificates.join("ca.pem").to_string_lossy().into_owned(),
            path => path.to_owned(),
        };
        let named = [flags.list("tlscert"), flags.list("tlskey")].concat();
        let verify =
            flags.on("tlsverify") || (!flags.changed("tlsverify") && set("DOCKER_TLS_VERIFY"));
        let own = |flag: &str, name: &str| match flags.text(flag) {
            // What was not named need not be there.
            "" => Some(certificates.join(name)).filter(|path| path.exists()),
            path => Some(PathBuf::from(path)),
        };
        let own = own("tlscert", "cert.pem").zip(own("tlskey", "key.pem"));
        let tls = Tls { wanted, ca, named, verify, own };
        Ok(Self {
            config,
            directory,
            debug: flags.on("debug"),
            hosts,
            context,
            tls,
            client: OnceCell::new(),
        })
    }

    /// The way to the daemon.
    ///
    /// # Errors
    /// An address that is none, or a context that does not exist.
    pub fn client(&self) -> Outcome<&Client> {
        match self.client.get_or_init(|| self.make_client()) {
            Ok(client) => Ok(client),
            Err(reason) => Err(Error::Message(format!("Failed to initialize: {reason}"))),
        }
    }

    fn make_client(&self) -> Result<Client, String> {
        let unresolved = |reason: String| format!("unable to resolve docker endpoint: {reason}");
        let host = self.endpoint().map_err(unresolved)?;
        if host.starts_with("npipe://") {
            return Err("protocol not available".into());
        }
        if self.tls.wanted {
            for path in std::iter::once(&self.tls.ca).chain(&self.tls.named) {
                std::fs::File::open(path)
                    .map_err(|error| unresolved(crate::go::path_error("open", path, &error)))?;
            }
        }
        let mut tls = None;
        if self.tls.wanted && host.starts_with("tcp://") {
            let files = client::Tls {
                ca: PathBuf::from(&self.tls.ca),
                own: self.tls.own.clone(),
                verify: self.tls.verify,
            };
            tls = Some(client::Connector::new(&files).map_err(unresolved)?);
        }
        let mut headers: Vec<(String, String)> = self
            .config
            .http_headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        headers.extend(headers_from_environment()?);
        let pinned = std::env::var("DOCKER_API_VERSION").ok().filter(|version| !version.is_empty());
        let pinned = pinned.map(|version| version.trim_start_matches('v').to_owned());
        Ok(Client::new(host, headers, pinned).with_tls(tls))
    }

    fn endpoint(&self) -> Result<String, String> {
        let context = self.context_name();
        if context != "default" {
            let stored = crate::context::Store::new(&self.directory).load(&context)?;
            return host::parse(&stored.host, false);
        }
        self.default_host()
    }

    /// The address that the command line or the environment names.
    ///
    /// # Errors
    /// It is none, or there are several.
    pub fn default_host(&self) -> Result<String, String> {
        match &self.hosts[..] {
            [] => host::parse(&std::env::var("DOCKER_HOST").unwrap_or_default(), self.tls.wanted),
            [one] => host::parse(one, self.tls.wanted),
            _ => Err("Specify only one -H".into()),
        }
    }

    /// The context in force.
    pub fn context_name(&self) -> String {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !self.context.is_empty() {
            return self.context.clone();
        }
        if !self.hosts.is_empty() || set("DOCKER_HOST").is_some() {
            return "default".into();
        }
        set("DOCKER_CONTEXT")
            .or_else(|| Some(self.config.current_context.clone()).filter(|name| !name.is_empty()))
            .unwrap_or_else(|| "default".into())
    }
}

/// `DOCKER_CUSTOM_HEADERS`: `name=value` separated by commas.
fn headers_from_environment() -> Result<Vec<(String, String)>, String> {
    let Ok(text) = std::env::var("DOCKER_CUSTOM_HEADERS") else { return Ok(Vec::new()) };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let invalid = |field: &str| {
        format!(
            "failed to parse custom headers from DOCKER_CUSTOM_HEADERS environment variable: invalid entry: {field}"
        )
    };
    let fields = crate::opts::csv::fields(&text)?;
    fields
        .iter()
        .map(|field| match field.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), value.to_owned()))
            }
            _ => Err(invalid(field)),
        })
        .collect()
}
