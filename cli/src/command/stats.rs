//! `stats`.
//!
//! Each container has a task that keeps its last sample; the table is drawn twice a second.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;

use super::{container_path, handler, list, short_id};
use crate::app::App;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Client, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::output::format::Format;
use crate::output::units;
use crate::print;
use crate::value::{Record, Value};

pub static STATS: Command = Command {
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use, as it changes",
    names: "container stats, stats",
    arity: Arity::Any,
    options_first: false,
    flags: &[&[
        short('a', "all", Kind::Bool, "Include those that do not run"),
        list::FORMAT_OF_ONE,
        flag("no-stream", Kind::Bool, "Print once and exit"),
        list::NO_TRUNC,
    ]],
    run: handler!(run),
};

const HEADERS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// How long the first sample may take.
const FIRST: Duration = Duration::from_secs(2);

/// One container's last sample.
struct Entry {
    name: String,
    sample: Option<Value>,
    failure: Option<String>,
    invalid: bool,
}

type Shared = Rc<RefCell<Entry>>;

async fn run(call: Call) -> Outcome {
    // Samples are collected by tasks on this thread.
    LocalSet::new().run_until(collect_and_print(call)).await
}

async fn collect_and_print(call: Call) -> Outcome {
    let flags = &call.flags;
    let stream = !flags.on("no-stream");
    let show_all = call.args.is_empty();
    let all = flags.on("all");
    let mut names = call.args.clone();
    if show_all {
        names = list(call.client()?, all).await?;
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut entries: Vec<Shared> = Vec::new();
    for name in names {
        entries.push(watch(&call.app, name, stream));
    }
    wait_first(&entries).await;
    if !show_all {
        let failures: Vec<String> =
            entries.iter().filter_map(|entry| entry.borrow().failure.clone()).collect();
        super::joined(failures)?;
    }
    let source = match flags.text("format") {
        "" if !call.app.config.stats_format.is_empty() => call.app.config.stats_format.as_str(),
        "" => "table",
        format => format,
    };
    let text = match source {
        "table" => {
            "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
        }
        custom => custom,
    };
    let format = Format::new(text)?;
    let truncate = !flags.on("no-trunc");
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if show_all && stream {
            follow(&call, &mut entries, all).await?;
        }
        let rows: Vec<Value> = entries.iter().map(|entry| row(&entry.borrow(), truncate)).collect();
        let table = format.render(HEADERS, &rows)?;
        if !stream {
            print::out(&table);
            return Ok(());
        }
        // Home, each line with the rest of the old one wiped out, and nothing below.
        let lines: Vec<String> = table.split('\n').map(|line| format!("{line} \x1b[K\n")).collect();
        print::out(&format!("\x1b[H{}\x1b[J", lines.concat()));
        if entries.is_empty() && !show_all {
            return Ok(());
        }
    }
}

/// The short ids of the containers there are.
async fn list(client: &Client, all: bool) -> Outcome<Vec<String>> {
    let mut query = Query::default();
    if all {
        query.add("all", "1");
    }
    let containers = client.get("/containers/json", &query).await?;
    Ok(containers
        .items()
        .iter()
        .map(|container| short_id(container.at("Id").text()).to_owned())
        .collect())
}

/// Containers come and go.
async fn follow(call: &Call, entries: &mut Vec<Shared>, all: bool) -> Outcome {
    let now = list(call.client()?, all).await?;
    entries.retain(|entry| now.contains(&entry.borrow().name));
    for name in now {
        if entries.iter().all(|entry| entry.borrow().name != name) {
            entries.push(watch(&call.app, name, true));
        }
    }
    Ok(())
}

/// Starts a task that keeps the container's last sample.
fn watch(app: &Rc<App>, name: String, stream: bool) -> Shared {
    let entry = Rc::new(RefCell::new(Entry { name, sample: None, failure: None, invalid: false }));
    let (shared, app) = (entry.clone(), app.clone());
    tokio::task::spawn_local(async move {
        if let Err(error) = sample(&app, &shared, stream).await {
            let mut entry = shared.borrow_mut();
            entry.failure = Some(error.to_string());
            entry.invalid = true;
        }
    });
    entry
}

