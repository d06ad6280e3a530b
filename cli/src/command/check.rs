//! `image check`: our own; Docker has no such command.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query};
use crate::credentials::registry_config;
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag};
use crate::print;
use crate::value::Value;

pub static CHECK: Command = Command {
    usage: "[OPTIONS]",
    about: "Verify all images against their digests",
    names: "image check",
    arity: Arity::None,
    options_first: false,
    flags: &[&[flag(
        "repair",
        Kind::Bool,
        "Fetch what is damaged again, or remove it where no registry has it",
    )]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let repair = call.flags.on("repair");
    let method = if repair { http::Method::POST } else { http::Method::GET };
    let headers = match repair {
        true => vec![("X-Registry-Config", registry_config(&call.app))],
        false => Vec::new(),
    };
    let route = (method, "/cleat/images/check");
    let client = call.client()?;
    let response = client.request_with(route, &Query::default(), &headers, Body::Empty).await?;
    let mut chunks = response.chunks();
    let (mut all, mut bad) = (0, 0);
    while let Some(image) = chunks.next_value().await? {
        if !image.at("error").text().is_empty() {
            return Err(Error::Message(image.at("error").text().to_owned()));
        }
        all += 1;
        bad += usize::from(matches!(image.at("Outcome").text(), "damaged" | "kept"));
        show(&image);
    }
    match bad {
        0 => {
            print::line(&format!("Images checked: {all}"));
            Ok(())
        }
        bad => Err(Error::Message(format!("{bad} of {all} images cannot be used"))),
    }
}

/// An image in a line, and each problem in one of its own.
fn show(image: &Value) {
    let outcome = image.at("Outcome").text();
    let id = image.at("Id").text();
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    let names: Vec<&str> = image.at("References").items().iter().map(Value::text).collect();
    let names = if names.is_empty() { "<none>".to_owned() } else { names.join(", ") };
    print::line(&format!("{}  {outcome}  {names}", id.get(..12).unwrap_or(id)));
    for problem in image.at("Problems").items() {
        print::line(&format!("  {}", problem.text()));
    }
    let message = image.at("Message").text();
    if !message.is_empty() {
        print::line(&format!("  {message}"));
    }
}
