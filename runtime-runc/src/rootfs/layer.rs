//! `--rootfs-mounts`: the mounts of a container's root, made in the container's own mount namespace, so that the host never
//! sees them, and that they end with the container.
//!
//! A JSON array of `{"type", "source", "options": [], "target"}` in the shape of containerd's `types.Mount`. The first one is
//! the root; a later one goes to its `target` below it. `overlay` is configured layer by layer (`lowerdir+`, Linux 6.5),
//! else by `mount(2)`.

use super::options::Options;
use super::path::{self, Kind};
use crate::error::{Context, Error, Result};
use crate::spec;
use cleat_sys::Errno;
use cleat_sys::mountapi::{self, FsContext, Overlay};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// One of the mounts.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Layer {
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
    pub target: PathBuf,
}

/// Reads the flag's value.
///
/// # Errors
/// [`Error::Invalid`] where it is not such an array, or empty.
pub fn parse(json: &str) -> Result<Vec<Layer>> {
    let layers: Vec<Layer> = spec::parse(json.as_bytes(), Path::new("--rootfs-mounts"))?;
    if layers.is_empty() {
        return Err(Error::Invalid("--rootfs-mounts: there must be at least one mount".to_owned()));
    }
    Ok(layers)
}

/// Mounts all of them; the first on top of `/`, where only the descriptor returned leads to it.
///
/// # Errors
/// [`Error::Kernel`] naming the mount.
pub fn mount_all(layers: &[Layer]) -> Result<OwnedFd> {
    let Some((first, rest)) = layers.split_first() else {
        return Err(Error::Invalid("no root mount".to_owned()));
    };
    let slash = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let slash = slash.context(|| "open /".to_owned())?;
    let root = match make(first)? {
        Some(mount) => {
            mountapi::attach(&mount, &slash).context(|| describe(first))?;
            mount
        }
        None => mount_by_text(first)?,
    };
    for layer in rest {
        let mount = make(layer)?
            .ok_or_else(|| Error::Invalid(format!("{}: the kernel is too old", describe(layer))))?;
        let (target, _) = path::open_or_make(&root, &layer.target, Kind::Directory)
            .context(|| describe(layer))?;
        mountapi::attach(mount, target).context(|| describe(layer))?;
    }
    Ok(root)
}

fn describe(layer: &Layer) -> String {
    format!("cannot mount {} {:?} of the root filesystem", layer.kind, layer.source)
}

/// Makes one mount, attached nowhere; nothing where the kernel cannot do that for an overlay.
fn make(layer: &Layer) -> Result<Option<OwnedFd>> {
    let options = Options::parse(layer.options.iter().map(String::as_str))?;
    let what = || describe(layer);
    if let Some(recursive) = options.bind.or((layer.kind == "bind").then_some(true)) {
        let tree = mountapi::clone_tree(Path::new(&layer.source), recursive).context(what)?;
        super::mount::adjust(&tree, &options).context(what)?;
        return Ok(Some(tree));
    }
    if layer.kind == "overlay" {
        return match overlay(&options.filesystem)?.mount(options.new_mount()) {
            Err(Errno::EINVAL) => Ok(None),
            other => other.map(Some).context(what),
        };
    }
    let context = FsContext::open(&layer.kind).context(what)?;
    context.set_string("source", layer.source.as_str()).context(what)?;
    for option in &options.filesystem {
        context.set_option(option).context(what)?;
    }
    context.mount(options.new_mount()).map(Some).context(what)
}

/// Reads the options of an overlay as `mount -o` has them.
fn overlay(options: &[String]) -> Result<Overlay> {
    let (mut overlay, mut upper, mut work) = (Overlay::default(), None, None);
    for option in options {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => overlay.lower.extend(split(layers)),
            Some(("lowerdir+", layer)) => overlay.lower.push(layer.into()),
            Some(("upperdir", path)) => upper = Some(PathBuf::from(path)),
            Some(("workdir", path)) => work = Some(PathBuf::from(path)),
            _ => overlay.options.push(option.clone()),
        }
    }
    overlay.upper = match (upper, work) {
        (Some(upper), Some(work)) => Some((upper, work)),
        (None, None) => None,
        _ => {
            return Err(Error::Invalid(
                "an overlay needs upperdir and workdir together".to_owned(),
            ));
        }
    };
    Ok(overlay)
}

/// Splits at colons, of which a backslash in front makes a part of the path.
fn split(text: &str) -> Vec<PathBuf> {
    let (mut paths, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            ':' if !escaped => paths.push(std::mem::take(&mut current).into()),
            other => {
                current.push(other);
                escaped = false;
            }
        }
    }
    paths.push(current.into());
    paths
}

/// The way before Linux 6.5: one page of options. It lands on top of `/`, and `..` leads onto it.
fn mount_by_text(layer: &Layer) -> Result<OwnedFd> {
    let what = || describe(layer);
    let options = Options::parse(layer.options.iter().map(String::as_str))?;
    let flags = if options.own.set & mountapi::attr::RDONLY != 0 {
        MsFlags::MS_RDONLY
    } else {
        MsFlags::empty()
    };
    let data = options.filesystem.join(",");
    mount(Some(layer.source.as_str()), "/", Some(layer.kind.as_str()), flags, Some(data.as_str()))
        .context(what)?;
    let root = open("/..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .context(what)?;
    super::mount::adjust(root.as_fd(), &options).context(what)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        assert_eq!(split("/a:/b\\:c:/d"), [Path::new("/a"), Path::new("/b:c"), Path::new("/d")]);
    }

    #[test]
    fn overlay_options_are_told_apart() {
        let options =
            ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "index=off"].map(str::to_owned);
        let overlay = overlay(&options).unwrap();
        assert_eq!(overlay.lower, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(overlay.upper, Some(("/u".into(), "/w".into())));
        assert_eq!(overlay.options, ["index=off"]);
    }

    #[test]
    fn half_an_upper_directory_is_refused() {
        assert!(overlay(&["upperdir=/u".to_owned()]).is_err());
        assert!(parse("[]").is_err() && parse("{}").is_err());
    }
}
