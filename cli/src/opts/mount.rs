//! `--mount type=…,src=…,dst=…,…`.

use std::collections::BTreeMap;

use cleat_proto::docker::container::{BindOptions, Driver, Mount, VolumeOptions};

use super::{csv, size};
use crate::go;

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    let options = mount.volume_options.get_or_insert_default();
    options.driver_config.get_or_insert_default();
    options
}

fn driver(mount: &mut Mount) -> &mut Driver {
    volume(mount).driver_config.get_or_insert_default()
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn add(map: &mut BTreeMap<String, String>, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    if !key.is_empty() {
        map.insert(key.to_owned(), value.to_owned());
    }
}

/// Reads a mount.
///
/// # Errors
/// An unknown key, a bad value, no target, or options of another type.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".into(), ..Mount::default() };
    for field in csv::fields(text)? {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        match value {
            None => set_word(&mut mount, &key, &field)?,
            Some(value) => set_pair(&mut mount, &key, value, &field)?,
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn set_word(mount: &mut Mount, key: &str, field: &str) -> Result<(), String> {
    match key {
        "readonly" | "ro" => mount.read_only = true,
        "volume-nocopy" => volume(mount).no_copy = true,
        "bind-nonrecursive" => bind(mount).non_recursive = true,
        _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
    }
    Ok(())
}

fn set_pair(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let boolean = || go::parse_bool(value).ok_or_else(invalid);
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => {
            mount.source = match go::absolute_path(value) {
                Some(absolute) if value.starts_with('.') => absolute,
                _ => value.to_owned(),
            };
        }
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = boolean()?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = boolean()?,
        "bind-recursive" => match value {
            "enabled" => {} // the default
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "{} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
                    invalid()
                ));
            }
        },
        "volume-subpath" => value.clone_into(&mut volume(mount).subpath),
        "volume-nocopy" => volume(mount).no_copy = boolean()?,
        "volume-label" => add(volume(mount).labels.get_or_insert_default(), value),
        "volume-driver" => value.clone_into(&mut driver(mount).name),
        "volume-opt" => add(driver(mount).options.get_or_insert_default(), value),
        "image-subpath" => {
            value.clone_into(&mut mount.image_options.get_or_insert_default().subpath)
        }
        "tmpfs-size" => {
            mount.tmpfs_options.get_or_insert_default().size_bytes =
                size::ram_in_bytes(value).map_err(|_| invalid())?;
        }
        "tmpfs-mode" => {
            mount.tmpfs_options.get_or_insert_default().mode =
                go::parse_uint(value, 8, 32).map_err(|_| invalid())? as i64;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn check(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".into());
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    let mixed = |given: bool, kind: &str| given && mount.kind != kind;
    for (given, kind) in [
        (mount.volume_options.is_some(), "volume"),
        (mount.image_options.is_some(), "image"),
        (mount.bind_options.is_some(), "bind"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if mixed(given, kind) {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind));
        }
    }
    let Some(bind) = &mount.bind_options else { return Ok(()) };
    let requires = |mode: &str, other: &str| {
        Err(format!(
            "option 'bind-recursive={mode}' requires '{other}' to be specified in conjunction"
        ))
    };
    if bind.read_only_non_recursive && !mount.read_only {
        return requires("writable", "readonly");
    }
    if bind.read_only_force_recursive && !mount.read_only {
        return requires("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return requires("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_with_options_has_a_driver() {
        let mount =
            parse(r#"type=volume,source=v,target=/v,"volume-opt=o=size=1m,uid=7",ro=0"#).unwrap();
        let options = mount.volume_options.unwrap();
        assert_eq!(options.driver_config.unwrap().options.unwrap()["o"], "size=1m,uid=7");
        assert!(!mount.read_only);
    }

    #[test]
    fn refusals_have_dockers_words() {
        for (text, expected) in [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=volume", "target is required"),
            ("type=bind,src=/a,dst=/b,bogus=1", "unexpected key 'bogus' in 'bogus=1'"),
            ("dst=/a,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            (
                "type=tmpfs,dst=/a,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'tmpfs'",
            ),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
    }
}
