//! What a container uses: the files of its cgroup, v1 or v2, and the counters of its interfaces.
//!
//! Sources: the kernel's `admin-guide/cgroup-v1` and `cgroup-v2`, `proc(5)`; Engine API v1.51, ContainerStats.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cleat_proto::docker::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};

use super::{Engine, Error, Result};
use crate::container::{Container, Record, State, names::ContainerRef};

const MOUNT: &str = "/sys/fs/cgroup";
/// What `read` shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";
/// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that we run on.
const NANOS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Takes samples of one container.
pub struct Sampler {
    engine: Engine,
    reference: ContainerRef,
    container: Arc<Container>,
    gone: bool,
    previous: Option<(String, CpuStats)>,
}

impl Engine {
    /// Prepares to take samples.
    ///
    /// # Errors
    /// If there is no such container.
    pub fn stats(&self, reference: &ContainerRef) -> Result<Sampler> {
        let container = self.container(reference)?;
        // By id from now on: it may be renamed.
        let reference = ContainerRef(container.record.id.to_string());
        Ok(Sampler { engine: self.clone(), reference, container, gone: false, previous: None })
    }
}

impl Sampler {
    /// Whether there is anything to measure.
    pub fn is_running(&self) -> bool {
        matches!(self.container.state, State::Running { .. } | State::Paused { .. })
    }

    /// Whether the container was removed.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The sample of a container that does not run.
    pub fn nothing(&self) -> Stats {
        let record = &self.container.record;
        Stats {
            name: format!("/{}", record.name),
            id: record.id.to_string(),
            read: NEVER.to_owned(),
            preread: NEVER.to_owned(),
            ..Stats::default()
        }
    }

    /// Measures, and puts the sample before beside it.
    ///
    /// # Errors
    /// If the daemon is ending.
    pub async fn sample(&mut self) -> Result<Stats> {
        match self.engine.container(&self.reference) {
            Ok(container) => self.container = container,
            Err(_) => self.gone = true,
        }
        let mut stats = self.nothing();
        if !self.is_running() || self.gone {
            return Ok(stats);
        }
        let container = Arc::clone(&self.container);
        let engine = self.engine.clone();
        let pid = container.state.pid();
        let measured = tokio::task::spawn_blocking(move || {
            Place::new(&engine, &container.record).measure(&mut stats);
            stats.networks = networks(&container.record, pid);
            stats
        });
        let mut stats = measured.await.map_err(Error::lost)?;
        stats.read = jiff::Timestamp::now().to_string();
        if let Some((read, cpu)) =
            self.previous.replace((stats.read.clone(), stats.cpu_stats.clone()))
        {
            stats.preread = read;
            stats.precpu_stats = cpu;
        }
        Ok(stats)
    }
}

/// A container's cgroup.
struct Place {
    path: String,
    unified: bool,
}

impl Place {
    fn new(engine: &Engine, record: &Record) -> Self {
        Self { path: engine.cgroup_path(record), unified: engine.0.host.unified_cgroups }
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let below = self.path.trim_start_matches('/');
        if self.unified {
            Path::new(MOUNT).join(below)
        } else {
            Path::new(MOUNT).join(controller).join(below)
        }
    }

    fn measure(&self, stats: &mut Stats) {
        let pids = self.directory("pids");
        stats.pids_stats = PidsStats {
            current: number(&pids.join("pids.current")),
            // "max" is no limit, which Docker has as 0 for v1 and as the greatest number for v2.
            limit: match read(&pids.join("pids.max")).trim() {
                "max" if self.unified => u64::MAX,
                limit => limit.parse().unwrap_or(0),
            },
        };
        if self.unified {
            let directory = self.directory("");
            stats.cpu_stats = cpu_v2(&directory);
            stats.memory_stats = memory_v2(&directory);
            stats.blkio_stats = io_v2(&directory);
        } else {
            stats.cpu_stats = cpu_v1(&self.directory("cpuacct"), &self.directory("cpu"));
            stats.memory_stats = memory_v1(&self.directory("memory"));
            stats.blkio_stats = blkio_v1(&self.directory("blkio"));
        }
        (stats.cpu_stats.system_cpu_usage, stats.cpu_stats.online_cpus) =
            system_cpu(&read(Path::new("/proc/stat")));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    read(path).trim().parse().unwrap_or(0)
}

/// `key value` lines.
fn table(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    });
    pairs.collect()
}

