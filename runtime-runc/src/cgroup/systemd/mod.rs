//! The systemd driver: the container's cgroup belongs to a transient scope (or slice) that systemd makes, so that there is one
//! who knows all cgroups. Asked for with `--systemd-cgroup`, named by `cgroupsPath` as `slice:prefix:name`.
//!
//! ```text
//! StartTransientUnit (with the first process) ─▶ JobRemoved ─▶ files as with cgroupfs … SetUnitProperties … StopUnit
//! ```
//! A scope begins with a process in it and ends with its last one, and is delegated: below it everything is ours. Limits are
//! told to systemd first, or it would undo them when it reads its units again, and then written, since it does not know all.
//! Sources: `org.freedesktop.systemd1(5)`; `systemd.resource-control(5)`; systemd's CGROUP_DELEGATION.

mod annotation;
mod properties;

use super::error::{Error, Result};
use super::{Cgroup, file};
use crate::dbus::wire::{Call, Reader, Value};
use crate::dbus::{self, Bus};
use nix::unistd::{Pid, Uid};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const MANAGER: Call<'static> = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};

/// The unit that a container's cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Such as `docker-0123.scope`.
    name: String,
    /// The slice it is in, or none for the default one.
    slice: String,
    /// Of the user's own systemd.
    user: bool,
}

