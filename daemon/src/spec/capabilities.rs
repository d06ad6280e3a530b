//! Which capabilities a container has: Docker's fourteen, with what was added and dropped.

use cleat_proto::docker::container::{HostConfig, StrSlice};
use cleat_sys::capability::NAMES as ALL;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::Error;

/// What a container has unless told otherwise, in Docker's order.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Names of capabilities, without `CAP_`.
pub type Names = Vec<&'static str>;

/// Reads names as users write them, with or without `CAP_`, in any case; `ALL` stays out of the names and is told apart.
///
/// # Errors
/// Docker's text for a name that is none, and for one that this host cannot give: `available` has a bit per number.
fn parse(list: &Option<StrSlice>, option: &str, available: u64) -> Result<(Names, bool), Error> {
    let (mut names, mut all) = (Names::new(), false);
    for text in list.iter().flat_map(|list| &list.0) {
        let upper = text.to_ascii_uppercase();
        if upper == "ALL" {
            all = true;
            continue;
        }
        let wanted = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let Some(number) = ALL.iter().position(|name| *name == wanted) else {
            return Err(Error::Invalid(format!(
                "invalid {option}: unknown capability: \"CAP_{wanted}\""
            )));
        };
        if available & (1 << number) == 0 {
            return Err(Error::Invalid(format!(
                "invalid {option}: capability not supported by your kernel or not available in the current environment: \"CAP_{wanted}\""
            )));
        }
        names.push(ALL[number]);
    }
    Ok((names, all))
}

/// Returns the capabilities of a container in Docker's order.
///
/// # Errors
/// As Docker words them, for what `CapAdd` and `CapDrop` name.
pub fn granted(host: &HostConfig, available: u64) -> Result<Names, Error> {
    let every = || {
        ALL.into_iter()
            .enumerate()
            .filter(|(number, _)| available & (1 << number) != 0)
            .map(|(_, name)| name)
    };
    let (add, add_all) = parse(&host.cap_add, "CapAdd", available)?;
    let (drop, drop_all) = parse(&host.cap_drop, "CapDrop", available)?;
    if host.privileged {
        return Ok(every().collect());
    }
    if add_all {
        return Ok(every().filter(|name| !drop.contains(name)).collect());
    }
    if drop_all {
        return Ok(add);
    }
    let mut names: Names = DEFAULT.into_iter().filter(|name| !drop.contains(name)).collect();
    names.extend(add.into_iter().filter(|name| !names.contains(name)).collect::<Names>());
    Ok(names)
}

/// Returns the sets of the container's first process. Inheritable and ambient stay empty: CVE-2022-24769, CVE-2016-8867.
pub fn sets(names: &[&str]) -> LinuxCapabilities {
    let set: Capabilities = names
        .iter()
        .filter_map(|name| serde_json::from_value::<Capability>(format!("CAP_{name}").into()).ok())
        .collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// Returns the capabilities this daemon can give away: its own bounding set, a bit per number.
pub fn available() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = (1 << 41) - 1;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list =
            |names: &[&str]| Some(StrSlice(names.iter().map(|&name| name.to_owned()).collect()));
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expected: &[&str]) {
        assert_eq!(granted(&host(add, drop), FULL).unwrap(), expected, "+{add:?} -{drop:?}");
    }

    #[test]
    fn nothing_asked_gives_the_fourteen() {
        check(&[], &[], &DEFAULT);
    }

    #[test]
    fn all_means_all_on_either_side() {
        check(&[], &["ALL"], &[]);
        check(&["chown"], &["all"], &["CHOWN"]);
        assert_eq!(granted(&host(&["ALL"], &["CAP_SYS_ADMIN"]), FULL).unwrap().len(), 40);
    }

    #[test]
    fn a_name_counts_once_and_in_any_form() {
        check(
            &["CAP_CHOWN", "net_admin"],
            &["KILL"],
            &[
                "CHOWN",
                "DAC_OVERRIDE",
                "FSETID",
                "FOWNER",
                "MKNOD",
                "NET_RAW",
                "SETGID",
                "SETUID",
                "SETFCAP",
                "SETPCAP",
                "NET_BIND_SERVICE",
                "SYS_CHROOT",
                "AUDIT_WRITE",
                "NET_ADMIN",
            ],
        );
    }

    #[test]
    fn what_is_none_is_named() {
        let error = granted(&host(&["NOSUCH"], &[]), FULL).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_NOSUCH\"");
    }

    #[test]
    fn what_the_daemon_lacks_it_cannot_give() {
        assert!(granted(&host(&["SYS_RESOURCE"], &[]), FULL & !(1 << 24)).is_err());
        let mut privileged = host(&[], &[]);
        privileged.privileged = true;
        assert!(!granted(&privileged, FULL & !(1 << 24)).unwrap().contains(&"SYS_RESOURCE"));
    }
}
