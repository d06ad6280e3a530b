//! `top`.

use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::output::table;
use crate::print;
use crate::value::Value;

pub static TOP: Command = Command {
    usage: "CONTAINER [ps OPTIONS]",
    about: "List the processes of a container",
    names: "container top, top",
    arity: Arity::AtLeast(1),
    options_first: true,
    flags: &[],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let query = Query::default().with_some("ps_args", &call.args[1..].join(" "));
    let answer = call.client()?.get(&container_path(call.arg(0), "/top")?, &query).await?;
    let row =
        |cells: &Value| cells.items().iter().map(Value::text).collect::<Vec<_>>().join("\t") + "\n";
    let mut text = row(answer.at("Titles"));
    for process in answer.at("Processes").items() {
        text.push_str(&row(process));
    }
    print::out(&table::align_with(&text, 20, 3));
    Ok(())
}
