//! `update`.

use cleat_proto::docker::container::{HostConfig, RestartPolicy};
use serde::Serialize;

use super::container_flags::{LIMITS, MORE_LIMITS};
use super::{container_path, handler, joined};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::flags::{Flag, Kind, flag};
use crate::opts::{container, restart};
use crate::print;

pub static UPDATE: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Change the limits and the restart policy of containers",
    names: "container update, update",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: FLAGS,
    run: handler!(run),
};

static FLAGS: &[&[Flag]] = &[
    LIMITS,
    MORE_LIMITS,
    &[
        flag("cpus", Kind::Cpus, "Number of CPUs, with fractions").since("1.29"),
        flag("kernel-memory", Kind::Bytes, "Limit of kernel memory").hidden(),
        flag("pids-limit", Kind::Int, "Limit of processes (-1 for none)").since("1.40"),
        flag("restart", Kind::Text, "Restart policy"),
    ],
];

/// The body of `POST /containers/ID/update`: the limits of a host configuration, and nothing else of it.
#[derive(Serialize)]
struct UpdateRequest {
    #[serde(flatten)]
    resources: serde_json::Map<String, serde_json::Value>,
    #[serde(rename = "RestartPolicy")]
    restart_policy: RestartPolicy,
}

/// The keys of `Resources` in a host configuration. (Engine API, ContainerUpdate.)
const RESOURCES: [&str; 31] = [
    "CpuShares",
    "Memory",
    "NanoCpus",
    "CgroupParent",
    "BlkioWeight",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "KernelMemory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Ulimits",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    "KernelMemoryTCP",
];

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    if !FLAGS.iter().copied().flatten().any(|flag| flags.changed(flag.name)) {
        return Err("you must provide one or more flags when using this command".into());
    }
    let restart_policy = restart::parse(flags.text("restart"))?;
    let limits = HostConfig {
        pids_limit: Some(flags.int("pids-limit")).filter(|limit| *limit != 0),
        ..container::limits::changeable(flags)
    };
    let serde_json::Value::Object(all) = serde_json::to_value(&limits).unwrap_or_default() else {
        return Err("cannot write the limits as JSON".into());
    };
    let resources = all.into_iter().filter(|(key, _)| RESOURCES.contains(&key.as_str())).collect();
    let request = UpdateRequest { resources, restart_policy };
    let client = call.client()?;
    let (mut warnings, mut failures) = (Vec::new(), Vec::new());
    for name in &call.args {
        let path = container_path(name, "/update")?;
        match client.post_json_for(&path, &Query::default(), &request).await {
            Ok(answer) => {
                print::line(name);
                warnings.extend(
                    answer.at("Warnings").items().iter().map(|warning| warning.text().to_owned()),
                );
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    if !warnings.is_empty() {
        print::line(&warnings.join("\n"));
    }
    joined(failures)
}
