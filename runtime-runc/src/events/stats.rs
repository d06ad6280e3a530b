//! The statistics of a container's cgroups, in the shape of runc's `types.Stats`. A controller that is not there has none.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `USER_HZ`: what the v1 cpuacct counts in is the same on all architectures.
const NANOS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Reads what the cgroup with these directories (controller → path) counts.
pub fn collect(paths: &BTreeMap<String, String>) -> Value {
    let directory = |controller: &str| paths.get(controller).map(PathBuf::from);
    let unified = directory("").filter(|_| !paths.contains_key("memory"));
    let of = |controller: &str| directory(controller).or_else(|| unified.clone());
    let is_v2 = unified.is_some();
    json!({
        "cpu": match (&unified, of("cpuacct")) {
            (Some(directory), _) => cpu_v2(directory),
            (None, Some(usage)) => cpu_v1(&usage, of("cpu").as_deref()),
            (None, None) => json!({"usage": {"kernel": 0, "user": 0}}),
        },
        "cpuset": of("cpuset").map_or(json!({}), |directory| cpuset(&directory)),
        "memory": match of("memory") {
            Some(directory) if is_v2 => memory_v2(&directory),
            Some(directory) => memory_v1(&directory),
            None => json!({}),
        },
        "pids": of("pids").map_or(json!({}), |directory| pids(&directory)),
        "blkio": match of("blkio") {
            Some(directory) if is_v2 => io_v2(&directory),
            Some(directory) => blkio_v1(&directory),
            None => json!({}),
        },
        "hugetlb": hugetlb(directory("hugetlb").or_else(|| directory(""))),
        "intel_rdt": {},
        "network_interfaces": Value::Null,
    })
}

fn read(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// Reads a number; `max` and nothing are the caller's to say.
fn number(directory: &Path, file: &str) -> Option<u64> {
    read(directory, file).trim().parse().ok()
}

/// Reads lines of `key value`.
fn pairs(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key, value.trim().parse().ok()?))).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cpu_v1(usage: &Path, throttling: Option<&Path>) -> Value {
    let stat = read(usage, "cpuacct.stat");
    let ticks = pairs(&stat);
    let nanos = |key: &str| ticks.get(key).copied().unwrap_or(0) * NANOS_PER_TICK;
    let throttled = throttling.map(|directory| read(directory, "cpu.stat")).unwrap_or_default();
    let throttled = pairs(&throttled);
    let count = |key: &str| throttled.get(key).copied().unwrap_or(0);
    json!({
        "usage": {
            "total": number(usage, "cpuacct.usage").unwrap_or(0),
            "percpu": numbers(&read(usage, "cpuacct.usage_percpu")),
            "percpu_kernel": numbers(&read(usage, "cpuacct.usage_percpu_sys")),
            "percpu_user": numbers(&read(usage, "cpuacct.usage_percpu_user")),
            "kernel": nanos("system"),
            "user": nanos("user"),
        },
        "throttling": {
            "periods": count("nr_periods"),
            "throttledPeriods": count("nr_throttled"),
            "throttledTime": count("throttled_time"),
        },
    })
}

fn cpu_v2(directory: &Path) -> Value {
    let stat = read(directory, "cpu.stat");
    let stat = pairs(&stat);
    let nanos = |key: &str| stat.get(key).copied().unwrap_or(0) * 1000;
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    let mut cpu = json!({
        "usage": {
            "total": nanos("usage_usec"), "kernel": nanos("system_usec"), "user": nanos("user_usec"),
        },
        "throttling": {
            "periods": count("nr_periods"),
            "throttledPeriods": count("nr_throttled"),
            "throttledTime": nanos("throttled_usec"),
        },
    });
    add_pressure(&mut cpu, directory, "cpu.pressure");
    cpu
}

/// Adds the pressure-stall information of `PSI`, the kernel's accounting/psi.rst.
fn add_pressure(to: &mut Value, directory: &Path, file: &str) {
    let text = read(directory, file);
    let mut kinds = Map::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(kind) = words.next() else { continue };
        let mut values = Map::new();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = match key {
                "total" => value.parse::<u64>().ok().map(Value::from),
                _ => value.parse::<f64>().ok().map(Value::from),
            };
            values.insert(key.to_owned(), value.unwrap_or_default());
        }
        kinds.insert(kind.to_owned(), values.into());
    }
    if !kinds.is_empty() {
        to["psi"] = kinds.into();
    }
}

fn cpuset(directory: &Path) -> Value {
    let list = |file: &str| -> Vec<usize> {
        let mask = crate::affinity::parse(read(directory, file).trim()).unwrap_or_default();
        let bit = |cpu: &usize| mask[cpu / 64] & 1 << (cpu % 64) != 0;
        (0..mask.len() * 64).filter(bit).collect()
    };
    let flag = |name: &str| number(directory, &format!("cpuset.{name}")).unwrap_or(0);
    let mut document = Map::new();
    for name in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
    ] {
        document.insert(name.to_owned(), flag(name).into());
    }
    let level = read(directory, "cpuset.sched_relax_domain_level").trim().parse::<i64>();
    document.insert("sched_relax_domain_level".to_owned(), level.unwrap_or(0).into());
    document.insert("cpus".to_owned(), list("cpuset.cpus").into());
    document.insert("mems".to_owned(), list("cpuset.mems").into());
    document.into()
}