impl Unit {
    /// Reads `slice:prefix:name`; without it, the unit is `runc-ID.scope` in the default slice.
    ///
    /// # Errors
    /// [`Error::NoSystemd`] on hosts without; [`Error::UnitPath`].
    pub fn new(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Self> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(Error::NoSystemd);
        }
        Self::parse(cgroups_path.unwrap_or_default(), id, user)
    }

    fn parse(path: &str, id: &str, user: bool) -> Result<Self> {
        let parts: Vec<&str> =
            if path.is_empty() { vec!["", "runc", id] } else { path.split(':').collect() };
        let [slice, prefix, name] = parts[..] else { return Err(Error::UnitPath(path.to_owned())) };
        if name.contains('/') || prefix.contains('/') || name.is_empty() {
            return Err(Error::UnitPath(path.to_owned()));
        }
        // What is a slice itself is named so.
        let name = match name.strip_suffix(".slice") {
            Some(_) => name.to_owned(),
            None => format!("{prefix}-{name}.scope"),
        };
        let unit = Self { name, slice: slice.to_owned(), user };
        unit.slice_path().map(|_| unit)
    }

    /// Returns whether it is of a user's own systemd.
    pub fn is_user_s(&self) -> bool {
        self.user
    }

    fn slice(&self) -> &str {
        match (self.slice.as_str(), self.user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        }
    }

    fn slice_path(&self) -> Result<String> {
        // Of the default ones the name is the path.
        if self.slice.is_empty() { Ok(format!("/{}", self.slice())) } else { expand(&self.slice) }
    }

    /// Returns where the cgroup will be in every hierarchy, below its root.
    pub fn cgroup(&self) -> Result<String> {
        let slice = self.slice_path()?;
        // A user's systemd has a cgroup itself.
        let base =
            if self.user { property(&mut self.connect()?, "ControlGroup")? } else { String::new() };
        Ok(format!("{}{}/{}", base.trim_end_matches('/'), slice.trim_end_matches('/'), self.name))
    }

    /// Returns the path of a directory of the cgroup below the unit's, with a slash in front.
    fn below<'a>(&self, directory: &'a Path) -> Option<&'a str> {
        let text = directory.to_str()?;
        let at = text.find(&format!("/{}", self.name))? + 1 + self.name.len();
        Some(if at == text.len() { "/" } else { &text[at..] })
    }

    fn connect(&self) -> Result<Bus> {
        Bus::connect(self.user).map_err(self.failed("connect to systemd"))
    }

    fn failed(&self, what: &'static str) -> impl Fn(dbus::Error) -> Error {
        let unit = self.name.clone();
        move |source| Error::Systemd { what, unit: unit.clone(), source }
    }

    /// Makes the unit, with `pid` in it. One of that name in which nobody is (`is_empty`) makes way.
    fn start(
        &self,
        pid: Pid,
        annotations: &BTreeMap<String, String>,
        is_empty: bool,
    ) -> Result<()> {
        let mut properties = properties::of_new(&self.name, self.slice(), pid);
        properties.extend(annotation::properties(annotations)?);
        let mut bus = self.connect()?;
        let arguments =
            [text(&self.name), text("replace"), Value::Properties(properties), Value::NoUnits];
        let failed = self.failed("unable to start unit");
        bus.watch_jobs(MANAGER).map_err(&failed)?;
        let mut start = || -> dbus::Result<()> {
            let answer = bus.call(Call { member: "StartTransientUnit", ..MANAGER }, &arguments)?;
            let job = Reader::new(&answer.body).text()?.to_owned();
            bus.wait_for_job(&job)
        };
        match start() {
            // What is left of a failed one; systemd removes it when it is told to forget the failure. Or one whose processes have
            // ended this moment, which systemd has yet to hear.
            Err(error) if error.is("UnitExists") => {
                if is_empty && self.name.ends_with(".scope") {
                    self.stop()?;
                } else {
                    self.reset(&mut self.connect()?);
                }
                start().map_err(failed)
            }
            Err(error) => {
                self.reset(&mut self.connect()?);
                Err(failed(error))
            }
            Ok(()) => Ok(()),
        }
    }

    fn reset(&self, bus: &mut Bus) {
        // It need not have failed.
        let _ = bus.call(Call { member: "ResetFailedUnit", ..MANAGER }, &[text(&self.name)]);
    }

    /// Ends the unit; one that is gone is no error.
    fn stop(&self) -> Result<()> {
        let mut bus = self.connect()?;
        let failed = self.failed("unable to stop unit");
        bus.watch_jobs(MANAGER).map_err(&failed)?;
        match bus.call(Call { member: "StopUnit", ..MANAGER }, &[text(&self.name), text("replace")])
        {
            Err(error) if error.is("NoSuchUnit") => {}
            Err(error) => return Err(failed(error)),
            Ok(answer) => {
                let job = Reader::new(&answer.body)
                    .text()
                    .map_err(|malformed| failed(malformed.into()))?;
                if let Err(error) = bus.wait_for_job(job) {
                    crate::log::warn(&format!("error removing unit {}: {error}", self.name));
                }
            }
        }
        self.reset(&mut bus);
        Ok(())
    }

    /// Tells the limits to systemd; returns them as they are to be written.
    fn set(
        &self,
        is_v2: bool,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<LinuxResources> {
        let mut bus = self.connect()?;
        let version = version_of(&property(&mut bus, "Version")?);
        let resources = properties::rounded(resources, version);
        let properties = properties::of_resources(&resources, is_v2, devices, version)?;
        let arguments = [text(&self.name), Value::Bool(true), Value::Properties(properties)];
        bus.call(Call { member: "SetUnitProperties", ..MANAGER }, &arguments)
            .map_err(self.failed("unable to set unit properties"))?;
        Ok(resources)
    }

    /// Has systemd move a process of ours into the unit, which a user's own may not always.
    fn attach(&self, directory: &Path, pid: Pid) -> Result<()> {
        let below = self
            .below(directory)
            .ok_or_else(|| Error::BadSubPath(directory.display().to_string()))?;
        let arguments =
            [text(&self.name), text(below), Value::U32s(vec![pid.as_raw().unsigned_abs()])];
        let call = Call { member: "AttachProcessesToUnit", ..MANAGER };
        let done = self.connect()?.call(call, &arguments);
        done.map(drop).map_err(self.failed("unable to attach a process to unit"))
    }
}

impl Cgroup {
    /// Names the cgroup of a unit, which is not made yet.
    pub fn of_unit(unit: Unit) -> Result<Self> {
        let mut cgroup = Self::new(Some(&unit.cgroup()?), &unit.name)?;
        cgroup.unit = Some(unit);
        Ok(cgroup)
    }

    /// Returns the unit it belongs to.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Brings a container's first process in. With systemd the cgroup begins with it; else it is there already.
    pub fn admit(&self, pid: Pid, annotations: &BTreeMap<String, String>) -> Result<()> {
        let Some(unit) = &self.unit else { return self.add(pid) };
        unit.start(pid, annotations, self.pids()?.is_empty())?;
        // The hierarchies and controllers that systemd leaves alone.
        self.create()?;
        match self.add(pid) {
            Err(_) if unit.user => Ok(()),
            done => done,
        }
    }