fn cpu_v1(cpuacct: &Path, cpu: &Path) -> CpuStats {
    let split = table(&read(&cpuacct.join("cpuacct.stat")));
    let throttled = table(&read(&cpu.join("cpu.stat")));
    let of = |table: &BTreeMap<String, u64>, key: &str| table.get(key).copied().unwrap_or(0);
    let per_cpu = read(&cpuacct.join("cpuacct.usage_percpu"));
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: number(&cpuacct.join("cpuacct.usage")),
            percpu_usage: per_cpu.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect(),
            usage_in_kernelmode: of(&split, "system") * NANOS_PER_TICK,
            usage_in_usermode: of(&split, "user") * NANOS_PER_TICK,
        },
        throttling_data: ThrottlingData {
            periods: of(&throttled, "nr_periods"),
            throttled_periods: of(&throttled, "nr_throttled"),
            throttled_time: of(&throttled, "throttled_time"),
        },
        ..CpuStats::default()
    }
}

fn cpu_v2(directory: &Path) -> CpuStats {
    let stat = table(&read(&directory.join("cpu.stat")));
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: of("usage_usec") * 1000,
            percpu_usage: Vec::new(),
            usage_in_kernelmode: of("system_usec") * 1000,
            usage_in_usermode: of("user_usec") * 1000,
        },
        throttling_data: ThrottlingData {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: of("throttled_usec") * 1000,
        },
        ..CpuStats::default()
    }
}

/// Time of all processors together, and how many there are: `proc_stat(5)`, without guest time, which is in user's.
fn system_cpu(stat: &str) -> (u64, u64) {
    let mut lines = stat.lines();
    let total = lines.next().unwrap_or_default().split_ascii_whitespace().skip(1).take(7);
    let ticks: u64 = total.filter_map(|field| field.parse::<u64>().ok()).sum();
    let processors = lines.take_while(|line| line.starts_with("cpu")).count();
    (ticks * NANOS_PER_TICK, processors as u64)
}

fn machine_memory() -> u64 {
    let text = read(Path::new("/proc/meminfo"));
    let kib = text
        .lines()
        .next()
        .and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What Docker shows of v1's `memory.stat`.
const MEMORY_V1: [&str; 32] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "total_cache",
    "total_rss",
    "total_rss_huge",
    "total_mapped_file",
    "total_dirty",
    "total_writeback",
    "total_pgpgin",
    "total_pgpgout",
    "total_pgfault",
    "total_pgmajfault",
    "total_inactive_anon",
    "total_active_anon",
    "total_inactive_file",
    "total_active_file",
    "total_unevictable",
];

fn memory_v1(directory: &Path) -> MemoryStats {
    let stat = table(&read(&directory.join("memory.stat")));
    let of = |key: &&str| ((*key).to_owned(), stat.get(*key).copied().unwrap_or(0));
    MemoryStats {
        usage: number(&directory.join("memory.usage_in_bytes")),
        max_usage: number(&directory.join("memory.max_usage_in_bytes")),
        stats: MEMORY_V1.iter().map(of).collect(),
        failcnt: number(&directory.join("memory.failcnt")),
        limit: number(&directory.join("memory.limit_in_bytes")).min(machine_memory()),
    }
}

/// What Docker shows of v2's `memory.stat`, and what the kernel calls it where that differs.
const MEMORY_V2: [(&str, &str); 31] = [
    ("anon", "anon"),
    ("file", "file"),
    ("kernel_stack", "kernel_stack"),
    ("slab", "slab"),
    ("sock", "sock"),
    ("shmem", "shmem"),
    ("file_mapped", "file_mapped"),
    ("file_dirty", "file_dirty"),
    ("file_writeback", "file_writeback"),
    ("anon_thp", "anon_thp"),
    ("inactive_anon", "inactive_anon"),
    ("active_anon", "active_anon"),
    ("inactive_file", "inactive_file"),
    ("active_file", "active_file"),
    ("unevictable", "unevictable"),
    ("slab_reclaimable", "slab_reclaimable"),
    ("slab_unreclaimable", "slab_unreclaimable"),
    ("pgfault", "pgfault"),
    ("pgmajfault", "pgmajfault"),
    ("workingset_refault", "workingset_refault_file"),
    ("workingset_activate", "workingset_activate_file"),
    ("workingset_nodereclaim", "workingset_nodereclaim"),
    ("pgrefill", "pgrefill"),
    ("pgscan", "pgscan"),
    ("pgsteal", "pgsteal"),
    ("pgactivate", "pgactivate"),
    ("pgdeactivate", "pgdeactivate"),
    ("pglazyfree", "pglazyfree"),
    ("pglazyfreed", "pglazyfreed"),
    ("thp_fault_alloc", "thp_fault_alloc"),
    ("thp_collapse_alloc", "thp_collapse_alloc"),
];

