//! `search`.

use super::{handler, list};
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::credentials::registry_auth;
use crate::error::Outcome;
use crate::flags::{Kind, flag, short};
use crate::opts::filter::Filters;
use crate::output::format::Format;
use crate::output::table::ellipsis;
use crate::print;
use crate::value::{Record, Value};

pub static SEARCH: Command = Command {
    usage: "[OPTIONS] TERM",
    about: "Search a registry",
    names: "",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        list::FORMAT,
        flag("limit", Kind::Int, "Most results to print"),
        list::NO_TRUNC,
    ]],
    run: handler!(run),
};

const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
];

const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

/// As wide as a description gets.
const DESCRIPTION: usize = 45;

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let term = call.arg(0);
    let filters = Filters::new(&flags.list("filter"));
    let mut query = Query::of("term", term);
    if !filters.is_empty() {
        query.add("filters", filters.json());
    }
    if flags.int("limit") > 0 {
        query.add("limit", flags.int("limit").to_string());
    }
    let domain = match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    };
    let headers = [("X-Registry-Auth", registry_auth(&call.app, domain))];
    let route = (http::Method::GET, "/images/search");
    let found = call.client()?.request_with(route, &query, &headers, Body::Empty).await?;
    let found = found.value().await?;
    let format = match flags.text("format") {
        "" | "table" => TABLE,
        custom => custom,
    };
    let truncate = !flags.on("no-trunc");
    let rows: Vec<Value> = found.items().iter().map(|item| row(item, truncate)).collect();
    print::out(&Format::new(format)?.render(HEADERS, &rows)?);
    Ok(())
}

fn row(item: &Value, truncate: bool) -> Value {
    let description = item.at("description").text().replace(['\n', '\r'], " ");
    let official = if item.at("is_official").bool() { "[OK]" } else { "" };
    let fields = vec![
        ("Name", item.at("name").text().into()),
        (
            "Description",
            if truncate { ellipsis(&description, DESCRIPTION) } else { description }.into(),
        ),
        ("StarCount", item.at("star_count").int().to_string().into()),
        ("IsOfficial", official.into()),
        ("IsAutomated", "".into()),
    ];
    Record::row("*formatter.searchContext", fields).into()
}