async fn sample(app: &App, entry: &Shared, stream: bool) -> Outcome {
    let client = app.client()?;
    let path = container_path(&entry.borrow().name, "/stats")?;
    let query = Query::of("stream", if stream { "1" } else { "0" });
    let response = client.request((http::Method::GET, &path), &query, Body::Empty).await?;
    let mut chunks = response.chunks();
    while let Some(value) = chunks.next_value().await? {
        entry.borrow_mut().sample = Some(value);
        if !stream {
            return Ok(());
        }
    }
    Err(Error::Message("EOF".into()))
}

/// Waits until every container has a sample or a failure, but not for ever.
async fn wait_first(entries: &[Shared]) {
    let deadline = tokio::time::Instant::now() + FIRST;
    let pending = |entry: &Shared| {
        let entry = entry.borrow();
        entry.sample.is_none() && entry.failure.is_none()
    };
    while entries.iter().any(pending) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for entry in entries.iter().filter(|entry| pending(entry)) {
        entry.borrow_mut().failure = Some("timeout waiting for stats".into());
        entry.borrow_mut().invalid = true;
    }
}

fn row(entry: &Entry, truncate: bool) -> Value {
    let sample = entry.sample.clone().unwrap_or_default();
    let id = sample.at("id").text();
    let unknown = |text: String| if entry.invalid { "--".to_owned() } else { text };
    let size = |bytes: f64| units::human_size_with(bytes, 3);
    let percent = |value: f64| format!("{value:.2}%");
    let (used, limit) = (memory(&sample), sample.at("memory_stats").at("limit").int() as f64);
    let (received, sent) = network(&sample);
    let (read, written) = block(&sample);
    let usage = format!("{} / {}", units::bytes_size(used), units::bytes_size(limit));
    let name = sample.at("name").text().get(1..).filter(|name| !name.is_empty()).unwrap_or("--");
    let fields = vec![
        ("Container", Value::from(entry.name.as_str())),
        ("Name", name.into()),
        ("ID", Value::from(if truncate { short_id(id) } else { id })),
        ("CPUPerc", unknown(percent(cpu(&sample))).into()),
        ("MemUsage", if entry.invalid { "-- / --".into() } else { usage }.into()),
        ("MemPerc", unknown(percent(if limit == 0.0 { 0.0 } else { used / limit * 100.0 })).into()),
        ("NetIO", unknown(format!("{} / {}", size(received), size(sent))).into()),
        ("BlockIO", unknown(format!("{} / {}", size(read), size(written))).into()),
        ("PIDs", unknown(sample.at("pids_stats").at("current").int().to_string()).into()),
    ];
    Record::row("*container.statsContext", fields).into()
}

/// The share of all CPUs, between this sample and the one before.
fn cpu(sample: &Value) -> f64 {
    let (now, before) = (sample.at("cpu_stats"), sample.at("precpu_stats"));
    let used = |stats: &Value| stats.at("cpu_usage").at("total_usage").int() as f64;
    let system = |stats: &Value| stats.at("system_cpu_usage").int() as f64;
    let (used, total) = (used(now) - used(before), system(now) - system(before));
    let mut cpus = now.at("online_cpus").int() as f64;
    if cpus == 0.0 {
        cpus = now.at("cpu_usage").at("percpu_usage").items().len() as f64;
    }
    if used > 0.0 && total > 0.0 { used / total * cpus * 100.0 } else { 0.0 }
}

/// What is used without the page cache that could go at once. (Its name tells cgroup v1 from v2.)
fn memory(sample: &Value) -> f64 {
    let memory = sample.at("memory_stats");
    let usage = memory.at("usage").int();
    let stats = memory.at("stats");
    let v1 = stats.at("total_inactive_file");
    if *v1 != Value::Nil && v1.int() < usage {
        return (usage - v1.int()) as f64;
    }
    let v2 = stats.at("inactive_file").int();
    if v2 < usage { (usage - v2) as f64 } else { usage as f64 }
}

fn network(sample: &Value) -> (f64, f64) {
    let sum = |key: &str| {
        sample
            .at("networks")
            .entries()
            .iter()
            .map(|(_, network)| network.at(key).int() as f64)
            .sum()
    };
    (sum("rx_bytes"), sum("tx_bytes"))
}

fn block(sample: &Value) -> (f64, f64) {
    let entries = sample.at("blkio_stats").at("io_service_bytes_recursive").items();
    let sum = |letter: char| {
        entries
            .iter()
            .filter(|entry| entry.at("op").text().to_lowercase().starts_with(letter))
            .map(|entry| entry.at("value").int() as f64)
            .sum()
    };
    (sum('r'), sum('w'))
}
