//! Whose containers' cgroups are: `exec-opts` and `cgroup-parent`.
//!
//! ```text
//!  cgroupfs   /PARENT/ID                       directories of ours
//!  systemd    PARENT.slice:PREFIX:ID           the scope PREFIX-ID.scope, which systemd makes when the runtime asks
//! ```
//! Sources: `dockerd(8)`, "DAEMON EXEC OPTIONS"; OCI runtime-spec, config-linux.md, "Cgroups Path"; `systemd.slice(5)`.

use std::path::Path;

use cleat_proto::id::ContainerId;

use super::{Error, invalid};

/// Where systemd runs, `sd_booted(3)`.
const SYSTEMD: &str = "/run/systemd/system";

/// Who makes containers' cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The runtime, as directories.
    Cgroupfs,
    /// systemd, as scopes.
    Systemd,
}

impl Driver {
    /// Returns its name, as in `native.cgroupdriver` and `docker info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// Checks what is to be a parent of cgroups.
    ///
    /// # Errors
    /// dockerd's text, where systemd wants a slice.
    pub fn check_parent(self, parent: &str) -> Result<(), Error> {
        let is_slice = parent.len() > ".slice".len() && parent.ends_with(".slice");
        if self == Self::Cgroupfs || parent.is_empty() || is_slice {
            return Ok(());
        }
        Err(invalid(
            r#"cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice""#,
        ))
    }
}

/// What of the host decides on the driver.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// cgroup v2 alone.
    pub unified: bool,
    /// systemd runs.
    pub systemd: bool,
}

impl Host {
    /// Looks.
    pub fn look() -> Self {
        Self {
            unified: crate::task::cgroup::is_unified(),
            systemd: Path::new(SYSTEMD).symlink_metadata().is_ok_and(|found| found.is_dir()),
        }
    }
}

/// How containers' cgroups are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Who makes them.
    pub driver: Driver,
    /// Of containers that name none.
    parent: String,
    /// Before a scope's id.
    prefix: String,
}

impl Cgroups {
    /// Puts `exec-opts` and `cgroup-parent` together; `name` is the daemon's own among its like.
    ///
    /// # Errors
    /// dockerd's texts; and a driver that the host does not have.
    pub fn new(
        exec_opts: &[String],
        parent: Option<&str>,
        name: String,
        host: Host,
    ) -> Result<Self, Error> {
        let driver = driver(exec_opts, host)?;
        let parent = parent.filter(|parent| !parent.is_empty());
        driver.check_parent(parent.unwrap_or_default())?;
        let parent = match (parent, driver) {
            (Some(parent), _) => parent.to_owned(),
            (None, Driver::Cgroupfs) => format!("/{name}"),
            (None, Driver::Systemd) => "system.slice".to_owned(),
        };
        Ok(Self { driver, parent, prefix: name })
    }

    /// Returns the `cgroupsPath` of a container; `own` is the parent that it names, or empty.
    pub fn path(&self, own: &str, id: &ContainerId) -> String {
        let parent = if own.is_empty() { &self.parent } else { own };
        match self.driver {
            Driver::Cgroupfs => format!("/{}/{id}", parent.trim_matches('/')),
            Driver::Systemd => format!("{parent}:{}:{id}", self.prefix),
        }
    }

    /// Returns the parent that is the daemon's to remove. Slices are systemd's.
    pub fn own_parent(&self) -> Option<&str> {
        (self.driver == Driver::Cgroupfs).then_some(&self.parent)
    }
}

