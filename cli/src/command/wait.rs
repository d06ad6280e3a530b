//! `wait`.

use super::{container_path, handler, joined};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::print;

pub static WAIT: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Wait until containers stop, and print their exit codes",
    names: "container wait, wait",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let client = call.client()?;
    let mut failures = Vec::new();
    for name in &call.args {
        let answer = match client.post(&container_path(name, "/wait")?, &Query::default()).await {
            Ok(response) => response.value().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => print::line(&answer.at("StatusCode").int().to_string()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    joined(failures)
}