    /// Gives the cgroup to the user whom the container's programs run as, as far as the kernel says that is safe.
    /// Source: OCI runtime-spec, config-linux.md, "Cgroup ownership"; the kernel's cgroup-v2.rst, "Delegation Containment".
    pub fn delegate(&self, owner: Uid) -> Result<()> {
        let (Some(_), Some(unified)) = (&self.unit, self.unified().filter(|_| self.is_pure_v2()))
        else {
            return Ok(());
        };
        let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let list = list.unwrap_or_else(|_| {
            "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
        });
        for name in [""].into_iter().chain(list.lines()) {
            let path = unified.dir.join(name);
            let given = nix::unistd::chown(&path, Some(owner), None);
            match given {
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(errno) => {
                    return Err(Error::Write {
                        path,
                        value: owner.to_string(),
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn attach(&self, pid: Pid) -> Result<()> {
        let added = self.add_directly(pid);
        match (&self.unit, added) {
            (Some(unit), Err(error))
                if unit.user && matches!(file::errno(&error), Some(libc::EACCES | libc::EPERM)) =>
            {
                unit.attach(&self.tracking().dir, pid)
            }
            (_, added) => added,
        }
    }

    pub(super) fn stop_unit(&self) -> Result<()> {
        self.unit.as_ref().map_or(Ok(()), Unit::stop)
    }

    /// Tells systemd; returns the limits as they are to be written.
    pub(super) fn tell_systemd(
        &self,
        resources: &LinuxResources,
        devices: bool,
    ) -> Result<Option<LinuxResources>> {
        let Some(unit) = &self.unit else { return Ok(None) };
        unit.set(self.is_pure_v2(), resources, devices).map(Some)
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Reads a property of the manager that is a string.
fn property(bus: &mut Bus, name: &str) -> Result<String> {
    let call = Call { interface: "org.freedesktop.DBus.Properties", member: "Get", ..MANAGER };
    let mut get = || -> dbus::Result<String> {
        let answer = bus.call(call, &[text(MANAGER.interface), text(name)])?;
        let mut body = Reader::new(&answer.body);
        match body.signature()? {
            "s" => Ok(body.text()?.to_owned()),
            _ => Err(dbus::Error::Malformed),
        }
    };
    get().map_err(|source| Error::Systemd {
        what: "unable to read property",
        unit: name.to_owned(),
        source,
    })
}

/// Reads versions such as `257.7-1`, `v245.4-1.fc32` and `"249"`.
fn version_of(text: &str) -> u32 {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// Returns where a slice's cgroup is: `a-b.slice` lies in `a.slice`. Source: `systemd.slice(5)`.
fn expand(slice: &str) -> Result<String> {
    let wrong = || Error::InvalidSlice(slice.to_owned());
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    if name == "-" {
        return Ok("/".to_owned());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &name[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_those_its_name_begins_with() {
        for (slice, path) in [
            ("system.slice", "/system.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", "/"),
        ] {
            assert_eq!(expand(slice).unwrap(), path);
        }
        for slice in ["", ".slice", "a", "a/b.slice", "-a.slice", "a--b.slice", "a-.slice"] {
            assert!(expand(slice).is_err(), "{slice}");
        }
    }

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let unit = Unit::parse(path, "id", false).unwrap();
        assert_eq!(unit.cgroup().unwrap(), expected, "{path}");
    }

    #[test]
    fn a_path_names_slice_prefix_and_name() {
        check("", "/system.slice/runc-id.scope");
        check(":docker:abc", "/system.slice/docker-abc.scope");
        check("a-b.slice:cri:x", "/a.slice/a-b.slice/cri-x.scope");
        check("a.slice::a-x.slice", "/a.slice/a-x.slice");
        check("-.slice:p:x", "/p-x.scope");
        for path in ["/docker/abc", "a:b", "a.slice:b:c:d", "a:b:c", "a.slice:b:c/d", "a.slice:b:"]
        {
            assert!(Unit::parse(path, "id", false).is_err(), "{path}");
        }
    }

    #[test]
    fn a_directory_below_is_named_from_the_unit_on() {
        let unit = Unit::parse("a.slice:p:x", "id", true).unwrap();
        let below = |path| unit.below(Path::new(path));
        assert_eq!(below("/sys/fs/cgroup/a.slice/p-x.scope"), Some("/"));
        assert_eq!(below("/sys/fs/cgroup/a.slice/p-x.scope/one/two"), Some("/one/two"));
        assert_eq!(below("/sys/fs/cgroup/a.slice"), None);
    }

    #[test]
    fn versions_begin_with_a_number() {
        for (text, version) in
            [("257.7-1", 257), ("v245.4-1.fc32", 245), ("\"249\"", 249), ("x", 0)]
        {
            assert_eq!(version_of(text), version, "{text}");
        }
    }
}
