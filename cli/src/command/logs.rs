//! `logs`.

use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::timestamp;
use crate::print;
use crate::stream::Demultiplexer;

pub static LOGS: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Print what a container has written",
    names: "container logs, logs",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[
        flag("details", Kind::Bool, "Print the attributes of each line as well"),
        short('f', "follow", Kind::Bool, "Go on as more is written"),
        flag(
            "since",
            Kind::Text,
            "Print from this time on (2013-01-02T13:23:37Z, or 42m for minutes ago)",
        ),
        short('n', "tail", Kind::Text, "Lines to print from the end").default("all"),
        short('t', "timestamps", Kind::Bool, "Print the time of each line"),
        flag(
            "until",
            Kind::Text,
            "Print up to this time (2013-01-02T13:23:37Z, or 42m for minutes ago)",
        )
        .since("1.35"),
    ]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let client = call.client()?;
    let container = client.get(&container_path(call.arg(0), "/json")?, &Query::default()).await?;
    let now = jiff::Timestamp::now();
    let mut query = Query::of("stdout", "1").with("stderr", "1");
    for name in ["since", "until"] {
        let text = call.flags.text(name);
        if !text.is_empty() {
            let invalid =
                |reason: String| format!("invalid value for {}: {reason}", crate::go::quote(name));
            query.add(name, timestamp::parse(text, now).map_err(invalid)?);
        }
    }
    for name in ["timestamps", "details", "follow"] {
        if call.flags.on(name) {
            query.add(name, "1");
        }
    }
    query.add("tail", call.flags.text("tail"));
    let path = format!("/containers/{}/logs", container.at("Id").text());
    let response = client.request((http::Method::GET, &path), &query, Body::Empty).await?;
    let tty = container.at("Config").at("Tty").bool();
    let mut demultiplexer = Demultiplexer::new(true, true);
    let mut chunks = response.chunks();
    while let Some(chunk) = chunks.next().await? {
        if tty {
            print::bytes(&chunk);
        } else {
            demultiplexer.feed(&chunk).map_err(Error::Message)?;
        }
    }
    Ok(())
}
