//! `import` and `load`: archives that become images.

use cleat_proto::platform::Platform;
use std::io::Read;

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::reference::Reference;
use crate::output::progress::{self, Sink};
use crate::{go, terminal};

pub static IMPORT: Command = Command {
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of a filesystem in a tar archive",
    names: "image import, import",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        short('c', "change", Kind::List, "Dockerfile instruction to apply"),
        short('m', "message", Kind::Text, "What it is"),
        flag("platform", Kind::Text, "Platform of the image").since("1.32"),
    ]],
    run: handler!(import),
};

pub static LOAD: Command = Command {
    usage: "[OPTIONS]",
    about: "Take images from a tar archive",
    names: "image load, load",
    arity: Arity::None,
    options_first: false,
    flags: &[&[
        short('i', "input", Kind::Text, "File to read instead of stdin"),
        flag("platform", Kind::Text, "Take this platform only").since("1.48"),
        short('q', "quiet", Kind::Bool, "Print the result only"),
    ]],
    run: handler!(load),
};

fn open(path: &str) -> Outcome<std::fs::File> {
    std::fs::File::open(path).map_err(|error| Error::Message(go::path_error("open", path, &error)))
}

async fn import(call: Call) -> Outcome {
    let source = call.arg(0);
    let (name, body): (&str, Option<Box<dyn Read + Send>>) = match source {
        "-" => ("-", Some(Box::new(std::io::stdin()))),
        url if url.starts_with("http://") || url.starts_with("https://") => (url, None),
        path => ("-", Some(Box::new(open(path)?))),
    };
    let reference = call.arg(1);
    if !reference.is_empty() {
        Reference::parse(reference)?;
    }
    let mut query = Query::of("fromSrc", name)
        .with_some("repo", reference)
        .with_some("message", call.flags.text("message"))
        .with_some("platform", &super::run::platform(&call).to_lowercase());
    for change in call.flags.list("change") {
        query.add("changes", change);
    }
    let body = body.map_or(Body::Empty, |reader| Body::Reader("text/plain", reader));
    let response =
        call.client()?.request((http::Method::POST, "/images/create"), &query, body).await?;
    progress::display(response, Sink::Stdout).await
}

async fn load(call: Call) -> Outcome {
    let input: Box<dyn Read + Send> = match call.flags.text("input") {
        "" if terminal::stdin_is() => {
            return Err("requested load from stdin, but stdin is empty".into());
        }
        "" => Box::new(std::io::stdin()),
        path => Box::new(open(path)?),
    };
    let quiet = call.flags.on("quiet") || !terminal::stdout_is();
    let mut query = Query::of("quiet", if quiet { "1" } else { "0" });
    let platform = call.flags.text("platform");
    if !platform.is_empty() {
        let parsed =
            Platform::parse(platform).map_err(|reason| format!("invalid platform: {reason}"))?;
        query.add("platform", parsed.json());
    }
    let body = Body::Reader("application/x-tar", input);
    let response =
        call.client()?.request((http::Method::POST, "/images/load"), &query, body).await?;
    progress::display(response, Sink::Stdout).await
}
