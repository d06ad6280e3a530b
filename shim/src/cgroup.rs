//! Where a container's processes are accounted: v1, v2, or both side by side.
//!
//! Sources: `cgroups(7)`, `proc(5)`, the kernel's admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. The runtime makes and
//! removes these directories; the shim reads them.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use cleat_proto::containerd::cgroups;
use prost::Message;

/// The directories of one container, none of them the root or the shim's own.
#[derive(Debug, Default)]
pub struct Cgroup {
    v2: Option<PathBuf>,
    /// By the controllers' names, as in `/proc/PID/cgroup`.
    v1: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// Takes those that a runtime names: controller to directory, the empty name for v2.
    pub fn from_paths(paths: &BTreeMap<String, PathBuf>) -> Self {
        let mut cgroup = Self::default();
        for (controller, path) in paths {
            match controller.as_str() {
                "" => cgroup.v2 = Some(path.clone()),
                name => cgroup.v1.push((name.to_owned(), path.clone())),
            }
        }
        cgroup
    }

    /// Finds those of `pid`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let lines = read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let own = read(Path::new("/proc/self/cgroup"))?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        Ok(Self::find(&lines, &own, &mounts))
    }

    fn find(lines: &str, own: &str, mounts: &str) -> Self {
        let own: HashSet<&str> = own.lines().collect();
        let mut found = Self::default();
        for line in lines.lines().filter(|line| !own.contains(line)) {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let Some(directory) = locate(controllers, path, mounts) else { continue };
            if controllers.is_empty() {
                found.v2 = Some(directory);
            } else {
                found.v1.push((controllers.to_owned(), directory));
            }
        }
        found
    }

    /// Returns the directory of a v1 controller.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let is_it = |(controllers, _): &&(String, PathBuf)| {
            controllers.split(',').any(|controller| controller == name)
        };
        self.v1.iter().find(is_it).map(|(_, path)| &**path)
    }

    /// Returns the v2 directory.
    pub fn unified(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Returns the directory that certainly has all processes: one of v1's, if there are any.
    fn any(&self) -> Option<&Path> {
        let v1 = ["pids", "memory", "freezer", "devices"]
            .into_iter()
            .find_map(|name| self.controller(name));
        v1.or_else(|| self.v1.first().map(|(_, path)| &**path)).or(self.unified())
    }

    /// Returns every process, those in cgroups below included.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        if let Some(directory) = self.any() {
            collect(directory, &mut pids);
        }
        pids
    }

    /// Returns how many processes the OOM killer has met.
    pub fn oom_kills(&self) -> u64 {
        let v1 = self
            .controller("memory")
            .map(|directory| field(&directory.join("memory.oom_control"), "oom_kill"));
        v1.or_else(|| {
            self.v2.as_ref().map(|directory| field(&directory.join("memory.events"), "oom_kill"))
        })
        .unwrap_or(0)
    }

    /// Returns what Task.Stats wants: a type URL and a message.
    pub fn stats(&self) -> (&'static str, Vec<u8>) {
        match &self.v2 {
            Some(directory) if self.controller("memory").is_none() => {
                ("io.containerd.cgroups.v2.Metrics", v2_metrics(directory).encode_to_vec())
            }
            _ => ("io.containerd.cgroups.v1.Metrics", self.v1_metrics().encode_to_vec()),
        }
    }

    fn v1_metrics(&self) -> cgroups::v1::Metrics {
        use cgroups::v1::{CpuStat, CpuUsage, MemoryEntry, MemoryStat, Metrics, PidsStat};
        let number = |controller, file| {
            self.controller(controller).map_or(0, |directory| number(&directory.join(file)))
        };
        let stat = |file: &str| {
            self.controller("memory")
                .map_or(0, |directory| field(&directory.join("memory.stat"), file))
        };
        Metrics {
            pids: Some(PidsStat {
                current: number("pids", "pids.current"),
                limit: number("pids", "pids.max"),
            }),
            cpu: Some(CpuStat {
                usage: Some(CpuUsage {
                    total: number("cpuacct", "cpuacct.usage"),
                    kernel: number("cpuacct", "cpuacct.usage_sys"),
                    user: number("cpuacct", "cpuacct.usage_user"),
                }),
            }),
            memory: Some(MemoryStat {
                cache: stat("cache"),
                rss: stat("rss"),
                total_inactive_file: stat("total_inactive_file"),
                usage: Some(MemoryEntry {
                    limit: number("memory", "memory.limit_in_bytes"),
                    usage: number("memory", "memory.usage_in_bytes"),
                    max: number("memory", "memory.max_usage_in_bytes"),
                    failcnt: number("memory", "memory.failcnt"),
                }),
            }),
        }
    }
}

