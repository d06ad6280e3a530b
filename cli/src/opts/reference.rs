//! Image references as people write them: `busybox`, `registry:5000/team/app:tag@sha256:…`.

/// A reference in its parts, the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, such as `docker.io`.
    pub domain: String,
    /// The repository in it, such as `library/busybox`.
    pub path: String,
    /// After the colon.
    pub tag: Option<String>,
    /// After the at sign, such as `sha256:…`.
    pub digest: Option<String>,
}

const INVALID: &str = "invalid reference format";

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// In the words of docker's reference library.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_hex(text, 64) {
            return Err(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
            None => (rest, None),
        };
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(format!("{INVALID}: repository name ({path}) must be lowercase"));
        }
        let valid = is_path(&path)
            && is_domain(&domain)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest)
            && !name.is_empty();
        if !valid {
            return Err(INVALID.into());
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }

    /// The name without tag and digest, as people write it: `busybox`, not `docker.io/library/busybox`.
    pub fn familiar_name(&self) -> String {
        match (self.domain.as_str(), self.path.strip_prefix("library/")) {
            ("docker.io", Some(short)) if !short.contains('/') => short.to_owned(),
            ("docker.io", _) => self.path.clone(),
            (domain, _) => format!("{domain}/{}", self.path),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }

    /// The name with its domain: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds `latest` where there is neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some("latest".into());
        }
        self
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => ("docker.io", name),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let path = if domain == "docker.io" && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    (domain.to_owned(), path)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_path(path: &str) -> bool {
    let component = |part: &str| {
        let words: Vec<&str> = part.split(['.', '_', '-']).collect();
        let edges = part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric());
        let separators = !part.contains("..")
            && !part.contains("___")
            && !part.contains("._")
            && !part.contains("_.")
            && !part.contains("-.")
            && !part.contains(".-")
            && !part.contains("-_")
            && !part.contains("_-");
        edges
            && separators
            && words
                .iter()
                .all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    };
    !path.is_empty() && path.len() <= 255 && path.split('/').all(component)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, port)) => {
            return inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
                && (port.is_empty()
                    || port
                        .strip_prefix(':')
                        .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit())));
        }
        None => domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, familiar: &str, name: &str) {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(
            (reference.familiar(), reference.name()),
            (familiar.to_owned(), name.to_owned()),
            "{text}"
        );
    }

    #[test]
    fn defaults_are_filled_in_and_left_out_again() {
        check("busybox", "busybox", "docker.io/library/busybox");
        check("docker.io/library/busybox:1", "busybox:1", "docker.io/library/busybox");
        check("127.0.0.1:1/x", "127.0.0.1:1/x", "127.0.0.1:1/x");
        check("a/b:t", "a/b:t", "docker.io/a/b");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        assert_eq!(
            Reference::parse("BAD"),
            Err("invalid reference format: repository name (library/BAD) must be lowercase".into())
        );
        assert_eq!(Reference::parse("a b"), Err("invalid reference format".into()));
        assert_eq!(Reference::parse("a:"), Err("invalid reference format".into()));
    }
}