fn memory_v2(directory: &Path) -> MemoryStats {
    let stat = table(&read(&directory.join("memory.stat")));
    let of =
        |(shown, key): &(&str, &str)| ((*shown).to_owned(), stat.get(*key).copied().unwrap_or(0));
    let limit = read(&directory.join("memory.max"));
    let events = table(&read(&directory.join("memory.events")));
    MemoryStats {
        usage: number(&directory.join("memory.current")),
        max_usage: 0,
        stats: MEMORY_V2.iter().map(of).collect(),
        failcnt: events.get("oom").copied().unwrap_or(0),
        limit: limit.trim().parse().unwrap_or(u64::MAX).min(machine_memory()),
    }
}

/// `8:0 Read 4096` lines; `Total` lines without a device are left out.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (second, third) = (fields.next()?, fields.next());
        let (op, value) = third.map_or(("", second), |value| (second, value));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_ascii_lowercase(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn blkio_v1(directory: &Path) -> BlkioStats {
    // CFQ is gone from the kernel and BFQ is seldom used: the throttling layer counts always.
    let either = |name: &str| {
        let bfq = blkio_entries(&read(&directory.join(format!("blkio.bfq.{name}_recursive"))));
        let of = if bfq.is_empty() {
            format!("blkio.throttle.{name}_recursive")
        } else {
            return Some(bfq);
        };
        Some(blkio_entries(&read(&directory.join(of))))
    };
    let bfq = |name: &str| {
        Some(blkio_entries(&read(&directory.join(format!("blkio.bfq.{name}_recursive")))))
    };
    BlkioStats {
        io_service_bytes_recursive: either("io_service_bytes"),
        io_serviced_recursive: either("io_serviced"),
        io_queue_recursive: bfq("io_queued"),
        io_service_time_recursive: bfq("io_service_time"),
        io_wait_time_recursive: bfq("io_wait_time"),
        io_merged_recursive: bfq("io_merged"),
        io_time_recursive: bfq("time"),
        sectors_recursive: bfq("sectors"),
    }
}

/// `8:0 rbytes=1 wbytes=2 …` lines.
fn io_v2(directory: &Path) -> BlkioStats {
    let text = read(&directory.join("io.stat"));
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        let counters: BTreeMap<&str, u64> = fields
            .filter_map(|field| field.split_once('='))
            .filter_map(|(key, n)| Some((key, n.parse().ok()?)))
            .collect();
        for (op, key) in [("read", "rbytes"), ("write", "wbytes")] {
            let value = counters.get(key).copied().unwrap_or(0);
            entries.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
    BlkioStats { io_service_bytes_recursive: Some(entries), ..BlkioStats::default() }
}

/// The interfaces that the container has to itself.
fn networks(record: &Record, pid: u32) -> Option<BTreeMap<String, NetworkStats>> {
    let mode = record.host_config.network_mode.as_str();
    if matches!(mode, "host" | "none") || record.config.network_disabled {
        return None;
    }
    let interfaces = interfaces(&read(Path::new(&format!("/proc/{pid}/net/dev"))));
    Some(interfaces).filter(|interfaces| !interfaces.is_empty())
}

/// `proc_pid_net(5)`: eight counters of what came in, then eight of what went out.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let mut all = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let counters: Vec<u64> =
            counters.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let name = name.trim();
        if name == "lo" || counters.len() < 12 {
            continue;
        }
        let stats = NetworkStats {
            rx_bytes: counters[0],
            rx_packets: counters[1],
            rx_errors: counters[2],
            rx_dropped: counters[3],
            tx_bytes: counters[8],
            tx_packets: counters[9],
            tx_errors: counters[10],
            tx_dropped: counters[11],
        };
        all.insert(name.to_owned(), stats);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_but_the_loopback_are_counted() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 486 5 1 2 0 0 0 0 84 2 3 4 0 0 0 0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        let eth0 = &all["eth0"];
        assert_eq!(
            (eth0.rx_bytes, eth0.rx_dropped, eth0.tx_bytes, eth0.tx_dropped),
            (486, 2, 84, 4)
        );
    }

    #[test]
    fn block_devices_have_operations_or_not() {
        let entries = blkio_entries("8:0 Read 5\n8:0 Write 6\n8:16 7\nTotal 11\n");
        let short: Vec<_> = entries.iter().map(|e| (e.minor, e.op.as_str(), e.value)).collect();
        assert_eq!(short, [(0, "read", 5), (0, "write", 6), (16, "", 7)]);
    }

    #[test]
    fn the_systems_time_leaves_out_guests() {
        let (nanos, processors) =
            system_cpu("cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
        assert_eq!((nanos, processors), (28 * NANOS_PER_TICK, 2));
    }
}
