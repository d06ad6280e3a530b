//! `history`.

use super::{handler, list, short_id};
use crate::cli::{Arity, Call, Command};
use crate::client::{Query, escape};
use crate::error::Outcome;
use crate::flags::{Kind, flag, short};
use crate::output::format::Format;
use crate::output::table::ellipsis;
use crate::output::{time, units};
use crate::print;
use crate::value::{Record, Value};
use cleat_proto::platform::Platform;

pub static HISTORY: Command = Command {
    usage: "[OPTIONS] IMAGE",
    about: "Show how an image was made",
    names: "image history, history",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[
        list::FORMAT_OF_ONE,
        short('H', "human", Kind::Bool, "Print sizes and times for people").default("true"),
        list::NO_TRUNC,
        flag("platform", Kind::Text, "Platform of the image, where it has several").since("1.48"),
        short('q', "quiet", Kind::Bool, "Print ids only"),
    ]],
    run: handler!(run),
};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// Before this no image was made: the time is unknown. (2000-01-01.)
const UNKNOWN_BEFORE: i64 = 946_684_800;

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let mut query = Query::default();
    if !flags.text("platform").is_empty() {
        let parsed = Platform::parse(flags.text("platform"))
            .map_err(|reason| format!("invalid platform: {reason}"))?;
        query.add("platform", parsed.json());
    }
    let path = format!("/images/{}/history", escape(call.arg(0), true));
    let history = call.client()?.get(&path, &query).await?;
    let human = flags.on("human");
    let format = match flags.text("format") {
        "" | "table" if flags.on("quiet") => "{{.ID}}",
        "" | "table" if human => {
            "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        }
        "" | "table" => "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        custom => custom,
    };
    let truncate = !flags.on("no-trunc");
    let rows: Vec<Value> = history.items().iter().map(|step| row(step, truncate, human)).collect();
    print::out(&Format::new(format)?.render(HEADERS, &rows)?);
    Ok(())
}

fn row(step: &Value, truncate: bool, human: bool) -> Value {
    let id = step.at("Id").text();
    let created = step.at("Created").int();
    let at = time::rfc3339(created);
    let since = match (human, created <= UNKNOWN_BEFORE) {
        (false, _) => at.clone(),
        (true, true) => "N/A".into(),
        (true, false) => format!("{} ago", units::human_duration(time::now() - created)),
    };
    let by = step.at("CreatedBy").text().replace('\t', " ");
    let size = step.at("Size").int();
    let fields = vec![
        ("ID", Value::from(if truncate { short_id(id) } else { id })),
        ("CreatedSince", since.into()),
        ("CreatedAt", at.into()),
        ("CreatedBy", if truncate { ellipsis(&by, 45) } else { by }.into()),
        (
            "Size",
            if human { units::human_size_with(size as f64, 3) } else { size.to_string() }.into(),
        ),
        ("Comment", step.at("Comment").text().into()),
    ];
    Record::row("*image.historyContext", fields).into()
}