fn v2_metrics(directory: &Path) -> cgroups::v2::Metrics {
    use cgroups::v2::{CpuStat, MemoryEvents, MemoryStat, Metrics, PidsStat};
    let number = |file| number(&directory.join(file));
    let field = |file, name| field(&directory.join(file), name);
    Metrics {
        pids: Some(PidsStat { current: number("pids.current"), limit: number("pids.max") }),
        cpu: Some(CpuStat {
            usage_usec: field("cpu.stat", "usage_usec"),
            user_usec: field("cpu.stat", "user_usec"),
            system_usec: field("cpu.stat", "system_usec"),
        }),
        memory: Some(MemoryStat {
            anon: field("memory.stat", "anon"),
            file: field("memory.stat", "file"),
            inactive_file: field("memory.stat", "inactive_file"),
            usage: number("memory.current"),
            usage_limit: number("memory.max"),
        }),
        memory_events: Some(MemoryEvents {
            oom: field("memory.events", "oom"),
            oom_kill: field("memory.events", "oom_kill"),
        }),
    }
}

/// Returns where `path` of a hierarchy is mounted. The root of a hierarchy is nobody's own.
fn locate(controllers: &str, path: &str, mounts: &str) -> Option<PathBuf> {
    if path == "/" {
        return None;
    }
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount_point) = (place.next()?, place.next()?);
        let mut what = what.splitn(3, ' ');
        let (kind, options) = (what.next()?, what.nth(1)?);
        let fits = if controllers.is_empty() {
            kind == "cgroup2"
        } else {
            kind == "cgroup"
                && controllers
                    .split(',')
                    .all(|name| options.split(',').any(|option| option == name))
        };
        let below = Path::new(path).strip_prefix(root).ok()?;
        fits.then(|| Path::new(mount_point).join(below))
    })
}

fn collect(directory: &Path, pids: &mut Vec<u32>) {
    let Ok(text) = read(&directory.join("cgroup.procs")) else { return };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        collect(&entry.path(), pids);
    }
}

/// Reads a file whose size the kernel does not tell, in as few calls as its content needs.
fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Reads a file with one number; "max" and what is missing count as 0.
fn number(path: &Path) -> u64 {
    read(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Reads the number that follows `name` in a file of pairs.
fn field(path: &Path, name: &str) -> u64 {
    let text = read(path).unwrap_or_default();
    let find = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(find).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 /docker /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn directories_are_found_on_a_hybrid_host() {
        let lines =
            "4:memory:/docker/web\n3:cpu,cpuacct:/docker/web\n2:pids:/docker/web\n0::/web\n";
        let found = Cgroup::find(lines, "0::/\n", MOUNTS);
        assert_eq!(found.controller("memory").unwrap(), Path::new("/sys/fs/cgroup/memory/web"));
        assert_eq!(
            found.controller("cpuacct").unwrap(),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/web")
        );
        assert_eq!(found.controller("pids"), None);
        assert_eq!(found.unified().unwrap(), Path::new("/sys/fs/cgroup/unified/web"));
    }

    #[test]
    fn the_root_and_our_own_cgroup_are_nobodys() {
        let found =
            Cgroup::find("4:memory:/docker/shim\n0::/\n", "4:memory:/docker/shim\n0::/\n", MOUNTS);
        assert_eq!((found.any(), found.pids()), (None, vec![]));
    }
}
