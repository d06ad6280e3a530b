//! What systemd is told of a unit: how it is made, and its limits. What it has no property for is only written.
//! Source: `systemd.resource-control(5)`, `org.freedesktop.systemd1(5)`.

use super::super::device::{Class, Filter};
use super::super::error::{Error, Result};
use super::super::v2;
use crate::dbus::wire::Value;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::collections::HashMap;

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;
/// The kernel's own period, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
const SECOND: u64 = 1_000_000;
/// systemd keeps a quota as a whole percentage of a second.
const QUOTA_STEP: u64 = SECOND / 100;

/// Since which version systemd has a period, sets of CPUs and memory nodes, and idleness.
const WITH_PERIOD: u32 = 242;
const WITH_CPUSET: u32 = 244;
const WITH_IDLE: u32 = 252;

type Properties = Vec<(String, Value)>;

fn set(properties: &mut Properties, name: &str, value: Value) {
    properties.push((name.to_owned(), value));
}

/// Returns what a new unit is made with.
pub fn of_new(name: &str, slice: &str, pid: Pid) -> Properties {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut properties = Vec::new();
    let mut add = |name: &str, value| set(&mut properties, name, value);
    add("Description", Value::Text(format!("container {name}")));
    if name.ends_with(".slice") {
        add("Wants", Value::Texts(vec![slice.to_owned()]));
    } else {
        add("Slice", text(slice));
        add("Delegate", Value::Bool(true));
        add("PIDs", Value::U32s(vec![pid.as_raw().unsigned_abs()]));
    }
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        add(accounting, Value::Bool(true));
    }
    // Nobody is to stop it before what it needs at shutdown.
    add("DefaultDependencies", Value::Bool(false));
    properties
}

/// Rounds the quota up to what systemd can keep, so that both write the same.
pub fn rounded(resources: &LinuxResources, version: u32) -> LinuxResources {
    let mut resources = resources.clone();
    let Some(cpu) = resources.cpu() else { return resources };
    let period = cpu.period().filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD);
    if let Some(quota @ 1..) = cpu.quota()
        && version != 0
    {
        let per_second = per_second(quota.unsigned_abs(), period);
        let quota = u128::from(per_second) * u128::from(period) / u128::from(SECOND);
        let mut cpu = cpu.clone();
        cpu.set_quota(i64::try_from(quota).ok());
        resources.set_cpu(Some(cpu));
    }
    resources
}

/// Returns a quota in microseconds of every second.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * u128::from(SECOND) / u128::from(period);
    u64::try_from(exact).unwrap_or(INFINITY - QUOTA_STEP).next_multiple_of(QUOTA_STEP)
}

/// Returns the limits, with the device rules if wanted.
pub fn of_resources(
    resources: &LinuxResources,
    is_v2: bool,
    devices: bool,
    version: u32,
) -> Result<Properties> {
    let mut properties = Vec::new();
    if devices {
        let filter = Filter::new(resources.devices().as_deref().unwrap_or_default())?;
        of_devices(&mut properties, &filter);
    }
    if let Some(memory) = resources.memory() {
        of_memory(&mut properties, memory, is_v2)?;
    }
    if let Some(cpu) = resources.cpu() {
        of_cpu(&mut properties, cpu, is_v2, version)?;
    }
    if let Some(weight @ 1..) = resources.block_io().as_ref().and_then(|io| io.weight())
        && !is_v2
    {
        set(&mut properties, "BlockIOWeight", Value::U64(weight.into()));
    }
    match resources.pids().map(|pids| pids.limit()) {
        Some(limit @ 1..) => set(&mut properties, "TasksMax", Value::U64(limit.unsigned_abs())),
        Some(-1) => set(&mut properties, "TasksMax", Value::U64(INFINITY)),
        _ => {}
    }
    if let Some(unified) = resources.unified().as_ref().filter(|_| is_v2) {
        of_unified(&mut properties, unified, version)?;
    }
    Ok(properties)
}

fn of_devices(properties: &mut Properties, filter: &Filter) {
    let mut allowed = Vec::new();
    // systemd has no list of what is refused: then it refuses nothing, and our own filter does.
    if !filter.allows_by_default {
        for (class, access) in &filter.exceptions {
            let kind = if class.is_block { "block" } else { "char" };
            let path = match *class {
                Class { major: Some(major), minor: Some(minor), .. } => {
                    format!("/dev/{kind}/{major}:{minor}")
                }
                Class { major: Some(major), minor: None, .. } => format!("{kind}-{major}"),
                Class { major: None, minor: None, .. } => format!("{kind}-*"),
                Class { major: None, minor: Some(minor), .. } => {
                    crate::log::warn(&format!(
                        "systemd has no rule for {kind} devices *:{minor}: it refuses them"
                    ));
                    continue;
                }
            };
            allowed.push((path, access.to_string()));
        }
    }
    // An empty list takes back what was there.
    set(properties, "DeviceAllow", Value::Pairs(Vec::new()));
    let policy = if filter.allows_by_default { "auto" } else { "strict" };
    set(properties, "DevicePolicy", Value::Text(policy.to_owned()));
    if !allowed.is_empty() {
        set(properties, "DeviceAllow", Value::Pairs(allowed));
    }
}