fn memory_v1(directory: &Path) -> Value {
    let stat = read(directory, "memory.stat");
    let raw = pairs(&stat);
    let entry = |name: &str| {
        let value = |what: &str| number(directory, &format!("{name}.{what}")).unwrap_or(0);
        json!({
            "limit": value("limit_in_bytes"),
            "usage": value("usage_in_bytes"),
            "max": value("max_usage_in_bytes"),
            "failcnt": value("failcnt"),
        })
    };
    json!({
        "cache": raw.get("cache").copied().unwrap_or(0),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw,
    })
}

fn memory_v2(directory: &Path) -> Value {
    let stat = read(directory, "memory.stat");
    let raw = pairs(&stat);
    let events = read(directory, "memory.events");
    let failures = pairs(&events).get("max").copied().unwrap_or(0);
    // No limit is the largest number, as runc has it.
    let limit = |file: &str| number(directory, file).unwrap_or(u64::MAX);
    let value = |file: &str| number(directory, file).unwrap_or(0);
    let (usage, swap) = (value("memory.current"), value("memory.swap.current"));
    let mut memory = json!({
        "cache": raw.get("file").copied().unwrap_or(0),
        "usage": {
            "limit": limit("memory.max"), "usage": usage, "max": value("memory.peak"), "failcnt": failures,
        },
        "swap": {
            "limit": limit("memory.swap.max").saturating_add(limit("memory.max")),
            "usage": swap + usage,
            "failcnt": 0,
        },
        "raw": raw,
    });
    add_pressure(&mut memory, directory, "memory.pressure");
    memory
}

fn pids(directory: &Path) -> Value {
    let value = |file: &str| number(directory, file).unwrap_or(0);
    json!({"current": value("pids.current"), "limit": value("pids.max")})
}

/// One line of a v1 blkio file is `major:minor operation value` or `major:minor value`.
fn blkio_v1(directory: &Path) -> Value {
    let entries = |file: &str| -> Vec<Value> {
        let text = read(directory, file);
        let entry = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (major, minor) = words.first()?.split_once(':')?;
            let operation = if words.len() > 2 { words[1] } else { "" };
            let value: u64 = words.last()?.parse().ok()?;
            let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
            Some(json!({"major": major, "minor": minor, "op": operation, "value": value}))
        };
        text.lines().filter_map(entry).collect()
    };
    let either = |first: &str, second: &str| {
        let found = entries(first);
        if found.is_empty() { entries(second) } else { found }
    };
    json!({
        "ioServiceBytesRecursive": either("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": either("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
        "ioQueueRecursive": entries("blkio.bfq.io_queued_recursive"),
        "ioServiceTimeRecursive": entries("blkio.bfq.io_service_time_recursive"),
        "ioWaitTimeRecursive": entries("blkio.bfq.io_wait_time_recursive"),
        "ioMergedRecursive": entries("blkio.bfq.io_merged_recursive"),
        "ioTimeRecursive": entries("blkio.bfq.time_recursive"),
        "sectorsRecursive": entries("blkio.bfq.sectors_recursive"),
    })
}

/// One line of `io.stat` is `major:minor key=value …`.
fn io_v2(directory: &Path) -> Value {
    let text = read(directory, "io.stat");
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            let value: u64 = value.parse().unwrap_or(0);
            list.push(json!({"major": major, "minor": minor, "op": operation, "value": value}));
        }
    }
    let mut io = json!({"ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations});
    add_pressure(&mut io, directory, "io.pressure");
    io
}

/// By page size, as the files are named: `hugetlb.2MB.current` (v2), `hugetlb.2MB.usage_in_bytes` (v1).
fn hugetlb(directory: Option<PathBuf>) -> Value {
    let mut sizes = Map::new();
    let Some(directory) = directory else { return sizes.into() };
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")) else {
            continue;
        };
        let value = |file: String| number(&directory, &file).unwrap_or(0);
        if let Some(size) = rest.strip_suffix(".usage_in_bytes").filter(|size| !size.contains('.'))
        {
            let usage = value(format!("hugetlb.{size}.usage_in_bytes"));
            let max = value(format!("hugetlb.{size}.max_usage_in_bytes"));
            let failures = value(format!("hugetlb.{size}.failcnt"));
            sizes.insert(size.to_owned(), json!({"usage": usage, "max": max, "failcnt": failures}));
        } else if let Some(size) = rest.strip_suffix(".current").filter(|size| !size.contains('.'))
        {
            let events = read(&directory, &format!("hugetlb.{size}.events"));
            let failures = pairs(&events).get("max").copied().unwrap_or(0);
            let usage = value(format!("hugetlb.{size}.current"));
            sizes.insert(size.to_owned(), json!({"usage": usage, "failcnt": failures}));
        }
    }
    sizes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_key_and_value_are_read_and_others_are_not() {
        let text = "cache 4096\nrss 0\nnonsense\nx y\n";
        assert_eq!(pairs(text), BTreeMap::from([("cache", 4096), ("rss", 0)]));
    }

    #[test]
    fn a_cgroup_that_is_not_there_has_the_shape_all_the_same() {
        let stats = collect(&BTreeMap::new());
        assert_eq!(stats["cpu"]["usage"]["kernel"], 0);
        assert!(stats["hugetlb"].is_object() && stats["network_interfaces"].is_null());
    }
}
