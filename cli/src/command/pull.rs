//! `pull` and `push`.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::credentials::registry_auth;
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::opts::reference::Reference;
use crate::output::progress::{self, Sink};
use crate::print;
use cleat_proto::platform::Platform;

static FLAGS: &[Flag] = &[
    short('a', "all-tags", Kind::Bool, "Take all tags of the repository"),
    flag("disable-content-trust", Kind::Bool, "Do not verify the image").default("true"),
    flag("platform", Kind::Text, "Platform of the image, where it has several").since("1.32"),
    short('q', "quiet", Kind::Bool, "Print the result only"),
];

pub static PULL: Command = Command {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Fetch an image from a registry",
    names: "image pull, pull",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[FLAGS, &[flag("all-platforms", Kind::Bool, "Take all platforms of the image")]],
    run: handler!(run),
};

pub static PUSH: Command = Command {
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Send an image to a registry",
    names: "image push, push",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[FLAGS],
    run: handler!(push),
};

async fn run(call: Call) -> Outcome {
    let (all, quiet) = (call.flags.on("all-tags"), call.flags.on("quiet"));
    let reference = Reference::parse(call.arg(0))?;
    if all && !reference.is_name_only() {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    let untagged = reference.is_name_only();
    let reference = if all { reference } else { reference.tagged() };
    if untagged && !all && !quiet {
        print::line("Using default tag: latest");
    }
    let sink = if quiet { Sink::Nowhere } else { Sink::Stdout };
    let wanted = match call.flags.on("all-platforms") {
        true if !call.flags.text("platform").is_empty() => {
            return Err("--all-platforms and --platform are mutually exclusive".into());
        }
        true => Platforms::All,
        false => Platforms::One(super::run::platform(&call)),
    };
    fetch(&call, &reference, all, &wanted, sink).await?;
    let mut name = reference.name();
    if let Some(tag) = &reference.tag {
        name = format!("{name}:{tag}");
    }
    if let Some(digest) = &reference.digest {
        name = format!("{name}@{digest}");
    }
    print::line(&name);
    Ok(())
}

/// Pulls the image of a container to be, with its progress on stderr.
pub async fn pull(call: &Call, image: &str, platform: &str, quiet: bool) -> Outcome {
    let reference = Reference::parse(image)?.tagged();
    let sink = if quiet { Sink::Nowhere } else { Sink::Stderr };
    fetch(call, &reference, false, &Platforms::One(platform.to_owned()), sink).await
}

/// Which images of an index are wanted.
enum Platforms {
    /// That of one platform, or of the daemon's if it is empty.
    One(String),
    All,
}

async fn fetch(
    call: &Call,
    reference: &Reference,
    all: bool,
    platforms: &Platforms,
    sink: Sink,
) -> Outcome {
    let mut query = Query::of("fromImage", reference.name());
    if !all {
        let tag = reference.digest.as_ref().or(reference.tag.as_ref());
        query.add("tag", tag.cloned().unwrap_or_default());
    }
    let query = match platforms {
        Platforms::One(platform) => query.with_some("platform", &platform.to_lowercase()),
        // Our daemon's own word; others take it for nothing.
        Platforms::All => query.with("allPlatforms", "1"),
    };
    let headers = [("X-Registry-Auth", registry_auth(&call.app, &reference.domain))];
    let route = (http::Method::POST, "/images/create");
    let response = call.client()?.request_with(route, &query, &headers, Body::Empty).await?;
    progress::display(response, sink).await
}

async fn push(call: Call) -> Outcome {
    let all = call.flags.on("all-tags");
    let reference = Reference::parse(call.arg(0))?;
    if all && !reference.is_name_only() {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    let untagged = reference.is_name_only();
    let reference = if all { reference } else { reference.tagged() };
    if untagged && !all && !call.flags.on("quiet") {
        print::line("Using default tag: latest");
    }
    if reference.digest.is_some() {
        return Err("cannot push a digest reference".into());
    }
    let mut query = Query::default();
    if let Some(tag) = &reference.tag {
        query.add("tag", tag.as_str());
    }
    let platform = call.flags.text("platform");
    if !platform.is_empty() {
        query.add(
            "platform",
            Platform::parse(platform)
                .map_err(|reason| format!("invalid platform: {reason}"))?
                .json(),
        );
    }
    let headers = [("X-Registry-Auth", registry_auth(&call.app, &reference.domain))];
    let path = format!("/images/{}/push", reference.name());
    let route = (http::Method::POST, path.as_str());
    let response = call
        .client()?
        .request_with(route, &query, &headers, Body::Empty)
        .await
        .map_err(Error::from)?;
    let quiet = call.flags.on("quiet");
    progress::display(response, if quiet { Sink::Nowhere } else { Sink::Stdout }).await?;
    if quiet {
        let tag = reference.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        print::line(&format!("{}{tag}", reference.name()));
    }
    Ok(())
}
