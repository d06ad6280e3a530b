//! The commands, a file for each, and the words that lead to them.

mod attach;
mod check;
mod commit;
mod container;
mod container_flags;
mod context;
mod context_transfer;
mod cp;
mod df;
mod diff;
mod events;
mod exec;
mod foreground;
mod history;
mod image;
mod import;
mod info;
mod inspect;
mod list;
mod list_containers;
mod list_images;
mod login;
mod logs;
mod network;
mod port;
mod prune;
mod pull;
mod run;
mod search;
pub mod signal;
mod start;
mod stats;
mod top;
mod unsupported;
mod update;
pub mod version;
mod volume;
mod wait;

use std::future::Future;

use futures_util::stream::{self, StreamExt};

use crate::cli::{Call, Entry, entry, entry_also, group};
use crate::client::{Error as ClientError, Query};
use crate::error::{Error, Outcome};
use crate::opts::filter::Filters;
use crate::print;

/// Makes a command's `run` out of an async function.
macro_rules! handler {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}
use handler;

/// The words after the program's name.
pub static ENTRIES: &[Entry] = &[
    entry("attach", &attach::ATTACH),
    entry("build", &unsupported::BUILD),
    group("builder", "Builds and their cache", &[entry("build", &unsupported::BUILD)]),
    entry("commit", &commit::COMMIT),
    group(
        "container",
        "Containers, one by one and all at once",
        &[
            entry("attach", &attach::ATTACH),
            entry("commit", &commit::COMMIT),
            entry("cp", &cp::CP),
            entry("create", &run::CREATE),
            entry("diff", &diff::DIFF),
            entry("exec", &exec::EXEC),
            entry("export", &container::EXPORT),
            entry("inspect", &inspect::CONTAINER),
            entry("kill", &container::KILL),
            entry("logs", &logs::LOGS),
            entry_also("ls", &["ps", "list"], &list_containers::PS),
            entry("pause", &container::PAUSE),
            entry("port", &port::PORT),
            entry("prune", &prune::CONTAINERS),
            entry("rename", &container::RENAME),
            entry("restart", &container::RESTART),
            entry_also("rm", &["remove"], &container::RM),
            entry("run", &run::RUN),
            entry("start", &start::START),
            entry("stats", &stats::STATS),
            entry("stop", &container::STOP),
            entry("top", &top::TOP),
            entry("unpause", &container::UNPAUSE),
            entry("update", &update::UPDATE),
            entry("wait", &wait::WAIT),
        ],
    ),
    group(
        "context",
        "Named addresses of daemons",
        &[
            entry("create", &context::CREATE),
            entry("export", &context_transfer::EXPORT),
            entry("import", &context_transfer::IMPORT),
            entry("inspect", &context::INSPECT),
            entry_also("ls", &["list"], &context::LS),
            entry_also("rm", &["remove"], &context::RM),
            entry("show", &context::SHOW),
            entry("update", &context::UPDATE),
            entry("use", &context::USE),
        ],
    ),
    entry("cp", &cp::CP),
    entry("create", &run::CREATE),
    entry("diff", &diff::DIFF),
    entry("events", &events::EVENTS),
    entry("exec", &exec::EXEC),
    entry("export", &container::EXPORT),
    entry("history", &history::HISTORY),
    group(
        "image",
        "Images",
        &[
            entry("build", &unsupported::BUILD),
            entry("check", &check::CHECK),
            entry("history", &history::HISTORY),
            entry("import", &import::IMPORT),
            entry("inspect", &inspect::IMAGE),
            entry("load", &import::LOAD),
            entry_also("ls", &["list"], &list_images::IMAGES),
            entry("prune", &prune::IMAGES),
            entry("pull", &pull::PULL),
            entry("push", &pull::PUSH),
            entry_also("rm", &["rmi", "remove"], &image::RMI),
            entry("save", &image::SAVE),
            entry("tag", &image::TAG),
        ],
    ),
    entry("images", &list_images::IMAGES),
    entry("import", &import::IMPORT),
    entry("info", &info::INFO),
    entry("inspect", &inspect::ANY),
    entry("kill", &container::KILL),
    entry("load", &import::LOAD),
    entry("login", &login::LOGIN),
    entry("logout", &login::LOGOUT),
    entry("logs", &logs::LOGS),
    group(
        "network",
        "Networks",
        &[
            entry("connect", &network::CONNECT),
            entry("create", &network::CREATE),
            entry("disconnect", &network::DISCONNECT),
            entry("inspect", &inspect::NETWORK),
            entry_also("ls", &["list"], &network::LS),
            entry("prune", &prune::NETWORKS),
            entry_also("rm", &["remove"], &network::RM),
        ],
    ),
    entry("pause", &container::PAUSE),
    entry("port", &port::PORT),
    entry("ps", &list_containers::PS),
    entry("pull", &pull::PULL),
    entry("push", &pull::PUSH),
    entry("rename", &container::RENAME),
    entry("restart", &container::RESTART),
    entry("rm", &container::RM),
    entry("rmi", &image::RMI),
    entry("run", &run::RUN),
    entry("save", &image::SAVE),
    entry("search", &search::SEARCH),
    entry("start", &start::START),
    entry("stats", &stats::STATS),
    entry("stop", &container::STOP),
    group(
        "system",
        "The daemon as a whole",
        &[
            entry("df", &df::DF),
            entry("events", &events::EVENTS),
            entry("info", &info::INFO),
            entry("prune", &prune::SYSTEM),
        ],
    ),
    entry("tag", &image::TAG),
    entry("top", &top::TOP),
    entry("unpause", &container::UNPAUSE),
    entry("update", &update::UPDATE),
    entry("version", &version::VERSION),
    group(
        "volume",
        "Volumes",
        &[
            entry("create", &volume::CREATE),
            entry("inspect", &inspect::VOLUME),
            entry_also("ls", &["list"], &volume::LS),
            entry("prune", &prune::VOLUMES),
            entry_also("rm", &["remove"], &volume::RM),
        ],
    ),
    entry("wait", &wait::WAIT),
];

