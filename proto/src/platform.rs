//! What machine an image is for: `os[/architecture[/variant]]` in text, and its parts in JSON. Source: OCI image-spec,
//! image-index.md; the text is read as containerd's `platforms.Parse` reads it.

use serde::{Deserialize, Serialize};

/// A kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Platform {
    /// `amd64` …
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// Windows has one.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// `v7`, `v8` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlatform {
    /// `*`.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// A first part that is no word.
    #[error(
        "{0:?} is an invalid OS component of {1:?}: OSAndVersion specifier component must match {OS:?}: invalid argument"
    )]
    Os(String, String),
    /// Another one that is none.
    #[error(
        "{0:?} is an invalid component of {1:?}: platform specifier component must match {WORD:?}: invalid argument"
    )]
    Component(String, String),
    /// One word that stands for neither.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Parts(String),
}

/// What the parts look like, as the messages have it.
const OS: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
const WORD: &str = "^[A-Za-z0-9_.-]+$";

/// Go's names of what it runs on, by which one word is told from another.
const KNOWN_OS: [&str; 18] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "macos",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const KNOWN_ARCHITECTURES: [&str; 28] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "wasm32",
    "wasm64",
    "sh4",
    "alpha",
];

impl Platform {
    /// What this machine runs, in Go's spelling, which images use.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), ..Self::default() }
    }

    /// Reads a platform; what is left out is this machine's.
    ///
    /// # Errors
    /// [`InvalidPlatform`].
    pub fn parse(text: &str) -> Result<Self, InvalidPlatform> {
        if text.contains('*') {
            return Err(InvalidPlatform::Wildcard(text.to_owned()));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let [first, rest @ ..] = &parts[..] else { unreachable!("a split has a first part") };
        let os_version = version(first)
            .ok_or_else(|| InvalidPlatform::Os((*first).to_owned(), text.to_owned()))?;
        if let Some(wrong) = rest.iter().find(|part| !is_word(part, "_.-")) {
            return Err(InvalidPlatform::Component((*wrong).to_owned(), text.to_owned()));
        }
        let os = first.split('(').next().unwrap_or_default().to_ascii_lowercase();
        let (os, (architecture, variant)) = match rest {
            [] if KNOWN_OS.contains(&os.as_str()) => {
                (os, (Self::host().architecture, String::new()))
            }
            [] => {
                let (architecture, variant) = common(&os, "");
                if !KNOWN_ARCHITECTURES.contains(&architecture.as_str()) {
                    return Err(InvalidPlatform::Unknown(text.to_owned()));
                }
                ("linux".to_owned(), (architecture, variant))
            }
            [architecture] => (os, common(architecture, "")),
            [architecture, variant] => {
                let (architecture, variant) = normal(architecture, variant);
                let of_arm64 = architecture == "arm64" && variant.is_empty();
                (os, (architecture, if of_arm64 { "v8".into() } else { variant }))
            }
            _ => return Err(InvalidPlatform::Parts(text.to_owned())),
        };
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        // The version of what is no Windows means nothing.
        let os_version = if os == "windows" { os_version } else { String::new() };
        Ok(Self { architecture, os, os_version, variant })
    }

    /// The JSON that the calls about images take.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts alone are always JSON")
    }

    /// Whether what is made for this platform is what `wanted` asks for.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let (architecture, variant) = normal(&self.architecture, &self.variant);
        let (wanted_architecture, wanted_variant) = normal(&wanted.architecture, &wanted.variant);
        self.os == wanted.os
            && architecture == wanted_architecture
            && (variant.is_empty() || wanted_variant.is_empty() || variant == wanted_variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

fn is_word(text: &str, beside: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || beside.contains(c))
}

/// Reads the version of `name` or `name(version)`.
fn version(first: &str) -> Option<String> {
    let (name, version) = match first.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (first, ""),
    };
    let fits = is_word(name, "_-") && (version.is_empty() || is_word(version, "_.%-+"));
    fits.then(|| version.to_owned())
}

/// An architecture without its variant: that of 32-bit arm goes without saying.
fn common(architecture: &str, variant: &str) -> (String, String) {
    match normal(architecture, variant) {
        (arm, v7) if arm == "arm" && v7 == "v7" => (arm, String::new()),
        other => other,
    }
}

/// An architecture and its variant by their usual names.
fn normal(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let read = Platform::parse(text);
        assert_eq!(
            read.map_or_else(|e| e.to_string(), |read| read.to_string()),
            expected,
            "{text}"
        );
    }

    /// Each as `docker import --platform` answered.
    #[test]
    fn platforms_are_read_as_containerd_reads_them() {
        let host = Platform::host();
        check("linux", &host.to_string());
        check("arm64", "linux/arm64");
        check("arm", "linux/arm");
        check("linux/arm", "linux/arm");
        check("armhf", "linux/arm");
        check("linux/armel", "linux/arm/v6");
        check("linux/arm/7", "linux/arm/v7");
        check("linux/arm/v8", "linux/arm/v8");
        check("aarch64", "linux/arm64");
        check("linux/aarch64/8", "linux/arm64/v8");
        check("linux/arm64/v9", "linux/arm64/v9");
        check("x86_64", "linux/amd64");
        check("LINUX/AMD64", "linux/amd64");
        check("linux/amd64/v1", "linux/amd64");
        check("linux/amd64/v2", "linux/amd64/v2");
        check("i386", "linux/386");
        check("linux(5)/amd64", "linux/amd64");
        check("linux/bogus", "linux/bogus");
        assert_eq!(Platform::parse("windows(10.0)/amd64").unwrap().os_version, "10.0");
    }

    #[test]
    fn what_is_no_platform_is_named() {
        check("bogus", r#""bogus": unknown operating system or architecture: invalid argument"#);
        check("a/b/c/d", r#""a/b/c/d": cannot parse platform specifier: invalid argument"#);
        check("linux/*", r#""linux/*": wildcards not yet supported: invalid argument"#);
        let component =
            r#"platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument"#;
        check("linux/", &format!(r#""" is an invalid component of "linux/": {component}"#));
        check(
            "linux/a b",
            &format!(r#""a b" is an invalid component of "linux/a b": {component}"#),
        );
        assert!(Platform::parse("/").unwrap_err().to_string().starts_with(
            r#""" is an invalid OS component of "/": OSAndVersion specifier component must match "^([A-Za-z"#
        ));
    }

    #[test]
    fn an_image_satisfies_what_its_variant_allows() {
        let is = |has: &str, wanted: &str| {
            Platform::parse(has).unwrap().satisfies(&Platform::parse(wanted).unwrap())
        };
        assert!(is("linux/arm64", "linux/arm64/v8"));
        assert!(is("linux/arm64/v8", "arm64"));
        assert!(is("linux/arm/v6", "linux/arm/v6"));
        assert!(!is("linux/arm/v6", "linux/arm/v7"));
        assert!(!is("linux/amd64", "linux/arm64"));
        assert!(!is("freebsd/amd64", "linux/amd64"));
    }
}
