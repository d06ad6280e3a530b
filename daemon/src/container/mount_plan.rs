//! Planning a container's mounts: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes, resolved. Pure; the texts
//! are Docker's.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use cleat_proto::{
    docker::container::{Config, HostConfig, Mount},
    kind::Kind,
};

use super::mount_point::{MountPoint, RecursiveReadOnly, Source};
use crate::volume::{ANONYMOUS_LABEL, New as NewVolume};

/// Finds an image: its id, and its topmost layer if it has layers.
type FindImage<'a> = dyn Fn(&str) -> Result<(String, Option<String>), Error> + 'a;

/// What planning depends on besides the request itself.
pub struct Host<'a> {
    /// The mounts of the container that `VolumesFrom` names; `None` if there is no such container.
    pub mounts_of: &'a dyn Fn(&str) -> Option<Vec<MountPoint>>,
    /// Whether a path of the host exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// The id and the topmost layer of the image that a name means.
    pub image: &'a FindImage<'a>,
    /// The driver of a volume that exists.
    pub volume_driver: &'a dyn Fn(&str) -> Option<String>,
    /// Makes a name for an anonymous volume: 64 hex digits.
    pub new_name: &'a dyn Fn() -> String,
    /// The daemon's root: a bind mount of it, or of what it is in, is `rslave` by default.
    pub data_root: &'a Path,
}

/// What a container mounts, and the volumes it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In Docker's order.
    pub mounts: Vec<MountPoint>,
    /// To be acquired (made, or found by name) before the record is committed.
    pub volumes: Vec<NewVolume>,
}

/// What is wrong with what was asked for, in Docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A bad mount.
    #[error("{0}")]
    Invalid(String),
    /// A bad entry of `Binds`, which Docker calls a failure of its own.
    #[error("{0}")]
    Bind(String),
    /// `VolumesFrom` names nobody.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// There is no such image.
    #[error("{0}")]
    NoSuchImage(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::Bind(_) => Kind::Internal,
            Self::NoSuchContainer(_) => Kind::InvalidArgument,
            Self::NoSuchImage(_) => Kind::NotFound,
        }
    }
}

/// Resolves `VolumesFrom`, `Binds`, `Mounts`, `Tmpfs` and the volumes of the image (merged into `config.volumes`).
/// Pure but for what `host` tells. A place that `VolumesFrom` fills gives way to one the user names; two that the user names
/// are refused.
///
/// # Errors
/// [`Error`].
pub fn plan(config: &Config, host_config: &HostConfig, host: &Host<'_>) -> Result<Plan, Error> {
    let mut planner = Planner { host, host_config, places: BTreeMap::new(), volumes: Vec::new() };
    for text in host_config.volumes_from.iter().flatten() {
        planner.volumes_from(text)?;
    }
    // `VolumesFrom` takes no place from the user.
    let mut named = BTreeSet::new();
    for text in host_config.binds.iter().flatten() {
        let mount = planner.bind(text).map_err(|error| match error {
            Error::Invalid(text) => Error::Bind(text),
            other => other,
        })?;
        planner.place(mount, &mut named, true)?;
    }
    for mount in host_config.mounts.iter().flatten() {
        let mount = planner.mount(mount)?;
        planner.place(mount, &mut named, false)?;
    }
    for (destination, options) in host_config.tmpfs.iter().flatten() {
        planner.tmpfs(destination, options)?;
    }
    for destination in config.volumes.iter().flat_map(BTreeMap::keys) {
        planner.image_volume(destination)?;
    }
    Ok(planner.finish())
}

const LOCAL_DRIVER: &str = "local";
/// What Docker mounts a tmpfs with; what the user says comes after, and wins.
const TMPFS_DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];

struct Planner<'a> {
    host: &'a Host<'a>,
    host_config: &'a HostConfig,
    places: BTreeMap<String, MountPoint>,
    volumes: Vec<NewVolume>,
}

