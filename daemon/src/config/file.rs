//! `daemon.json`, as it stands.

use std::{collections::BTreeMap, fmt};

use cleat_proto::docker::{
    container::Ulimit,
    go_json::{Document, Value},
};
use serde::{Deserialize, Deserializer, de};

use super::{Error, invalid};

/// What dockerd 28.5 knows and we do not honour. Source: `dockerd(8)`.
const NOT_YET: [&str; 47] = [
    "allow-direct-routing",
    "api-cors-header",
    "authorization-plugins",
    "bip6",
    "builder",
    "cdi-spec-dirs",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cri-containerd",
    "default-address-pools",
    "default-cgroupns-mode",
    "default-gateway",
    "default-gateway-v6",
    "default-ipc-mode",
    "default-network-opts",
    "default-stop-timeout",
    "experimental",
    "features",
    "fixed-cidr",
    "fixed-cidr-v6",
    "host-gateway-ip",
    "host-gateway-ips",
    "ip-forward",
    "ip-forward-no-drop",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "metrics-addr",
    "min-api-version",
    "network-control-plane-mtu",
    "network-diagnostic-port",
    "no-new-privileges",
    "node-generic-resources",
    "oom-score-adjust",
    "raw-logs",
    "rootless",
    "seccomp-profile",
    "selinux-enabled",
    "storage-driver",
    "storage-opts",
    "swarm-default-advertise-addr",
    "userland-proxy",
    "userns-remap",
];

/// Declares the file's keys once: the struct, their names, what merges and what conflicts.
macro_rules! file {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $key:literal,)*) => {
        /// Every key that we honour. A flag becomes the key it stands for.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs)]
        pub struct File {
            $($(#[$doc])* #[serde(rename = $key)] pub $field: Option<$type>,)*
        }

        impl File {
            const KEYS: &'static [&'static str] = &[$($key),*];

            /// Whatever is not set here is taken from `flags`; conflicts were found before. Runtimes add up.
            pub fn or(mut self, flags: Self) -> Self {
                if let (Some(ours), Some(theirs)) = (&mut self.runtimes, &flags.runtimes) {
                    ours.extend(theirs.clone());
                }
                $(self.$field = self.$field.or(flags.$field);)*
                self
            }

            /// What `key` was set to, for error texts.
            fn shown(&self, key: &str) -> Option<String> {
                match key {
                    $($key => self.$field.as_ref().map(|value| value.show()),)*
                    _ => None,
                }
            }
        }
    };
}

file! {
    data_root: String = "data-root",
    exec_root: String = "exec-root",
    hosts: Vec<String> = "hosts",
    tls: bool = "tls",
    tlsverify: bool = "tlsverify",
    tlscacert: String = "tlscacert",
    tlscert: String = "tlscert",
    tlskey: String = "tlskey",
    group: String = "group",
    pidfile: String = "pidfile",
    debug: bool = "debug",
    log_level: String = "log-level",
    log_format: String = "log-format",
    runtimes: BTreeMap<String, Runtime> = "runtimes",
    default_runtime: String = "default-runtime",
    init: bool = "init",
    init_path: String = "init-path",
    cgroup_parent: String = "cgroup-parent",
    exec_opts: Vec<String> = "exec-opts",
    bridge: String = "bridge",
    bip: String = "bip",
    mtu: i64 = "mtu",
    dns: Vec<String> = "dns",
    dns_search: Vec<String> = "dns-search",
    dns_opts: Vec<String> = "dns-opts",
    ip: String = "ip",
    icc: bool = "icc",
    log_driver: String = "log-driver",
    log_opts: BTreeMap<String, String> = "log-opts",
    default_shm_size: Size = "default-shm-size",
    default_ulimits: BTreeMap<String, Ulimit> = "default-ulimits",
    /// Our own: Docker's old behaviour at SIGTERM.
    stop_containers: bool = "stop-containers",
    live_restore: bool = "live-restore",
    shutdown_timeout: i64 = "shutdown-timeout",
    /// Our own: images that no container uses go when they were not used for so many days; 0 is never.
    image_gc_days: i64 = "image-gc-days",
    /// Our own: they go, the one unused for the longest first, while the disk is fuller than that; 0 is never.
    image_gc_disk_percent: i64 = "image-gc-disk-percent",
    labels: Vec<String> = "labels",
    registry_mirrors: Vec<String> = "registry-mirrors",
    insecure_registries: Vec<String> = "insecure-registries",
    max_concurrent_downloads: i64 = "max-concurrent-downloads",
    max_concurrent_uploads: i64 = "max-concurrent-uploads",
    max_download_attempts: i64 = "max-download-attempts",
    /// In the file these three stand within `proxies`.
    http_proxy: String = "http-proxy",
    https_proxy: String = "https-proxy",
    no_proxy: String = "no-proxy",
    proxies: Proxies = "proxies",
}

