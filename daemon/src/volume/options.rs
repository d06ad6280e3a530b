//! The local driver's options: `type`, `device`, `o`, as mount(8) would have them. Pure.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Content, Error};

/// Reads what the options ask for; `None` is a plain directory.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words, [`Error::NotImplemented`].
pub fn parse(options: Option<&BTreeMap<String, String>>) -> Result<Option<Content>, Error> {
    let Some(options) = options.filter(|options| !options.is_empty()) else { return Ok(None) };
    let unknown =
        options.keys().find(|key| !["type", "device", "o", "size"].contains(&key.as_str()));
    if let Some(key) = unknown {
        return Err(Error::Invalid(format!("invalid option: {key:?}")));
    }
    if options.contains_key("size") {
        return Err(Error::Invalid("quota size requested but no quota support".to_owned()));
    }
    let required = |key: &str| {
        let value = options.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| Error::Invalid(format!("missing required option: {key:?}")))
    };
    let device = required("device")?;
    let kind = required("type")?;
    let words: Vec<&str> = options
        .get("o")
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter(|word| !word.is_empty())
        .collect();
    if words.iter().any(|word| matches!(*word, "bind" | "rbind")) {
        return bound(device, &words).map(Some);
    }
    match kind.as_str() {
        "tmpfs" => Ok(Some(Content::Filesystem {
            kind: kind.clone(),
            device: device.clone(),
            options: words.into_iter().map(str::to_owned).collect(),
        })),
        other => Err(Error::NotImplemented(format!(
            "volumes of type {other:?} are not implemented: only tmpfs, and o=bind"
        ))),
    }
}

fn bound(device: &str, words: &[&str]) -> Result<Content, Error> {
    if !device.starts_with('/') {
        return Err(Error::Invalid(format!("invalid option: device {device:?} is not absolute")));
    }
    match words.iter().find(|word| !matches!(**word, "bind" | "rbind" | "rw")) {
        Some(word) => Err(Error::NotImplemented(format!(
            "the mount option {word:?} is not implemented for a bound directory"
        ))),
        None => Ok(Content::Directory(PathBuf::from(device))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[(&str, &str)]) -> Result<Option<Content>, Error> {
        let owned = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        parse(Some(&owned.collect()))
    }

    #[track_caller]
    fn refused(options: &[(&str, &str)], text: &str) {
        assert_eq!(parsed(options).unwrap_err().to_string(), text);
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        refused(&[("nosuch", "1")], "invalid option: \"nosuch\"");
        refused(&[("type", "tmpfs")], "missing required option: \"device\"");
        refused(&[("device", "/tmp")], "missing required option: \"type\"");
        refused(&[("o", "size=1m")], "missing required option: \"device\"");
        refused(&[("size", "1m")], "quota size requested but no quota support");
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        let nfs = parsed(&[("type", "nfs"), ("device", ":/x")]);
        assert!(matches!(nfs, Err(Error::NotImplemented(_))));
        let read_only = parsed(&[("type", "none"), ("device", "/x"), ("o", "bind,ro")]);
        assert!(matches!(read_only, Err(Error::NotImplemented(_))));
    }

    #[test]
    fn a_tmpfs_and_a_bound_directory_are_mounted_in_the_container() {
        let tmpfs = parsed(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=1")]);
        let options = ["size=1m", "uid=1"].map(str::to_owned).to_vec();
        let (kind, device) = ("tmpfs".to_owned(), "tmpfs".to_owned());
        assert_eq!(tmpfs.unwrap(), Some(Content::Filesystem { kind, device, options }));
        let bound = parsed(&[("type", "none"), ("device", "/x"), ("o", "bind")]).unwrap();
        assert_eq!(bound, Some(Content::Directory("/x".into())));
        assert_eq!(parsed(&[]).unwrap(), None);
    }
}
