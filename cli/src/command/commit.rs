//! `commit`.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::{Error, Outcome};
use crate::flags::{Kind, short};
use crate::opts::reference::Reference;
use crate::print;

pub static COMMIT: Command = Command {
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of a container's filesystem",
    names: "container commit, commit",
    arity: Arity::Between(1, 2),
    options_first: false,
    flags: &[&[
        short('a', "author", Kind::Text, "Who made it"),
        short('c', "change", Kind::List, "Dockerfile instruction to apply"),
        short('m', "message", Kind::Text, "What it is"),
        short('p', "pause", Kind::Bool, "Pause the container meanwhile").default("true"),
    ]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let (mut repository, mut tag) = (String::new(), String::new());
    if !call.arg(1).is_empty() {
        let reference = Reference::parse(call.arg(1))?;
        if reference.digest.is_some() {
            return Err("refusing to create a tag with a digest reference".into());
        }
        let reference = reference.tagged();
        repository = reference.name();
        tag = reference.tag.unwrap_or_default();
    }
    let container = call.arg(0).trim();
    if container.is_empty() {
        return Err("invalid container name or ID: value is empty".into());
    }
    let mut query = Query::of("container", container)
        .with("repo", repository)
        .with("tag", tag)
        .with("comment", flags.text("message"))
        .with("author", flags.text("author"));
    for change in flags.list("change") {
        query.add("changes", change);
    }
    if !flags.on("pause") {
        query.add("pause", "0");
    }
    let answer = call
        .client()?
        .post_json("/commit", &query, &None::<()>)
        .await
        .map_err(Error::from)?
        .value()
        .await?;
    print::line(answer.at("Id").text());
    Ok(())
}