impl File {
    /// Reads the file, and finds what `flags` say as well.
    ///
    /// # Errors
    /// dockerd's text.
    pub fn parse(text: &[u8], flags: &Self) -> Result<Self, String> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let document = Document::parse(text).map_err(|error| error.to_string())?;
        let Value::Object(entries) = document.value() else {
            let read = document.read_named::<BTreeMap<String, de::IgnoredAny>>(None);
            let text = read.map_or_else(|error| error.to_string(), |_| String::new());
            return Err(text.replace("map[string]string", "map[string]interface {}"));
        };
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_ref()).collect();
        let unlike = |known: &dyn Fn(&str) -> bool| {
            keys.iter().copied().filter(|key| !known(key)).collect::<Vec<_>>()
        };
        let unknown = unlike(&|key| Self::KEYS.contains(&key) || NOT_YET.contains(&key));
        if !unknown.is_empty() {
            return Err(format!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            ));
        }
        let not_yet = unlike(&|key| Self::KEYS.contains(&key));
        if !not_yet.is_empty() {
            return Err(format!(
                "the following directives are not implemented by cleat yet: {}",
                not_yet.join(", ")
            ));
        }
        let mut file: Self =
            document.read_named(Some("Config")).map_err(|error| error.to_string())?;
        if let Some(proxies) = file.proxies.take() {
            file.http_proxy = proxies.http_proxy.or(file.http_proxy);
            file.https_proxy = proxies.https_proxy.or(file.https_proxy);
            file.no_proxy = proxies.no_proxy.or(file.no_proxy);
            keys.extend(["http-proxy", "https-proxy", "no-proxy"]);
        }
        file.conflicts(flags, &keys)?;
        Ok(file)
    }

    fn conflicts(&self, flags: &Self, keys: &[&str]) -> Result<(), String> {
        let conflict = |key: &&str| {
            let (flag, file) = (flags.shown(key)?, self.shown(key)?);
            (*key != "runtimes").then(|| format!("{key}: (from flag: {flag}, from file: {file})"))
        };
        let conflicts: Vec<String> = keys.iter().filter_map(conflict).collect();
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        ))
    }
}

/// An entry of `runtimes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Runtime {
    pub path: Option<String>,
    pub runtime_args: Option<Vec<String>>,
    pub runtime_type: Option<String>,
}

/// `proxies`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[allow(missing_docs)]
pub struct Proxies {
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

/// A number of bytes, or a text with a unit.
#[derive(Clone, Debug)]
pub struct Size(pub String);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("string")
            }
            fn visit_str<E>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_i64<E>(self, number: i64) -> Result<String, E> {
                Ok(number.to_string())
            }
        }
        deserializer.deserialize_any(Either).map(Self)
    }
}

impl Size {
    /// Reads `64M`, `1g`, `1.5GiB`, `1024`: go-units' `RAMInBytes`, binary units whatever they are called.
    ///
    /// # Errors
    /// `invalid size: 'x'`.
    pub fn bytes(&self) -> Result<u64, Error> {
        let wrong = || invalid(format_args!("invalid size: '{}'", self.0));
        let text = self.0.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..end].parse().map_err(|_| wrong())?;
        let unit = text[end..].trim().to_ascii_lowercase();
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
        let shift = match unit {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(wrong()),
        };
        Ok((number * (1u64 << shift) as f64) as u64)
    }
}

/// How a value looks in an error text: as Go's `%v`.
trait Show {
    fn show(&self) -> String;
}

impl Show for String {
    fn show(&self) -> String {
        self.clone()
    }
}

impl Show for bool {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for i64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for Size {
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Never compared: its parts are.
impl Show for Proxies {
    fn show(&self) -> String {
        String::new()
    }
}

impl Show for Vec<String> {
    fn show(&self) -> String {
        format!("[{}]", self.join(" "))
    }
}

impl Show for BTreeMap<String, String> {
    fn show(&self) -> String {
        let pairs: Vec<String> = self.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        format!("map[{}]", pairs.join(" "))
    }
}

impl Show for BTreeMap<String, Runtime> {
    fn show(&self) -> String {
        format!("map[{}]", self.keys().cloned().collect::<Vec<_>>().join(" "))
    }
}

impl Show for BTreeMap<String, Ulimit> {
    fn show(&self) -> String {
        let limits: Vec<String> =
            self.values().map(|l| format!("{}={}:{}", l.name, l.soft, l.hard)).collect();
        format!("[{}]", limits.join(" "))
    }
}
