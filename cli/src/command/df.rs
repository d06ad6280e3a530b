//! `system df`.

use super::handler;
use super::{list, list_containers, list_images, short_id, volume};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::flags::{Kind, short};
use crate::opts::reference::Reference;
use crate::output::format::Format;
use crate::output::{time, units};
use crate::print;
use crate::value::{Map, Record, Value};

pub static DF: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what takes up space",
    names: "",
    arity: Arity::None,
    options_first: false,
    flags: &[&[list::FORMAT_OF_ONE, short('v', "verbose", Kind::Bool, "Show each object")]],
    run: handler!(run),
};

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

async fn run(call: Call) -> Outcome {
    let usage = call.client()?.get("/system/df", &Query::default()).await?;
    let source = match call.flags.text("format") {
        "" => "table",
        format => format,
    };
    if call.flags.on("verbose") {
        return verbose(&usage, source);
    }
    let format = match source {
        "table" => "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        "raw" => {
            "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
        }
        custom => custom,
    };
    let rows = [images(&usage), containers(&usage), volumes(&usage), builds(&usage)];
    print::out(&Format::new(format)?.render(HEADERS, &rows)?);
    Ok(())
}

/// One line: how many there are, how many are in use, their size and what of it could go.
fn row(
    type_name: &'static str,
    kind: &str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: String,
) -> Value {
    let fields = vec![
        ("Type", Value::from(kind)),
        ("TotalCount", total.to_string().into()),
        ("Active", active.to_string().into()),
        ("Size", units::human_size(size as f64).into()),
        ("Reclaimable", reclaimable.into()),
    ];
    Record::row(type_name, fields).into()
}

fn share(part: i64, whole: i64) -> String {
    let size = units::human_size(part as f64);
    if whole > 0 { format!("{size} ({}%)", part * 100 / whole) } else { size }
}

fn images(usage: &Value) -> Value {
    let images = usage.at("Images").items();
    let total = usage.at("LayersSize").int();
    let active = images.iter().filter(|image| image.at("Containers").int() > 0).count();
    let used: i64 = images
        .iter()
        .filter(|image| image.at("Containers").int() != 0)
        .map(|image| (image.at("Size").int(), image.at("SharedSize").int()))
        .filter(|(size, shared)| *size != -1 && *shared != -1)
        .map(|(size, shared)| size - shared)
        .sum();
    row(
        "*formatter.diskUsageImagesContext",
        "Images",
        images.len(),
        active,
        total,
        share(total - used, total),
    )
}

fn containers(usage: &Value) -> Value {
    let containers = usage.at("Containers").items();
    let is_active = |container: &&Value| {
        matches!(container.at("State").text(), "running" | "paused" | "restarting")
    };
    let size = |container: &Value| container.at("SizeRw").int();
    let total: i64 = containers.iter().map(size).sum();
    let idle: i64 = containers.iter().filter(|container| !is_active(container)).map(size).sum();
    let active = containers.iter().filter(is_active).count();
    row(
        "*formatter.diskUsageContainersContext",
        "Containers",
        containers.len(),
        active,
        total,
        share(idle, total),
    )
}

fn volumes(usage: &Value) -> Value {
    let volumes = usage.at("Volumes").items();
    let data = |volume: &Value| {
        let usage = volume.at("UsageData");
        (usage.at("RefCount").int(), usage.at("Size").int())
    };
    let known = || volumes.iter().map(data).filter(|(_, size)| *size != -1);
    let total: i64 = known().map(|(_, size)| size).sum();
    let idle: i64 = known().filter(|(links, _)| *links == 0).map(|(_, size)| size).sum();
    let active = volumes.iter().filter(|volume| data(volume).0 > 0).count();
    row(
        "*formatter.diskUsageVolumesContext",
        "Local Volumes",
        volumes.len(),
        active,
        total,
        share(idle, total),
    )
}

fn cache_size(usage: &Value, only_used: bool) -> i64 {
    let records = usage.at("BuildCache").items().iter();
    records
        .filter(|record| !record.at("Shared").bool() && (!only_used || record.at("InUse").bool()))
        .map(|record| record.at("Size").int())
        .sum()
}

fn builds(usage: &Value) -> Value {
    let records = usage.at("BuildCache").items();
    let active = records.iter().filter(|record| record.at("InUse").bool()).count();
    let total = cache_size(usage, false);
    let reclaimable = units::human_size((total - cache_size(usage, true)) as f64);
    row(
        "*formatter.diskUsageBuilderContext",
        "Build Cache",
        records.len(),
        active,
        total,
        reclaimable,
    )
}

