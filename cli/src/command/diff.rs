//! `diff`.

use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::print;

pub static DIFF: Command = Command {
    usage: "CONTAINER",
    about: "List what a container has changed in its filesystem",
    names: "container diff, diff",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let changes =
        call.client()?.get(&container_path(call.arg(0), "/changes")?, &Query::default()).await?;
    let mut text = String::new();
    for change in changes.items() {
        let kind = match change.at("Kind").int() {
            0 => "C",
            1 => "A",
            2 => "D",
            _ => "",
        };
        text.push_str(&format!("{kind} {}\n", change.at("Path").text()));
    }
    print::out(&text);
    Ok(())
}
