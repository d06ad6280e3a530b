//! `wait`.

use super::{container_path, handler, one_by_one};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;

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
    one_by_one(&call, async |name| {
        let path = container_path(name, "/wait")?;
        let answer = client.post_for(&path, &Query::default()).await?;
        Ok(answer.at("StatusCode").int().to_string())
    })
    .await
}
