//! Host devices: `HOST[:CONTAINER][:MODE]`, CDI names, and cgroup rules.

use cleat_proto::docker::container::DeviceMapping;

use crate::go;

/// Checks a cgroup device rule such as `c 1:* rwm`.
///
/// # Errors
/// Any other form.
pub fn validate_rule(value: &str) -> Result<String, String> {
    let number = |text: &str| {
        text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let words: Vec<&str> = value.split(' ').collect();
    let ok = match words[..] {
        [kind, numbers, mode] => {
            matches!(kind, "a" | "c" | "b")
                && numbers
                    .split_once(':')
                    .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&mode.len())
                && mode.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'm'))
        }
        _ => false,
    };
    if ok { Ok(value.to_owned()) } else { Err(format!("invalid device cgroup format '{value}'")) }
}

/// Whether `value` is the name of a CDI device: `vendor/class=name`.
pub fn is_cdi(value: &str) -> bool {
    let Some((kind, name)) = value.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str, also: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    vendor.starts_with(|c: char| c.is_ascii_alphabetic())
        && class.starts_with(|c: char| c.is_ascii_alphabetic())
        && word(vendor, "_-.")
        && word(class, "_-")
        && word(name, "_-.:")
}

/// Reads a device of `--device`.
///
/// # Errors
/// No path, a relative path in the container, or a bad mode.
pub fn parse(value: &str) -> Result<DeviceMapping, String> {
    let checked = check(value)?;
    let parts: Vec<&str> = checked.splitn(4, ':').collect();
    let mut permissions = "rwm";
    let mut destination = "";
    if parts.len() == 3 {
        permissions = parts[2];
    }
    if let Some(second) = parts.get(1) {
        if is_mode(second) {
            permissions = second;
        } else {
            destination = second;
        }
    }
    let destination = if destination.is_empty() { parts[0] } else { destination };
    Ok(DeviceMapping {
        path_on_host: parts[0].to_owned(),
        path_in_container: destination.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

fn check(value: &str) -> Result<String, String> {
    let parts: Vec<&str> = value.split(':').collect();
    let (inside, checked) = match parts[..] {
        ["", ..] => return Err(format!("bad format for path: {value}")),
        [path] => (path, go::clean_path(path)),
        [path, mode] if is_mode(mode) => (path, format!("{}:{mode}", go::clean_path(path))),
        [host, path] => (path, format!("{host}:{}", go::clean_path(path))),
        [host, path, mode] => {
            if !is_mode(mode) {
                return Err(format!("bad mode specified: {mode}"));
            }
            (path, format!("{host}:{path}:{mode}"))
        }
        _ => return Err(format!("bad format for path: {value}")),
    };
    if inside.starts_with('/') {
        Ok(checked)
    } else {
        Err(format!("{inside} is not an absolute path"))
    }
}

fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'm'))
        && ['r', 'w', 'm'].iter().all(|letter| text.matches(*letter).count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_parts(value: &str, expected: (&str, &str, &str)) {
        let device = parse(value).unwrap();
        assert_eq!(
            (&*device.path_on_host, &*device.path_in_container, &*device.cgroup_permissions),
            expected,
            "{value}"
        );
    }

    #[test]
    fn a_device_has_up_to_three_parts() {
        check_parts("/dev/null", ("/dev/null", "/dev/null", "rwm"));
        check_parts("/dev/random:r", ("/dev/random", "/dev/random", "r"));
        check_parts("/dev/zero:/dev/z", ("/dev/zero", "/dev/z", "rwm"));
        check_parts("/dev/full:/dev/f:rw", ("/dev/full", "/dev/f", "rw"));
        assert_eq!(parse("/a:/b:xyz"), Err("bad mode specified: xyz".into()));
        assert_eq!(parse("a"), Err("a is not an absolute path".into()));
    }

    #[test]
    fn cdi_names_and_rules_are_told_apart_from_paths() {
        assert!(is_cdi("vendor.example/net=one"));
        assert!(!is_cdi("/dev/null"));
        assert!(validate_rule("c 1:* rwm").is_ok());
        assert_eq!(validate_rule("x 1:2 r"), Err("invalid device cgroup format 'x 1:2 r'".into()));
    }
}
