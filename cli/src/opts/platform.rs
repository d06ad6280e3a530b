//! Platforms: `OS[/ARCH[/VARIANT]]`, or an architecture alone.

use crate::go;

/// A platform in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v8`.
    pub variant: String,
}

/// Reads a platform and writes it in its usual form.
///
/// # Errors
/// As [`parse`], with what it was for.
pub fn normalized(text: &str) -> Result<String, String> {
    let platform =
        parse(text).map_err(|reason| format!("error parsing specified platform: {reason}"))?;
    Ok(platform.text())
}

impl Platform {
    /// `linux/arm64/v8`.
    pub fn text(&self) -> String {
        let parts = [self.os.as_str(), &self.architecture, &self.variant];
        parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
    }

    /// The JSON that image endpoints take.
    pub fn json(&self) -> String {
        let mut text = format!(r#"{{"architecture":"{}","os":"{}""#, self.architecture, self.os);
        if !self.variant.is_empty() {
            text.push_str(&format!(r#","variant":"{}""#, self.variant));
        }
        text.push('}');
        text
    }
}

/// Reads a platform.
///
/// # Errors
/// Too many parts, or signs that belong to none.
pub fn parse(text: &str) -> Result<Platform, String> {
    if text.contains('*') {
        return Err(format!("{}: wildcards not yet supported: invalid argument", go::quote(text)));
    }
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    if let Some(part) = parts.iter().find(|part| !word(part)) {
        return Err(format!(
            "{} is an invalid component of {}: platform specifier component must match \
             \"^[A-Za-z0-9_.-]+$\": invalid argument",
            go::quote(part),
            go::quote(text)
        ));
    }
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let lower: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
    match &lower[..] {
        [one] if is_os(one) => {
            Ok(Platform { os: one.clone(), architecture: host.into(), variant: String::new() })
        }
        [one] if is_architecture(one) => {
            let (architecture, variant) = architecture(one, "");
            Ok(Platform { os: "linux".into(), architecture, variant })
        }
        [_] => Err(format!(
            "{}: unknown operating system or architecture: invalid argument",
            go::quote(text)
        )),
        [os, arch] => {
            let (architecture, variant) = architecture(arch, "");
            Ok(Platform { os: os.clone(), architecture, variant })
        }
        [os, arch, variant] => {
            let (architecture, variant) = architecture(arch, variant);
            Ok(Platform { os: os.clone(), architecture, variant })
        }
        _ => Err(format!("{}: cannot parse platform specifier: invalid argument", go::quote(text))),
    }
}

fn is_os(text: &str) -> bool {
    matches!(
        text,
        "linux"
            | "windows"
            | "darwin"
            | "freebsd"
            | "netbsd"
            | "openbsd"
            | "solaris"
            | "aix"
            | "android"
    )
}

fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "mips64le"
            | "x86_64"
            | "aarch64"
            | "i386"
            | "armhf"
            | "armel"
            | "loong64"
    )
}

fn architecture(name: &str, variant: &str) -> (String, String) {
    let (name, variant) = match (name, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        other => other,
    };
    (name.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_one_to_three_parts() {
        assert_eq!(normalized("linux/amd64"), Ok("linux/amd64".into()));
        assert_eq!(normalized("arm64/v8").map(|_| ()), Ok(()));
        assert_eq!(normalized("aarch64"), Ok("linux/arm64".into()));
        assert_eq!(
            parse("bogus/x/y/z/w"),
            Err("\"bogus/x/y/z/w\": cannot parse platform specifier: invalid argument".into())
        );
    }
}
