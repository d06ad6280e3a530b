//! `checkpoint` and `restore`: a container's processes go into files, and come back from them. The work is CRIU's; here is what it
//! has to know of a container.
//!
//! ```text
//! checkpoint ─▶ dump.rs ───▶ criu.rs ── wire.rs ──▶ criu swrk        the container ends, its files are below --image-path
//! restore ───▶ restore.rs ─▶ criu.rs …                               criu brings the processes back as our children
//! ```

mod criu;
mod dump;
mod restore;
mod wire;

pub use dump::checkpoint;
pub use restore::restore;

use crate::cli::Arguments;
use crate::error::{Context, Error, Result};
use crate::spec::{Mount, Spec};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use wire::Writer;

/// Which pipes the standard descriptors were, beside the images; runc's name.
const DESCRIPTORS: &str = "descriptors.json";

/// Where the images are, and what CRIU is told of them.
struct Images {
    directory: PathBuf,
    log_directory: PathBuf,
    // CRIU opens both through our /proc.
    _open: Vec<File>,
    options: Writer,
}

impl Images {
    /// Opens (and makes) the directories of `--image-path` and `--work-path`, and writes what both verbs tell CRIU.
    fn open(arguments: &Arguments, log_file: &str, spec: &Spec) -> Result<Self> {
        let directory = arguments.path("image-path").unwrap_or_else(|| "checkpoint".into());
        let directory = std::path::absolute(directory).context(|| "--image-path".to_owned())?;
        let open = |path: &Path| {
            let what = || format!("open {}", path.display());
            std::fs::create_dir_all(path).context(what)?;
            File::open(path).context(what)
        };
        let images = open(&directory)?;
        let mut options = Writer::default();
        options.number(1, images.as_raw_fd()).number(9, 4).text(10, log_file);
        let (mut opened, mut log_directory) = (vec![images], directory.clone());
        if let Some(work) = arguments.path("work-path") {
            let work = std::path::absolute(work).context(|| "--work-path".to_owned())?;
            let file = open(&work)?;
            options.number(17, file.as_raw_fd());
            opened.push(file);
            log_directory = work;
        }
        options.flag(7, arguments.has("shell-job"));
        options.flag(4, arguments.has("ext-unix-sk"));
        options.flag(5, arguments.has("tcp-established"));
        options.flag(8, arguments.has("file-locks"));
        options.flag(16, arguments.has("auto-dedup"));
        options.flag(48, arguments.has("lazy-pages"));
        options.flag(12, true).flag(24, true).flag(50, true);
        options.number(34, cgroup_mode(arguments.value("manage-cgroups-mode"))?);
        options.number(38, empty_namespaces(arguments)?);
        let config = spec.annotations.get("org.criu.config").map(String::as_str);
        match config.unwrap_or("/etc/criu/runc.conf") {
            "" => {}
            config => drop(options.text(51, config)),
        }
        Ok(Self { directory, log_directory, _open: opened, options })
    }

    /// Says where to read on.
    fn explain(&self, error: Error, log_file: &str) -> Error {
        let log = self.log_directory.join(log_file);
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said = said.lines().filter(|line| line.contains("Error")).take(3);
        let said: String = said.map(|line| format!("; {}", line.trim())).collect();
        Error::State(format!("{error} (log: {}{said})", log.display()))
    }
}

/// `criu_cg_mode`.
fn cgroup_mode(word: Option<&str>) -> Result<i64> {
    match word {
        None => Ok(6),
        Some("ignore") => Ok(0),
        Some("soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some(_) => Err(Error::Usage("invalid manage-cgroups-mode value".to_owned())),
    }
}

/// The network's devices are their engine's, and never CRIU's.
fn empty_namespaces(arguments: &Arguments) -> Result<i64> {
    for kind in arguments.all("empty-ns") {
        if kind != "network" {
            return Err(Error::Usage(format!("namespace {kind:?} is not supported")));
        }
    }
    Ok(libc::CLONE_NEWNET.into())
}

/// Adds `ext_mount_map`: a mount that comes from outside.
fn external_mount(options: &mut Writer, key: &str, value: &str) {
    let mut map = Writer::default();
    map.text(1, key).text(2, value);
    options.message(23, &map);
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|word| word == "bind" || word == "rbind")
}

/// Returns where a bind mount's source is. CRIU does not find the mount of a path with a dot in it.
fn source(bundle: &Path, mount: &Mount) -> String {
    crate::rootfs::clean(&bundle.join(&mount.source)).display().to_string()
}

/// Returns where a mount's destination really is, as seen in the container.
fn destination(rootfs: &Path, mount: &Mount) -> String {
    let wanted = Path::new("/").join(&mount.destination);
    crate::rootfs::real_path(rootfs, &wanted).unwrap_or(wanted).display().to_string()
}

/// Returns (mount point, directory of the host) of a v1 `cgroup` mount, a bind for every hierarchy.
fn cgroup_binds(
    rootfs: &Path,
    mount: &Mount,
    paths: &std::collections::BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let at = destination(rootfs, mount);
    let binds = crate::rootfs::cgroup_binds(paths);
    binds.into_iter().map(|(name, from)| (format!("{at}/{name}"), from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_no_dots() {
        let check = |given: &str, expected: &str| {
            let mount = Mount { source: given.to_owned(), ..Mount::default() };
            assert_eq!(source(Path::new("/bundle"), &mount), expected);
        };
        check(".", "/bundle");
        check("./a/../b", "/bundle/b");
        check("/else/where", "/else/where");
    }
}