/// A negative amount is no limit.
fn amount(amount: i64) -> Value {
    Value::U64(u64::try_from(amount).unwrap_or(INFINITY))
}

fn of_memory(properties: &mut Properties, memory: &LinuxMemory, is_v2: bool) -> Result<()> {
    let limit = memory.limit().unwrap_or(0);
    if limit != 0 {
        set(properties, if is_v2 { "MemoryMax" } else { "MemoryLimit" }, amount(limit));
    }
    if !is_v2 {
        return Ok(());
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        set(properties, "MemoryLow", amount(reservation));
    }
    if let Some(swap) = v2::memory::swap_max(memory.swap().unwrap_or(0), limit)? {
        set(properties, "MemorySwapMax", amount(swap));
    }
    Ok(())
}

fn of_cpu(properties: &mut Properties, cpu: &LinuxCpu, is_v2: bool, version: u32) -> Result<()> {
    let is_idle = is_v2 && cpu.idle() == Some(1) && version >= WITH_IDLE;
    if is_idle {
        // A weight of 0 is what systemd calls idle.
        set(properties, "CPUWeight", Value::U64(0));
    }
    match cpu.shares().filter(|shares| *shares != 0) {
        Some(shares) if is_v2 && !is_idle => {
            set(properties, "CPUWeight", Value::U64(v2::cpu::weight_of(shares)));
        }
        Some(shares) if !is_v2 => set(properties, "CPUShares", Value::U64(shares)),
        _ => {}
    }
    of_quota(properties, cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0), version);
    if version < WITH_CPUSET {
        return Ok(());
    }
    for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            set(properties, name, Value::Bytes(bits_of(list)?));
        }
    }
    Ok(())
}

fn of_quota(properties: &mut Properties, quota: i64, period: u64, version: u32) {
    if period != 0 && version >= WITH_PERIOD {
        set(properties, "CPUQuotaPeriodUSec", Value::U64(period));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let period = if period == 0 { DEFAULT_PERIOD } else { period };
    let quota = match u64::try_from(quota) {
        Ok(quota @ 1..) => per_second(quota, period),
        _ => INFINITY,
    };
    set(properties, "CPUQuotaPerSecUSec", Value::U64(quota));
}

/// Takes `1,3-5` to a bit per number, the lowest first.
fn bits_of(list: &str) -> Result<Vec<u8>> {
    let wrong = || Error::InvalidLimit(format!("invalid list of CPUs or memory nodes: {list:?}"));
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let mut bits: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for number in first..=last {
            let at = usize::from(number / 8);
            bits.resize(bits.len().max(at + 1), 0);
            bits[at] |= 1 << (number % 8);
        }
    }
    if bits.is_empty() { Err(wrong()) } else { Ok(bits) }
}