/// How many requests go out at once for commands with several arguments.
const PARALLEL: usize = 50;

/// Does something to each argument, several at once; what came of it in the order given.
async fn outcomes<F, R>(call: &Call, operation: F) -> Vec<Outcome>
where
    F: Fn(String) -> R,
    R: Future<Output = Outcome>,
{
    stream::iter(call.args.clone()).map(operation).buffered(PARALLEL).collect().await
}

/// Does something to each argument, several at once, and prints those that worked in the order given. The failures are
/// joined in one message.
async fn each<F, R>(call: &Call, operation: F) -> Outcome
where
    F: Fn(String) -> R,
    R: Future<Output = Outcome>,
{
    let mut failures = Vec::new();
    for (name, outcome) in call.args.iter().zip(outcomes(call, operation).await) {
        match outcome {
            Ok(()) => print::line(name),
            Err(error) => failures.push(error.to_string()),
        }
    }
    joined(failures)
}

/// Does something to each argument, one after the other, and prints what each answers. The failures are joined in one message.
async fn one_by_one(call: &Call, operation: impl AsyncFn(&str) -> Outcome<String>) -> Outcome {
    let mut failures = Vec::new();
    for name in &call.args {
        match operation(name).await {
            Ok(line) => print::line(&line),
            Err(error) => failures.push(error.to_string()),
        }
    }
    joined(failures)
}

/// One failure of many: their texts, a line each.
fn joined(failures: Vec<String>) -> Outcome {
    if failures.is_empty() { Ok(()) } else { Err(Error::Message(failures.join("\n"))) }
}

/// A warning of the client itself, in the form docker's logger gives it.
pub fn warn(message: &str) {
    log("warning", message);
}

/// A line of the client's log: for terminals `WARN[0000] …`, otherwise key and value.
pub fn log(level: &str, message: &str) {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        let (name, color) = if level == "error" { ("ERRO", 31) } else { ("WARN", 33) };
        print::err(&format!("\x1b[{color}m{name}\x1b[0m[0000] {message:<44} \n"));
        return;
    }
    let time = crate::output::time::rfc3339(crate::output::time::now());
    print::err(&format!("time=\"{time}\" level={level} msg={}\n", crate::go::quote(message)));
}

/// The query of a list: its filters, if there are any.
fn filter_query(filters: &Filters) -> Query {
    if filters.is_empty() { Query::default() } else { Query::of("filters", filters.json()) }
}

/// The path of a container's resource: names go into the path as they are typed.
fn container_path(name: &str, rest: &str) -> Outcome<String> {
    let name = name.trim();
    if name.is_empty() {
        return Err("invalid container name or ID: value is empty".into());
    }
    Ok(format!("/containers/{}{rest}", crate::client::escape(name.trim_start_matches('/'), true)))
}

/// Asks on stdout whether to go on; only `y` does.
fn confirm(question: &str) -> Outcome<bool> {
    print::out(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let count = std::io::stdin().read_line(&mut answer)?;
    if count == 0 {
        print::out("\n");
    }
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// The first twelve digits of an id, without its algorithm.
fn short_id(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

/// Whether a failure is the daemon's "no such thing".
fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Client(error) if ClientError::is_not_found(error))
}