impl Planner<'_> {
    fn volumes_from(&mut self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Err(invalid("volumes-from specification cannot be an empty string"));
        }
        let (reference, mode) = text.split_once(':').unwrap_or((text, ""));
        let options = Options::parse(mode)
            .filter(|options| options.propagation.is_none() && options.no_copy.is_none());
        let options = options.ok_or_else(|| invalid_mode(mode))?;
        let mounts = (self.host.mounts_of)(reference)
            .ok_or_else(|| Error::NoSuchContainer(reference.to_owned()))?;
        for mut mount in mounts {
            if matches!(mount.source, Source::Tmpfs { .. }) {
                continue;
            }
            mount.rw &= !options.read_only;
            if let Source::Volume { name, driver, .. } = &mount.source {
                self.volumes.push(NewVolume {
                    name: name.clone(),
                    driver: driver.clone(),
                    ..NewVolume::default()
                });
            }
            self.places.insert(mount.destination.clone(), mount);
        }
        Ok(())
    }

    /// Reads `source:destination[:options]`, or a destination alone.
    fn bind(&mut self, text: &str) -> Result<MountPoint, Error> {
        let malformed = || invalid(format!("invalid volume specification: '{text}'"));
        let wrong = |error: Error| match error {
            Error::Invalid(why) => {
                invalid(format!("invalid volume specification: '{text}': {why}"))
            }
            other => other,
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, mode) = match *parts {
            [destination] if !destination.is_empty() => ("", destination, ""),
            // `/x:ro` has no source.
            [source, destination]
                if !source.is_empty() && Options::parse(destination).is_none() =>
            {
                (source, destination, "")
            }
            [source, destination, mode] if !source.is_empty() => (source, destination, mode),
            _ => return Err(malformed()),
        };
        let options = Options::parse(mode).ok_or_else(|| invalid_mode(mode))?;
        let is_path = source.starts_with('/');
        let kind = if is_path { "bind" } else { "volume" };
        let destination = clean_destination(kind, destination).map_err(wrong)?;
        if is_path && options.no_copy.is_some() {
            return Err(wrong(extra_field(kind, "VolumeOptions")));
        }
        if !is_path && options.propagation.is_some() {
            return Err(wrong(extra_field(kind, "BindOptions")));
        }
        let mount = MountPoint {
            source: Source::Tmpfs { options: Vec::new() },
            destination,
            rw: !options.read_only,
            mode: mode.to_owned(),
            propagation: String::new(),
            recursive_ro: RecursiveReadOnly::IfPossible,
            from_mounts: false,
        };
        if is_path {
            let path = PathBuf::from(clean(source));
            let propagation = self.propagation(&path, options.propagation)?;
            return Ok(MountPoint {
                source: Source::Bind { path, create: true, non_recursive: false },
                propagation,
                ..mount
            });
        }
        let wanted = NewVolume {
            name: source.to_owned(),
            driver: self.host_config.volume_driver.clone(),
            ..NewVolume::default()
        };
        let source = self.volume(wanted, String::new(), options.no_copy.unwrap_or(false));
        Ok(MountPoint { source, mode: shown_mode(mode), ..mount })
    }

    fn mount(&mut self, mount: &Mount) -> Result<MountPoint, Error> {
        let kind = mount.kind.as_str();
        let wrong = |why: &str| invalid_config(kind, why);
        if mount.target.is_empty() {
            return Err(wrong("field Target must not be empty"));
        }
        let destination = clean_destination(kind, &mount.target)?;
        let (source, propagation) = match kind {
            "bind" => self.mounted_path(mount)?,
            "volume" => (self.mounted_volume(mount)?, String::new()),
            "tmpfs" => (mounted_tmpfs(mount)?, String::new()),
            "image" => (self.mounted_image(mount)?, "rprivate".to_owned()),
            _ => return Err(wrong("mount type unknown")),
        };
        let is_volume = matches!(source, Source::Volume { .. });
        let is_image = matches!(source, Source::Image { .. });
        Ok(MountPoint {
            source,
            destination,
            rw: !mount.read_only && !is_image,
            mode: if is_volume { shown_mode("") } else { String::new() },
            propagation,
            recursive_ro: recursive_read_only(mount)?,
            from_mounts: true,
        })
    }

    fn mounted_path(&self, mount: &Mount) -> Result<(Source, String), Error> {
        let wrong = |why: &str| invalid_config("bind", why);
        if mount.source.is_empty() {
            return Err(wrong("field Source must not be empty"));
        }
        let options = mount.bind_options.clone().unwrap_or_default();
        let asked = match options.propagation.as_str() {
            "" => None,
            text if PROPAGATIONS.contains(&text) => Some(text),
            other => return Err(wrong(&format!("invalid propagation mode: {other}"))),
        };
        if mount.volume_options.is_some() {
            return Err(extra_field("bind", "VolumeOptions"));
        }
        if mount.image_options.is_some() {
            return Err(extra_field("bind", "ImageOptions"));
        }
        if !mount.source.starts_with('/') {
            return Err(wrong(&not_absolute(&mount.source)));
        }
        let path = PathBuf::from(clean(&mount.source));
        if !options.create_mountpoint && !(self.host.exists)(&path) {
            return Err(wrong(&format!("bind source path does not exist: {}", mount.source)));
        }
        let propagation = self.propagation(&path, asked)?;
        let (create, non_recursive) = (options.create_mountpoint, options.non_recursive);
        Ok((Source::Bind { path, create, non_recursive }, propagation))
    }

    /// Docker Engine API v1.48, `Mount.ImageOptions`: always read-only.
    fn mounted_image(&self, mount: &Mount) -> Result<Source, Error> {
        let unwanted =
            |field| invalid(format!("{field} must not be specified on mount type \"image\""));
        if mount.bind_options.is_some() {
            return Err(unwanted("BindOptions"));
        }
        if mount.volume_options.is_some() {
            return Err(unwanted("VolumeOptions"));
        }
        if mount.tmpfs_options.is_some() {
            return Err(unwanted("TmpfsOptions"));
        }
        if mount.source.is_empty() {
            return Err(invalid_config("image", "field Source must not be empty"));
        }
        let subpath = mount.image_options.clone().unwrap_or_default().subpath;
        if !stays_inside(&subpath) {
            let why = "subpath must be a relative path within the volume";
            return Err(invalid_config("image", why));
        }
        let (id, top_layer) = (self.host.image)(&mount.source)?;
        Ok(Source::Image { name: mount.source.clone(), id, top_layer, subpath })
    }

    fn mounted_volume(&mut self, mount: &Mount) -> Result<Source, Error> {
        let wrong = |why: &str| invalid_config("volume", why);
        if mount.bind_options.is_some() {
            return Err(extra_field("volume", "BindOptions"));
        }
        if mount.image_options.is_some() {
            return Err(extra_field("volume", "ImageOptions"));
        }
        let options = mount.volume_options.clone().unwrap_or_default();
        let anonymous = mount.source.is_empty();
        if !options.subpath.is_empty() {
            if anonymous {
                return Err(wrong("must not set Subpath when using anonymous volumes"));
            }
            if !stays_inside(&options.subpath) {
                return Err(wrong("subpath must be a relative path within the volume"));
            }
        }
        if anonymous && mount.read_only {
            return Err(wrong("must not set ReadOnly mode when using anonymous volumes"));
        }
        let driver = options.driver_config.unwrap_or_default();
        let wanted = NewVolume {
            name: mount.source.clone(),
            driver: driver.name,
            options: driver.options,
            labels: options.labels,
        };
        Ok(self.volume(wanted, options.subpath, options.no_copy))
    }

    /// Notes a volume as needed. One without a name gets one, and is anonymous.
    fn volume(&mut self, mut wanted: NewVolume, subpath: String, no_copy: bool) -> Source {
        let known = (self.host.volume_driver)(&wanted.name);
        if wanted.name.is_empty() {
            wanted.name = (self.host.new_name)();
            wanted.labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let driver = match (known, wanted.driver.as_str()) {
            (Some(driver), "") => driver,
            (None, "") => LOCAL_DRIVER.to_owned(),
            (_, driver) => driver.to_owned(),
        };
        let name = wanted.name.clone();
        self.volumes.push(wanted);
        Source::Volume { name, driver, subpath, no_copy }
    }

    fn place(
        &mut self,
        mount: MountPoint,
        named: &mut BTreeSet<String>,
        is_bind: bool,
    ) -> Result<(), Error> {
        let on_tmpfs = || {
            let destinations = self.host_config.tmpfs.iter().flat_map(BTreeMap::keys);
            is_bind && destinations.into_iter().any(|other| clean(other) == mount.destination)
        };
        if on_tmpfs() || !named.insert(mount.destination.clone()) {
            return Err(invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
        self.places.insert(mount.destination.clone(), mount);
        Ok(())
    }

    fn tmpfs(&mut self, destination: &str, options: &str) -> Result<(), Error> {
        if !destination.starts_with('/') {
            return Err(invalid(not_absolute(destination)));
        }
        let destination = clean(destination);
        if destination == "/" {
            return Err(invalid(TARGET_IS_ROOT));
        }
        if matches!(self.places.get(&destination), Some(mount) if mount.from_mounts) {
            return Ok(());
        }
        let mut all: Vec<String> = TMPFS_DEFAULTS.map(str::to_owned).to_vec();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if !is_tmpfs_option(option) {
                return Err(invalid(format!("invalid tmpfs option {option:?}")));
            }
            all.push(option.to_owned());
        }
        let rw = !all.iter().any(|option| option == "ro");
        let mount = MountPoint {
            source: Source::Tmpfs { options: all },
            destination: destination.clone(),
            rw,
            mode: String::new(),
            propagation: String::new(),
            recursive_ro: RecursiveReadOnly::IfPossible,
            from_mounts: false,
        };
        self.places.insert(destination, mount);
        Ok(())
    }

    fn image_volume(&mut self, destination: &str) -> Result<(), Error> {
        let destination = clean_destination("volume", destination)?;
        if self.places.contains_key(&destination) {
            return Ok(());
        }
        let driver = self.host_config.volume_driver.clone();
        let source =
            self.volume(NewVolume { driver, ..NewVolume::default() }, String::new(), false);
        let mount = MountPoint {
            source,
            destination: destination.clone(),
            rw: true,
            mode: String::new(),
            propagation: String::new(),
            recursive_ro: RecursiveReadOnly::IfPossible,
            from_mounts: false,
        };
        self.places.insert(destination, mount);
        Ok(())
    }

    /// A mount of the daemon's own files must not hold on to what is mounted there later.
    fn propagation(&self, path: &Path, asked: Option<&str>) -> Result<String, Error> {
        let root = self.host.data_root;
        let of_daemon = path.starts_with(root) || root.starts_with(path);
        match asked {
            None if of_daemon => Ok("rslave".to_owned()),
            None => Ok("rprivate".to_owned()),
            Some("rslave" | "rshared") => Ok(asked.unwrap_or_default().to_owned()),
            Some(other) if of_daemon => Err(invalid(format!(
                "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount \
                 source is within the daemon root, daemon root: {:?}, bind mount source: {:?}, propagation: {other:?}",
                root.display().to_string(),
                path.display().to_string(),
            ))),
            Some(other) => Ok(other.to_owned()),
        }
    }

    /// Outer places come before those inside them. Only volumes that a mount still shows are needed.
    fn finish(self) -> Plan {
        let mut mounts: Vec<MountPoint> = self.places.into_values().collect();
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        let is_shown = |volume: &NewVolume| {
            mounts.iter().any(
                |mount| matches!(&mount.source, Source::Volume { name, .. } if *name == volume.name),
            )
        };
        let volumes = self.volumes.into_iter().filter(is_shown).collect();
        Plan { mounts, volumes }
    }
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
const TARGET_IS_ROOT: &str = "invalid specification: destination can't be '/'";

/// The words after the second colon of a bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    read_only: bool,
    propagation: Option<&'a str>,
    no_copy: Option<bool>,
}

impl<'a> Options<'a> {
    /// Reads the words; `None` if one is unknown, or two are of one kind.
    fn parse(text: &'a str) -> Option<Self> {
        let mut options = Self::default();
        if text.is_empty() {
            return Some(options);
        }
        let mut seen = [0; 5];
        for word in text.split(',') {
            let class = match word {
                "ro" | "rw" => {
                    options.read_only = word == "ro";
                    0
                }
                // SELinux labels: without SELinux there is nothing to relabel.
                "z" | "Z" => 1,
                "nocopy" => {
                    options.no_copy = Some(true);
                    2
                }
                // For other systems' file sharing.
                "consistent" | "cached" | "delegated" => 3,
                word if PROPAGATIONS.contains(&word) => {
                    options.propagation = Some(word);
                    4
                }
                _ => return None,
            };
            seen[class] += 1;
        }
        seen.iter().all(|count| *count < 2).then_some(options)
    }
}

fn mounted_tmpfs(mount: &Mount) -> Result<Source, Error> {
    let wrong = |why: String| invalid_config("tmpfs", &why);
    if mount.bind_options.is_some() {
        return Err(extra_field("tmpfs", "BindOptions"));
    }
    if mount.image_options.is_some() {
        return Err(extra_field("tmpfs", "ImageOptions"));
    }
    if !mount.source.is_empty() {
        return Err(wrong("field Source must not be specified".to_owned()));
    }
    let asked = mount.tmpfs_options.clone().unwrap_or_default();
    let mut options: Vec<String> = TMPFS_DEFAULTS.map(str::to_owned).to_vec();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    match asked.mode {
        0 => {}
        mode @ 1..=0o7777 => options.push(format!("mode={mode:o}")),
        mode => return Err(wrong(format!("invalid mode: {mode}"))),
    }
    match asked.size_bytes {
        0 => {}
        size if size > 0 => options.push(format!("size={size}")),
        size => return Err(wrong(format!("invalid size: {size}"))),
    }
    for option in asked.options.iter().flatten() {
        match option.as_slice() {
            [word] if word == "exec" || word == "noexec" => options.push(word.clone()),
            [word, ..] if option.len() <= 2 => {
                return Err(wrong(format!("invalid option: {word}")));
            }
            _ => return Err(wrong("invalid option array length".to_owned())),
        }
    }
    Ok(Source::Tmpfs { options })
}

fn recursive_read_only(mount: &Mount) -> Result<RecursiveReadOnly, Error> {
    let options = mount.bind_options.clone().unwrap_or_default();
    match (options.read_only_non_recursive, options.read_only_force_recursive) {
        (false, false) => Ok(RecursiveReadOnly::IfPossible),
        (true, false) => Ok(RecursiveReadOnly::Disabled),
        (false, true) => Ok(RecursiveReadOnly::Enforced),
        (true, true) => Err(invalid_config(
            "bind",
            "ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other",
        )),
    }
}

/// Whether mount(8) knows the option for a tmpfs. What would change other mounts (`bind`, `remount`) is not among them.
fn is_tmpfs_option(option: &str) -> bool {
    const WORDS: [&str; 21] = [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "mand",
        "nomand",
    ];
    const KEYS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    match option.split_once('=') {
        Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
        None => WORDS.contains(&option),
    }
}

/// Docker shows a volume's empty mode so.
fn shown_mode(mode: &str) -> String {
    if mode.is_empty() { "z".to_owned() } else { mode.to_owned() }
}

fn clean_destination(kind: &str, destination: &str) -> Result<String, Error> {
    if destination.is_empty() {
        return Err(invalid_config(kind, "field Target must not be empty"));
    }
    let cleaned = clean(destination);
    if cleaned == "/" {
        return Err(invalid_config(kind, TARGET_IS_ROOT));
    }
    if !destination.starts_with('/') {
        return Err(invalid_config(kind, &not_absolute(destination)));
    }
    Ok(cleaned)
}

/// Resolves `.`, `..` and doubled slashes in the text alone; nothing is looked up. The result is absolute.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a relative path, taken as text, leads nowhere above where it starts.
fn stays_inside(path: &str) -> bool {
    let mut depth = 0_usize;
    !path.starts_with('/')
        && path.split('/').all(|part| match part {
            "" | "." => true,
            ".." => depth.checked_sub(1).map(|less| depth = less).is_some(),
            _ => {
                depth += 1;
                true
            }
        })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::Invalid(text.into())
}

fn invalid_config(kind: &str, why: &str) -> Error {
    invalid(format!("invalid mount config for type {kind:?}: {why}"))
}

fn extra_field(kind: &str, field: &str) -> Error {
    invalid_config(kind, &format!("field {field} must not be specified"))
}

fn invalid_mode(mode: &str) -> Error {
    invalid(format!("invalid mode: {mode}"))
}

fn not_absolute(path: &str) -> String {
    format!("invalid mount path: '{path}' mount path must be absolute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::container::{BindOptions, Empty, TmpfsOptions, VolumeOptions};

    fn plan_with(config: &Config, host_config: &HostConfig) -> Result<Plan, Error> {
        let other = MountPoint {
            source: Source::Volume {
                name: "shared".into(),
                driver: "local".into(),
                subpath: String::new(),
                no_copy: false,
            },
            destination: "/shared".into(),
            rw: true,
            mode: "z".into(),
            propagation: String::new(),
            recursive_ro: RecursiveReadOnly::IfPossible,
            from_mounts: false,
        };
        let host = Host {
            mounts_of: &|name| (name == "other").then(|| vec![other.clone()]),
            exists: &|path| path != Path::new("/nosuch"),
            image: &|name| match name {
                "nosuch" => Err(Error::NoSuchImage("No such image: nosuch".into())),
                _ => Ok(("sha256:1".into(), None)),
            },
            volume_driver: &|_| None,
            new_name: &|| "f".repeat(64),
            data_root: Path::new("/var/lib/cleat"),
        };
        plan(config, host_config, &host)
    }

    fn binds(binds: &[&str]) -> Result<Plan, Error> {
        let binds = Some(binds.iter().map(|text| (*text).to_owned()).collect());
        plan_with(&Config::default(), &HostConfig { binds, ..HostConfig::default() })
    }

    fn mounts(mounts: &[Mount]) -> Result<Plan, Error> {
        let mounts = Some(mounts.to_vec());
        plan_with(&Config::default(), &HostConfig { mounts, ..HostConfig::default() })
    }

    fn mount(kind: &str, source: &str, target: &str) -> Mount {
        Mount {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        }
    }

    #[track_caller]
    fn refused(answer: Result<Plan, Error>, text: &str) {
        assert_eq!(answer.unwrap_err().to_string(), text);
    }

    #[track_caller]
    fn bind_refused(text: &str, why: &str) {
        refused(binds(&[text]), &format!("invalid volume specification: '{text}'{why}"));
    }

    #[test]
    fn bad_binds_are_refused_in_dockers_words() {
        for malformed in ["", ":/x", "/tmp:", "a:b:c:d:e", "/tmp:ro", "a:b:c:d"] {
            bind_refused(malformed, "");
        }
        let bind = ": invalid mount config for type \"bind\": ";
        bind_refused(
            "/tmp:x",
            &format!("{bind}invalid mount path: 'x' mount path must be absolute"),
        );
        bind_refused(
            "/tmp:/../..",
            &format!("{bind}invalid specification: destination can't be '/'"),
        );
        bind_refused("/tmp:/x:nocopy", &format!("{bind}field VolumeOptions must not be specified"));
        let volume = ": invalid mount config for type \"volume\": ";
        bind_refused("/", &format!("{volume}invalid specification: destination can't be '/'"));
        bind_refused(
            "rel",
            &format!("{volume}invalid mount path: 'rel' mount path must be absolute"),
        );
        bind_refused("nv:/x:rshared", &format!("{volume}field BindOptions must not be specified"));
        for mode in ["ro,rw", "bogus", "copy", "z,Z", "private,shared", "ro,"] {
            refused(binds(&[&format!("/tmp:/x:{mode}")]), &format!("invalid mode: {mode}"));
        }
        refused(binds(&["/tmp:/x", "/var:/x/../x"]), "Duplicate mount point: /x");
    }

    #[test]
    fn a_bind_is_cleaned_and_private_unless_it_shows_the_daemons_root() {
        let check = |text: &str, source: &str, destination: &str, propagation: &str| {
            let planned = binds(&[text]).unwrap().mounts.remove(0);
            let path = PathBuf::from(source);
            assert_eq!(planned.source, Source::Bind { path, create: true, non_recursive: false });
            assert_eq!(
                (&*planned.destination, &*planned.propagation),
                (destination, propagation),
                "{text}"
            );
        };
        check("/tmp/../srv:/x/../y", "/srv", "/y", "rprivate");
        check("/tmp:/x:rshared,ro", "/tmp", "/x", "rshared");
        check("/var/lib:/x", "/var/lib", "/x", "rslave");
        check("/var/lib/cleat/volumes:/x", "/var/lib/cleat/volumes", "/x", "rslave");
        // A name that merely begins alike is not inside.
        check("/var/lib/cleat2:/x", "/var/lib/cleat2", "/x", "rprivate");
        assert!(binds(&["/var/lib:/x:private"]).is_err());
        assert!(!binds(&["/tmp:/x:ro"]).unwrap().mounts[0].rw);
    }

    #[test]
    fn volumes_are_named_or_anonymous() {
        let plan = binds(&["nv:/x:nocopy,ro", "/data"]).unwrap();
        let [anonymous, named] = &plan.mounts[..] else { panic!("{plan:?}") };
        assert!(
            matches!(&named.source, Source::Volume { name, no_copy: true, .. } if name == "nv")
        );
        assert_eq!((&*named.mode, named.rw, &*anonymous.mode), ("nocopy,ro", false, "z"));
        let labels = plan.volumes[1].labels.as_ref().unwrap();
        assert_eq!((plan.volumes[1].name.len(), labels.contains_key(ANONYMOUS_LABEL)), (64, true));
        assert_eq!(plan.volumes[0].labels, None);
    }

    #[test]
    fn bad_mounts_are_refused_in_dockers_words() {
        let check = |mount: Mount, why: &str| {
            let text = format!("invalid mount config for type {:?}: {why}", mount.kind);
            refused(mounts(&[mount]), &text);
        };
        check(mount("bind", "rel", "/x"), "invalid mount path: 'rel' mount path must be absolute");
        check(mount("bind", "/nosuch", "/x"), "bind source path does not exist: /nosuch");
        check(mount("bind", "", "/x"), "field Source must not be empty");
        check(mount("tmpfs", "", "/"), "invalid specification: destination can't be '/'");
        check(mount("tmpfs", "", ""), "field Target must not be empty");
        check(mount("tmpfs", "x", "/x"), "field Source must not be specified");
        for unknown in ["npipe", "cluster", "nosuch", ""] {
            check(mount(unknown, "", "/x"), "mount type unknown");
        }
        let subpath = |source: &str, subpath: &str| Mount {
            volume_options: Some(VolumeOptions {
                subpath: subpath.into(),
                ..VolumeOptions::default()
            }),
            ..mount("volume", source, "/x")
        };
        check(subpath("", "a"), "must not set Subpath when using anonymous volumes");
        for outside in ["/abs", "..", "a/../../b"] {
            check(subpath("nv", outside), "subpath must be a relative path within the volume");
        }
        assert!(mounts(&[subpath("nv", "a/../b")]).is_ok());
        let propagation = BindOptions { propagation: "bogus".into(), ..BindOptions::default() };
        check(
            Mount { bind_options: Some(propagation), ..mount("bind", "/tmp", "/x") },
            "invalid propagation mode: bogus",
        );
        let options = TmpfsOptions {
            options: Some(vec![vec!["uid".into(), "1".into()]]),
            ..TmpfsOptions::default()
        };
        check(
            Mount { tmpfs_options: Some(options), ..mount("tmpfs", "", "/x") },
            "invalid option: uid",
        );
        refused(
            mounts(&[mount("tmpfs", "", "/x"), mount("tmpfs", "", "/x/")]),
            "Duplicate mount point: /x",
        );
        let image = mounts(&[mount("image", "nosuch", "/x")]).unwrap_err();
        assert_eq!(image.kind(), Kind::NotFound);
    }

    #[test]
    fn an_image_is_mounted_read_only_and_not_from_above_itself() {
        use cleat_proto::docker::container::ImageOptions;
        let plan = mounts(&[mount("image", "busybox", "/x")]).unwrap();
        assert!(!plan.mounts[0].rw && plan.volumes.is_empty(), "{plan:?}");
        for subpath in ["../x", "/abs", "a/../../b"] {
            let image_options = Some(ImageOptions { subpath: subpath.into() });
            refused(
                mounts(&[Mount { image_options, ..mount("image", "busybox", "/x") }]),
                "invalid mount config for type \"image\": subpath must be a relative path within the volume",
            );
        }
        let volume_options = Some(Default::default());
        refused(
            mounts(&[Mount { volume_options, ..mount("image", "busybox", "/x") }]),
            "VolumeOptions must not be specified on mount type \"image\"",
        );
    }

    #[test]
    fn tmpfs_options_follow_the_defaults() {
        let host_config = HostConfig {
            tmpfs: Some([("/t".to_owned(), "size=1m,exec".to_owned())].into()),
            ..HostConfig::default()
        };
        let plan = plan_with(&Config::default(), &host_config).unwrap();
        let options = ["noexec", "nosuid", "nodev", "size=1m", "exec"].map(str::to_owned).to_vec();
        assert_eq!(plan.mounts[0].source, Source::Tmpfs { options });
        let with = |destination: &str, options: &str| {
            let tmpfs = Some([(destination.to_owned(), options.to_owned())].into());
            plan_with(&Config::default(), &HostConfig { tmpfs, ..HostConfig::default() })
        };
        refused(with("x", ""), "invalid mount path: 'x' mount path must be absolute");
        refused(with("/", ""), "invalid specification: destination can't be '/'");
        refused(with("/x", "bind"), "invalid tmpfs option \"bind\"");
        let both = HostConfig { binds: Some(vec!["/tmp:/t".into()]), ..host_config };
        refused(plan_with(&Config::default(), &both), "Duplicate mount point: /t");
    }

    #[test]
    fn volumes_from_gives_way_to_what_the_user_names() {
        let from = |texts: &[&str], binds: &[&str]| {
            let owned =
                |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
            let host_config = HostConfig {
                volumes_from: owned(texts),
                binds: owned(binds),
                ..HostConfig::default()
            };
            plan_with(&Config::default(), &host_config)
        };
        let plan = from(&["other:ro"], &[]).unwrap();
        assert_eq!((plan.mounts[0].rw, &*plan.volumes[0].name), (false, "shared"));
        let plan = from(&["other"], &["/tmp:/shared"]).unwrap();
        assert!(matches!(plan.mounts[..], [MountPoint { source: Source::Bind { .. }, .. }]));
        assert_eq!(plan.volumes, []);
        refused(from(&["nosuch"], &[]), "No such container: nosuch");
        refused(from(&["other:bogus"], &[]), "invalid mode: bogus");
        refused(from(&["other:rshared"], &[]), "invalid mode: rshared");
        refused(from(&[""], &[]), "volumes-from specification cannot be an empty string");
    }

    #[test]
    fn the_images_volumes_fill_the_places_that_are_left() {
        let volumes = ["/x", "/y/z", "/a/../b"].map(|path| (path.to_owned(), Empty {}));
        let config = Config { volumes: Some(volumes.into()), ..Config::default() };
        let host_config =
            HostConfig { binds: Some(vec!["/tmp:/x".into()]), ..HostConfig::default() };
        let plan = plan_with(&config, &host_config).unwrap();
        let places: Vec<_> = plan.mounts.iter().map(|mount| &*mount.destination).collect();
        assert_eq!(places, ["/b", "/x", "/y/z"]);
        assert!(matches!(plan.mounts[1].source, Source::Bind { .. }));
        assert_eq!((plan.volumes.len(), &*plan.mounts[0].mode), (2, ""));
    }
}