fn verbose(usage: &Value, source: &str) -> Outcome {
    let truncate = source.starts_with("table");
    let images: Vec<Value> =
        usage.at("Images").items().iter().map(|image| image_row(image, truncate)).collect();
    let containers: Vec<Value> = usage
        .at("Containers")
        .items()
        .iter()
        .map(|one| list_containers::row(&without_total(one), truncate))
        .collect();
    let volumes: Vec<Value> = usage.at("Volumes").items().iter().map(volume::row).collect();
    let cache: Vec<Value> =
        usage.at("BuildCache").items().iter().map(|record| cache_row(record, truncate)).collect();
    if source != "table" {
        let all = Record::row(
            "*formatter.diskUsageContext",
            vec![
                ("Images", images.into()),
                ("Containers", containers.into()),
                ("Volumes", volumes.into()),
                ("BuildCache", cache.into()),
            ],
        );
        let format = Format::new(source)?;
        print::out(format.row(&all.into())?.trim_end_matches('\n'));
        return Ok(());
    }
    let table = |format: &str, headers: &[(&'static str, &str)], rows: &[Value]| -> Outcome {
        print::out(&Format::new(format)?.render(headers, rows)?);
        Ok(())
    };
    print::out("Images space usage:\n\n");
    table(
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        list_images::HEADERS,
        &images,
    )?;
    print::out("\nContainers space usage:\n\n");
    table(
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        list_containers::HEADERS,
        &containers,
    )?;
    print::out("\nLocal Volumes space usage:\n\n");
    table("table {{.Name}}\t{{.Links}}\t{{.Size}}", volume::HEADERS, &volumes)?;
    print::out(&format!(
        "\nBuild cache usage: {}\n\n",
        units::human_size(cache_size(usage, false) as f64)
    ));
    table(
        "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
        CACHE_HEADERS,
        &cache,
    )
}

/// The first name of an image stands for all.
fn image_row(image: &Value, truncate: bool) -> Value {
    let first = image.at("RepoTags").items().first().map(Value::text).unwrap_or_default();
    let name = match Reference::parse(first) {
        Ok(reference) if first != "<none>:<none>" => {
            (reference.familiar_name(), reference.tag.unwrap_or_default(), String::new())
        }
        _ => ("<none>".to_owned(), "<none>".to_owned(), String::new()),
    };
    list_images::row(image, &name, truncate)
}

/// The size of a container is what it wrote, without its image.
fn without_total(container: &Value) -> Value {
    let entries =
        container.entries().iter().filter(|(key, _)| key != "SizeRootFs").cloned().collect();
    Value::Map(Map { of_text: false, entries })
}

const CACHE_HEADERS: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("Parent", "PARENT"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("InUse", "IN USE"),
    ("Shared", "SHARED"),
    ("Description", "DESCRIPTION"),
];

fn cache_row(record: &Value, truncate: bool) -> Value {
    let id = record.at("ID").text();
    let id = if truncate { short_id(id) } else { id };
    let in_use = record.at("InUse").bool();
    let since = |key: &str| {
        let seconds = time::seconds_of(record.at(key).text());
        seconds
            .map_or(String::new(), |at| format!("{} ago", units::human_duration(time::now() - at)))
    };
    let parents: Vec<&str> = record.at("Parents").items().iter().map(Value::text).collect();
    let fields = vec![
        ("ID", Value::from(if in_use { format!("{id}*") } else { id.to_owned() })),
        ("Parent", parents.join(", ").into()),
        ("CacheType", record.at("Type").text().into()),
        ("Description", record.at("Description").text().into()),
        ("Size", units::human_size_with(record.at("Size").int() as f64, 3).into()),
        ("CreatedAt", time::go_string_of(record.at("CreatedAt").text()).into()),
        ("CreatedSince", since("CreatedAt").into()),
        ("LastUsedAt", time::go_string_of(record.at("LastUsedAt").text()).into()),
        ("LastUsedSince", since("LastUsedAt").into()),
        ("UsageCount", record.at("UsageCount").int().to_string().into()),
        ("InUse", in_use.to_string().into()),
        ("Shared", record.at("Shared").bool().to_string().into()),
    ];
    Record::row("*formatter.buildCacheContext", fields).into()
}