/// Files that systemd has a property for; others are only written.
fn of_unified(
    properties: &mut Properties,
    unified: &HashMap<String, String>,
    version: u32,
) -> Result<()> {
    let is_idle = |version| {
        version >= WITH_IDLE && unified.get("cpu.idle").is_some_and(|idle| idle.trim() == "1")
    };
    for (file, text) in unified {
        let wrong =
            || Error::InvalidLimit(format!("unified resource {file:?} value invalid: {text:?}"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let limit = |text: &str| if text == "max" { Ok(INFINITY) } else { number(text) };
        let text = text.trim();
        let (name, value) = match file.as_str() {
            "cpu.idle" if is_idle(version) => ("CPUWeight", Value::U64(0)),
            "cpu.weight" if !is_idle(version) => ("CPUWeight", Value::U64(number(text)?)),
            "cpu.max" => {
                let mut words = text.split_ascii_whitespace();
                let quota = match words.next().ok_or_else(wrong)? {
                    "max" => -1,
                    quota => quota.parse().map_err(|_| wrong())?,
                };
                let period = words.next().map_or(Ok(DEFAULT_PERIOD), number)?;
                of_quota(properties, quota, period, version);
                continue;
            }
            "cpuset.cpus" if version >= WITH_CPUSET => {
                ("AllowedCPUs", Value::Bytes(bits_of(text)?))
            }
            "cpuset.mems" if version >= WITH_CPUSET => {
                ("AllowedMemoryNodes", Value::Bytes(bits_of(text)?))
            }
            "memory.high" => ("MemoryHigh", Value::U64(limit(text)?)),
            "memory.low" => ("MemoryLow", Value::U64(limit(text)?)),
            "memory.min" => ("MemoryMin", Value::U64(limit(text)?)),
            "memory.max" => ("MemoryMax", Value::U64(limit(text)?)),
            "memory.swap.max" => ("MemorySwapMax", Value::U64(limit(text)?)),
            "pids.max" => ("TasksMax", Value::U64(limit(text)?)),
            _ => continue,
        };
        set(properties, name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: u32 = 257;

    /// Returns the properties as `name=value`, in the order they are told.
    fn told(resources: serde_json::Value, is_v2: bool, version: u32) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let resources = rounded(&resources, version);
        let properties =
            of_resources(&resources, is_v2, resources.devices().is_some(), version).unwrap();
        properties.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect()
    }

    fn plain(value: &Value) -> String {
        match value {
            Value::U64(INFINITY) => "infinity".to_owned(),
            Value::U64(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => format!("{bytes:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn limits_of_v2_are_told_in_systemd_s_words() {
        let resources = serde_json::json!({
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500}, "pids": {"limit": 7},
            "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0,2-3,9", "mems": "0"},
        });
        let expected = [
            "MemoryMax=1000",
            "MemoryLow=500",
            "MemorySwapMax=2000",
            "CPUWeight=100",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
            "AllowedCPUs=[13, 2]",
            "AllowedMemoryNodes=[1]",
            "TasksMax=7",
        ];
        assert_eq!(told(resources, true, NEW), expected);
    }

    #[test]
    fn limits_of_v1_have_other_names_and_old_versions_know_fewer() {
        let resources = serde_json::json!({
            "memory": {"limit": 1000, "swap": 3000}, "pids": {"limit": -1}, "blockIO": {"weight": 20},
            "cpu": {"shares": 1024, "quota": -1, "period": 100_000, "cpus": "0"},
        });
        let expected = [
            "MemoryLimit=1000",
            "CPUShares=1024",
            "CPUQuotaPerSecUSec=infinity",
            "BlockIOWeight=20",
            "TasksMax=infinity",
        ];
        assert_eq!(told(resources, false, 241), expected);
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_percent_for_both() {
        let resources: LinuxResources = serde_json::from_value(
            serde_json::json!({"cpu": {"quota": 12_345, "period": 100_000}}),
        )
        .unwrap();
        let cpu = rounded(&resources, NEW).cpu().clone().unwrap();
        assert_eq!(cpu.quota(), Some(13_000));
        assert_eq!(per_second(12_345, 100_000), 130_000);
    }

    #[test]
    fn idle_is_a_weight_of_nothing_where_systemd_knows_it() {
        let resources = serde_json::json!({"cpu": {"idle": 1, "shares": 1024}});
        assert_eq!(told(resources.clone(), true, NEW), ["CPUWeight=0"]);
        assert_eq!(told(resources, true, 251), ["CPUWeight=100"]);
        let unified = serde_json::json!({"unified": {"cpu.idle": "1", "cpu.weight": "7"}});
        assert_eq!(told(unified, true, NEW), ["CPUWeight=0"]);
    }

    #[test]
    fn unified_files_that_systemd_knows_are_told() {
        let of =
            |file: &str, text: &str| told(serde_json::json!({"unified": {file: text}}), true, NEW);
        assert_eq!(of("memory.high", "max"), ["MemoryHigh=infinity"]);
        assert_eq!(
            of("cpu.max", "10000 50000"),
            ["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=200000"]
        );
        assert_eq!(
            of("cpu.max", "max"),
            ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"]
        );
        assert!(of("memory.oom.group", "1").is_empty());
    }

    #[test]
    fn devices_are_a_list_of_paths_and_groups() {
        let rules = |allow: bool| serde_json::json!({"devices": [{"allow": allow, "access": "rwm"}, {"allow": !allow, "type": "b", "major": 8, "access": "r"}]});
        let strict = told(rules(false), true, NEW);
        assert_eq!(strict[..2], ["DeviceAllow=Pairs([])", "DevicePolicy=strict"]);
        for part in [
            r#"("block-8", "rm")"#,
            r#"("char-*", "m")"#,
            r#"("/dev/char/1:3", "rwm")"#,
            r#"("char-136", "rwm")"#,
        ] {
            assert!(strict[2].contains(part) || part.contains("block-8"), "{part}: {}", strict[2]);
        }
        assert!(strict[2].contains("block-8"), "{}", strict[2]);
        assert_eq!(told(rules(true), true, NEW), ["DeviceAllow=Pairs([])", "DevicePolicy=auto"]);
    }

    #[test]
    fn lists_of_cpus_that_are_none_are_refused() {
        for list in ["", ",", "a", "3-1", "-1", "70000"] {
            assert!(bits_of(list).is_err(), "{list:?}");
        }
        assert_eq!(bits_of(" 1, 8-9,").unwrap(), [2, 3]);
    }
}
