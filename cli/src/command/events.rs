//! `events`.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::filter::Filters;
use crate::opts::timestamp;
use crate::output::template::Template;
use crate::output::{schema, time};
use crate::print;
use crate::value::Value;

pub static EVENTS: Command = Command {
    usage: "[OPTIONS]",
    about: "Print what happens, as it happens",
    names: "system events, events",
    arity: Arity::None,
    options_first: false,
    flags: &[&[
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        flag("format", Kind::Text, "How to print them: 'json' or a Go template"),
        flag("since", Kind::Text, "Print from this time on"),
        flag("until", Kind::Text, "Print up to this time"),
    ]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let template = match flags.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let invalid = |error: String| Error::Status {
        message: format!("Error parsing format: {error}"),
        code: 64,
    };
    let template = template.map(Template::parse).transpose().map_err(invalid)?;
    if let Some(template) = &template {
        template.execute(&schema::typed("events.Message", &Value::Nil), false).map_err(invalid)?;
    }
    let now = jiff::Timestamp::now();
    let mut query = Query::default();
    for name in ["since", "until"] {
        if !flags.text(name).is_empty() {
            query.add(name, timestamp::parse(flags.text(name), now)?);
        }
    }
    let filters = Filters::new(&flags.list("filter"));
    if !filters.is_empty() {
        query.add("filters", filters.json());
    }
    let response =
        call.client()?.request((http::Method::GET, "/events"), &query, Body::Empty).await?;
    let mut chunks = response.chunks();
    while let Some(event) = chunks.next_value().await? {
        match &template {
            None => print::line(&line(&event)),
            Some(template) => {
                print::line(&template.execute(&schema::typed("events.Message", &event), false)?)
            }
        }
    }
    Ok(())
}

/// `TIME TYPE ACTION ID (key=value, …)`.
fn line(event: &Value) -> String {
    let (nanos, seconds) = (event.at("timeNano").int(), event.at("time").int());
    let mut text = match (nanos, seconds) {
        (0, 0) => String::new(),
        (0, seconds) => {
            format!("{} ", time::rfc3339_nano_fixed(i128::from(seconds) * 1_000_000_000))
        }
        (nanos, _) => format!("{} ", time::rfc3339_nano_fixed(i128::from(nanos))),
    };
    let actor = event.at("Actor");
    text.push_str(&format!(
        "{} {} {}",
        event.at("Type").text(),
        event.at("Action").text(),
        actor.at("ID").text()
    ));
    let mut attributes: Vec<(&str, &str)> = actor
        .at("Attributes")
        .entries()
        .iter()
        .map(|(key, value)| (key.as_str(), value.text()))
        .collect();
    attributes.sort_unstable();
    if !attributes.is_empty() {
        let words: Vec<String> =
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!(" ({})", words.join(", ")));
    }
    text
}
