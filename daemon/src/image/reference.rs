//! What users call images: `[domain/]path[:tag][@digest]`, with Docker Hub as the default domain.
//!
//! Source: distribution-spec, "Pulling manifests" (name and tag grammar), and the `reference` grammar that Docker's clients
//! follow (domain and path components, defaults `docker.io` and `library/`).

use std::fmt;

use cleat_proto::digest::{Digest, ImageId};

const DEFAULT_DOMAIN: &str = "docker.io";
/// The name that clients of old send for the default domain.
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// It would, in lower case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It could be mistaken for an id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// It is too long.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
}

/// A repository's full name: `docker.io/library/busybox`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    domain: String,
    path: String,
}

impl Name {
    /// Returns the registry: `docker.io`, `host:port`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository in it: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name as users write it: `busybox`.
    pub fn familiar(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        self.path
            .strip_prefix(OFFICIAL)
            .filter(|rest| !rest.contains('/'))
            .unwrap_or(&self.path)
            .to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)
    }
}

/// A name, perhaps with a tag and a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Which repository.
    pub name: Name,
    /// Which tag in it.
    pub tag: Option<String>,
    /// Exactly which manifest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference and puts the defaults for domain and path in.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_hex_id(text) {
            return Err(Error::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| Error::Format)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder.as_str(), None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Error::Uppercase(path.to_owned()));
        }
        let tag_is_good = tag.is_none_or(is_tag);
        if !is_domain(&domain) || !is_path(path) || !tag_is_good {
            return Err(Error::Format);
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(Error::TooLong);
        }
        let name = Name { domain, path: path.to_owned() };
        Ok(Self { name, tag: tag.map(str::to_owned), digest })
    }

    /// Puts the tag `latest` in where there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Returns it as users write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_name(self.name.familiar())
    }

    /// Returns the key under which the store has it: by digest where there is one, since that alone decides then.
    pub fn key(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name),
            None => self.clone().or_latest().with_name(self.name.to_string()),
        }
    }

    fn with_name(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(self.name.to_string()))
    }
}

/// What a user typed where an image is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// A whole id, with `sha256:` or without.
    Id(ImageId),
    /// A name. It may still be an id's beginning: names are looked up first.
    Named(Reference),
}

impl ImageRef {
    /// Reads what a user typed.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let whole = if is_hex_id(text) { format!("sha256:{text}") } else { text.to_owned() };
        match whole.parse::<ImageId>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Reference::parse(text).map(Self::Named),
        }
    }
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits at the first slash if what is before it can only be a host, and puts the defaults in.
fn split_domain(text: &str) -> (String, String) {
    let is_host = |text: &str| {
        text.contains(['.', ':'])
            || text == "localhost"
            || text.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, rest) = match text.split_once('/') {
        Some((domain, rest)) if is_host(domain) => (domain, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        (domain.to_owned(), format!("{OFFICIAL}{rest}"))
    } else {
        (domain.to_owned(), rest.to_owned())
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_good =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_good = match inner {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_domain_component),
    };
    port_is_good && host_is_good
}

fn is_domain_component(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lowercase letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_are_words =
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    let separators = bytes.split(|byte| is_word(*byte)).filter(|run| !run.is_empty());
    ends_are_words
        && separators
            .into_iter()
            .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-'))
}

/// Returns whether a text can be a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, Error>) {
        let found = Reference::parse(text).map(|reference| reference.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn the_defaults_are_docker_hub_and_its_library() {
        check("busybox", Ok("docker.io/library/busybox"));
        check("busybox:1.36", Ok("docker.io/library/busybox:1.36"));
        check("user/app", Ok("docker.io/user/app"));
        check("index.docker.io/busybox", Ok("docker.io/library/busybox"));
        check("localhost/x", Ok("localhost/x"));
        check("localhost:5000/x:1", Ok("localhost:5000/x:1"));
        check("host.example/a/b__c/d-e--f", Ok("host.example/a/b__c/d-e--f"));
        check("[::1]:5000/x", Ok("[::1]:5000/x"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for wrong in [
            "",
            ":tag",
            "a b",
            "-a",
            "a..b",
            "a___b",
            "a/",
            "/a",
            "a:b c",
            "a@sha256:1",
            "a//b",
            "../../x:1",
            "a:-b",
            "host:x/a",
        ] {
            check(wrong, Err(Error::Format));
        }
        check("UPPER", Err(Error::Uppercase("library/UPPER".into())));
        check("u/UPPER", Err(Error::Uppercase("u/UPPER".into())));
        let id = "a".repeat(64);
        check(&id, Err(Error::LooksLikeId(id.clone())));
        check(&format!("u/{}", "a".repeat(255)), Err(Error::TooLong));
    }

    #[test]
    fn familiar_names_leave_the_defaults_out() {
        let familiar = |text| Reference::parse(text).unwrap().familiar();
        assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
        assert_eq!(familiar("docker.io/user/app"), "user/app");
        assert_eq!(familiar("quay.io/library/x"), "quay.io/library/x");
    }

    #[test]
    fn with_a_digest_the_tag_does_not_count() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let tagged = Reference::parse(&format!("a:1@{digest}")).unwrap();
        let bare = Reference::parse(&format!("a@{digest}")).unwrap();
        assert_eq!(tagged.key(), bare.key());
    }

    #[test]
    fn an_id_is_64_digits_with_or_without_its_algorithm() {
        let id = "b".repeat(64);
        assert!(matches!(ImageRef::parse(&id), Ok(ImageRef::Id(_))));
        assert!(matches!(ImageRef::parse(&format!("sha256:{id}")), Ok(ImageRef::Id(_))));
        assert!(matches!(ImageRef::parse("bbbb"), Ok(ImageRef::Named(_))));
    }
}