/// Reads `native.cgroupdriver`; where nothing is said, systemd has the cgroups of v2 as long as it runs.
fn driver(exec_opts: &[String], host: Host) -> Result<Driver, Error> {
    let mut named = "";
    for text in exec_opts {
        let wrong = |why: String| invalid(format_args!("invalid exec-opt ({text}): {why}"));
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(wrong("must be formatted 'opt=value'".to_owned()));
        }
        match key.as_str() {
            "native.cgroupdriver" => named = value,
            "isolation" => {
                return Err(wrong(format!("option '{key}' is only supported on windows")));
            }
            _ => return Err(wrong(format!("unknown option: '{key}'"))),
        }
    }
    match named {
        "cgroupfs" => Ok(Driver::Cgroupfs),
        "systemd" if host.systemd => Ok(Driver::Systemd),
        "systemd" => Err(invalid(format_args!(
            "native.cgroupdriver=systemd: systemd does not run on this host, there is no {SYSTEMD}"
        ))),
        "" if host.unified && host.systemd => Ok(Driver::Systemd),
        "" => Ok(Driver::Cgroupfs),
        "none" => Err(invalid(
            "native.cgroupdriver option none is internally used and cannot be specified manually",
        )),
        other => Err(invalid(format_args!("native.cgroupdriver option {other} not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Host = Host { unified: false, systemd: false };
    const V2: Host = Host { unified: true, systemd: true };

    fn made(options: &[&str], parent: &str, host: Host) -> Result<Cgroups, String> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        let made = Cgroups::new(&options, Some(parent), "cleat-x".to_owned(), host);
        made.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(options: &[&str], host: Host, expected: Result<Driver, &str>) {
        let driver = made(options, "", host).map(|cgroups| cgroups.driver);
        assert_eq!(driver, expected.map_err(str::to_owned), "{options:?}");
    }

    #[test]
    fn the_driver_is_the_one_named_or_else_what_the_host_is_for() {
        check(&[], V1, Ok(Driver::Cgroupfs));
        check(&[], V2, Ok(Driver::Systemd));
        check(&[], Host { systemd: false, ..V2 }, Ok(Driver::Cgroupfs));
        check(&[], Host { unified: false, ..V2 }, Ok(Driver::Cgroupfs));
        check(&["native.cgroupdriver=cgroupfs"], V2, Ok(Driver::Cgroupfs));
        check(&[" Native.CgroupDriver = systemd "], V2, Ok(Driver::Systemd));
        let twice = ["native.cgroupdriver=cgroupfs", "native.cgroupdriver=systemd"];
        check(&twice, Host { unified: false, ..V2 }, Ok(Driver::Systemd));
    }

    #[test]
    fn what_makes_no_sense_has_dockers_words() {
        let malformed = |text| format!("invalid exec-opt ({text}): must be formatted 'opt=value'");
        for text in ["x", "=x", "native.cgroupdriver=", " = "] {
            check(&[text], V2, Err(&malformed(text)));
        }
        for (text, words) in [
            ("a.b=c", "invalid exec-opt (a.b=c): unknown option: 'a.b'"),
            (
                "isolation=default",
                "invalid exec-opt (isolation=default): option 'isolation' is only supported on windows",
            ),
            ("native.cgroupdriver=x", "native.cgroupdriver option x not supported"),
            (
                "native.cgroupdriver=none",
                "native.cgroupdriver option none is internally used and cannot be specified manually",
            ),
        ] {
            check(&[text], V2, Err(words));
        }
        check(
            &["native.cgroupdriver=systemd"],
            V1,
            Err(
                "native.cgroupdriver=systemd: systemd does not run on this host, there is no /run/systemd/system",
            ),
        );
    }

    #[test]
    fn systemd_s_parent_is_a_slice() {
        for parent in ["/x", "x", ".slice", "x.slice/y"] {
            assert_eq!(
                made(&[], parent, V2).unwrap_err(),
                "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\""
            );
            made(&[], parent, V1).unwrap();
        }
    }

    #[test]
    fn a_container_s_cgroup_is_below_its_own_parent_or_the_daemons() {
        let id: ContainerId = "a".repeat(64).parse().unwrap();
        for (host, daemons, own, expected) in [
            (V1, "", "", format!("/cleat-x/{id}")),
            (V1, "/d/", "", format!("/d/{id}")),
            (V1, "/d", "own", format!("/own/{id}")),
            (V2, "", "", format!("system.slice:cleat-x:{id}")),
            (V2, "d.slice", "", format!("d.slice:cleat-x:{id}")),
            (V2, "d.slice", "own.slice", format!("own.slice:cleat-x:{id}")),
        ] {
            assert_eq!(made(&[], daemons, host).unwrap().path(own, &id), expected);
        }
    }
}
