//! `volume create`, `volume ls`, `volume rm`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{filter_query, handler, list, one_by_one};
use crate::cli::{Arity, Call, Command};
use crate::client::{Query, escape};
use crate::error::Outcome;
use crate::flags::{Kind, flag, short};
use crate::opts::filter::Filters;
use crate::opts::pairs_to_map;
use crate::output::units;
use crate::print;
use crate::value::{Record, Value};

pub static CREATE: Command = Command {
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    names: "",
    arity: Arity::AtMost(1),
    options_first: false,
    flags: &[&[
        short('d', "driver", Kind::Text, "Driver that keeps it").default("local"),
        flag("label", Kind::Label, "Label"),
        flag("name", Kind::Text, "Name of the volume").hidden(),
        short('o', "opt", Kind::Map, "Option for the driver"),
    ]],
    run: handler!(create),
};

pub static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List volumes",
    names: "volume ls, volume list",
    arity: Arity::None,
    options_first: false,
    flags: &[&[
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        list::FORMAT,
        short('q', "quiet", Kind::Bool, "Print names only"),
    ]],
    run: handler!(ls),
};

pub static RM: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove volumes that no container uses",
    names: "volume rm, volume remove",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[
        &[short('f', "force", Kind::Bool, "Do not complain about missing ones").since("1.25")],
    ],
    run: handler!(rm),
};

/// The titles of the columns.
pub const HEADERS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Group", "GROUP"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

/// The body of `POST /volumes/create`. (Engine API, VolumeCreate.)
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateRequest {
    #[serde(skip_serializing_if = "String::is_empty")]
    driver: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

async fn create(call: Call) -> Outcome {
    let mut name = call.flags.text("name").to_owned();
    if !call.args.is_empty() {
        if !name.is_empty() {
            return Err(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg".into()
            );
        }
        call.arg(0).clone_into(&mut name);
    }
    let request = CreateRequest {
        driver: call.flags.text("driver").into(),
        driver_opts: pairs_to_map(&call.flags.list("opt")),
        labels: pairs_to_map(&call.flags.list("label")),
        name,
    };
    let answer =
        call.client()?.post_json_for("/volumes/create", &Query::default(), &request).await?;
    print::line(answer.at("Name").text());
    Ok(())
}

async fn ls(call: Call) -> Outcome {
    let filters = Filters::new(&call.flags.list("filter"));
    let answer = call.client()?.get("/volumes", &filter_query(&filters)).await?;
    let formats = list::Formats {
        configured: &call.app.config.volumes_format,
        table: "table {{.Driver}}\t{{.Name}}",
        quiet_table: "{{.Name}}",
        raw: "name: {{.Name}}\\ndriver: {{.Driver}}\\n",
        quiet_raw: "name: {{.Name}}",
    };
    let rows = list::by_name(answer.at("Volumes").items()).into_iter().map(row).collect::<Vec<_>>();
    list::print(&call, &formats, HEADERS, &rows)
}

/// A volume as templates see it. (Engine API, VolumeList.)
pub fn row(volume: &Value) -> Value {
    let usage = volume.at("UsageData");
    let known = *usage != Value::Nil;
    let labels = volume.at("Labels");
    let (links, size) = if known {
        (usage.at("RefCount").int().to_string(), units::human_size(usage.at("Size").int() as f64))
    } else {
        ("N/A".to_owned(), "N/A".to_owned())
    };
    let fields = vec![
        ("Name", Value::from(volume.at("Name").text())),
        ("Driver", volume.at("Driver").text().into()),
        ("Scope", volume.at("Scope").text().into()),
        ("Mountpoint", volume.at("Mountpoint").text().into()),
        ("Labels", super::list_containers::joined_labels(labels).into()),
        ("Links", links.into()),
        ("Size", size.into()),
        ("Group", "N/A".into()),
        ("Availability", "N/A".into()),
        ("Status", "N/A".into()),
    ];
    let mut record = Record::row("*formatter.volumeContext", fields);
    record.labels = Some(labels.texts());
    record.into()
}

async fn rm(call: Call) -> Outcome {
    let query = if call.flags.on("force") { Query::of("force", "1") } else { Query::default() };
    let client = call.client()?;
    one_by_one(&call, async |name| {
        client.delete(&format!("/volumes/{}", escape(name, true)), &query).await?;
        Ok(name.to_owned())
    })
    .await
}
