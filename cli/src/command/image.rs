//! The short commands on images: tag, rmi, save.

use super::container::OutputFile;
use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query, escape};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::reference::Reference;
use crate::{go, print};
use cleat_proto::platform::Platform;

pub static TAG: Command = Command {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give an image another name",
    names: "image tag, tag",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[],
    run: handler!(tag),
};

pub static RMI: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove images",
    names: "image rm, image remove, rmi",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        short('f', "force", Kind::Bool, "Remove it even if stopped containers use it"),
        flag("no-prune", Kind::Bool, "Keep its parents without a name"),
        flag("platform", Kind::Strings, "Remove this platform only").since("1.50"),
    ]],
    run: handler!(rmi),
};

pub static SAVE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Write images as a tar archive",
    names: "image save, save",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        short('o', "output", Kind::Text, "File to write instead of stdout"),
        flag("platform", Kind::Text, "Save this platform only").since("1.48"),
    ]],
    run: handler!(save),
};

async fn tag(call: Call) -> Outcome {
    let invalid = |text: &str, reason: String| {
        format!(
            "Error parsing reference: {} is not a valid repository/tag: {reason}",
            go::quote(text)
        )
    };
    let (source, target) = (call.arg(0), call.arg(1));
    let is_id = source.len() == 64 && source.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id && !source.starts_with("sha256:") {
        Reference::parse(source).map_err(|reason| invalid(source, reason))?;
    }
    let reference = Reference::parse(target).map_err(|reason| invalid(target, reason))?;
    if reference.digest.is_some() {
        return Err("refusing to create a tag with a digest reference".into());
    }
    let reference = reference.tagged();
    let query =
        Query::of("repo", reference.name()).with("tag", reference.tag.clone().unwrap_or_default());
    call.client()?.post(&format!("/images/{}/tag", escape(source, true)), &query).await?;
    Ok(())
}

async fn rmi(call: Call) -> Outcome {
    let force = call.flags.on("force");
    let mut query = Query::default();
    if force {
        query.add("force", "1");
    }
    if call.flags.on("no-prune") {
        query.add("noprune", "1");
    }
    for text in call.flags.list("platform") {
        query.add("platforms", Platform::parse(&text).map_err(|reason| reason.to_string())?.json());
    }
    let client = call.client()?;
    let (mut failures, mut fatal) = (Vec::new(), false);
    for name in &call.args {
        let answer = match client.delete(&format!("/images/{}", escape(name, true)), &query).await {
            Ok(response) => response.value().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(removed) => {
                for item in removed.items() {
                    match item.at("Deleted").text() {
                        "" => print::line(&format!("Untagged: {}", item.at("Untagged").text())),
                        id => print::line(&format!("Deleted: {id}")),
                    }
                }
            }
            Err(error) => {
                fatal |= !error.is_not_found();
                failures.push(error.to_string());
            }
        }
    }
    let message = failures.join("\n");
    match (failures.is_empty(), force && !fatal) {
        (true, _) => Ok(()),
        (false, true) => {
            print::err(&format!("{message}\n"));
            Ok(())
        }
        (false, false) => Err(Error::Message(message)),
    }
}

async fn save(call: Call) -> Outcome {
    let mut query = Query::default();
    for name in &call.args {
        query.add("names", name.as_str());
    }
    let platform = call.flags.text("platform");
    if !platform.is_empty() {
        let parsed =
            Platform::parse(platform).map_err(|reason| format!("invalid platform: {reason}"))?;
        query.add("platform", parsed.json());
    }
    let output = OutputFile::open(call.flags.text("output"), "failed to save image")?;
    let response =
        call.client()?.request((http::Method::GET, "/images/get"), &query, Body::Empty).await?;
    output.fill(response).await
}
