//! `attach`.

use super::foreground::{attach, check_tty, status};
use super::signal::{self, OnInterrupt, Proxy};
use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::{Client, Query, Response};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag};
use crate::stream::{self, Ended, Plan};
use crate::terminal;
use crate::value::Value;

pub static ATTACH: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach to the streams of a running container",
    names: "container attach, attach",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[
        flag("detach-keys", Kind::Text, "Keys that detach from the container"),
        flag("no-stdin", Kind::Bool, "Do not attach stdin"),
        flag("sig-proxy", Kind::Bool, "Pass signals on to the container").default("true"),
    ]],
    run: handler!(run),
};

/// Looks at the container, and refuses to attach to one that does not run.
async fn running(client: &Client, name: &str) -> Outcome<Value> {
    let container = client.get(&container_path(name, "/json")?, &Query::default()).await?;
    let state = container.at("State");
    if !state.at("Running").bool() {
        return Err("You cannot attach to a stopped container, start it first".into());
    }
    if state.at("Paused").bool() {
        return Err("You cannot attach to a paused container, unpause it first".into());
    }
    if state.at("Restarting").bool() {
        return Err("You cannot attach to a restarting container, wait until it is running".into());
    }
    Ok(container)
}

async fn run(call: Call) -> Outcome {
    let client = call.client()?;
    let name = call.arg(0);
    let wait = client.post(&container_path(name, "/wait")?, &Query::default()).await;
    let container = running(client, name).await?;
    let no_stdin = call.flags.on("no-stdin");
    let config = container.at("Config");
    let tty = config.at("Tty").bool();
    check_tty(!no_stdin, tty)?;
    let plan =
        Plan { stdin: !no_stdin && config.at("OpenStdin").bool(), stdout: true, stderr: true, tty };
    let detach_keys = call.detach_keys();
    let proxy = (call.flags.on("sig-proxy") && !tty).then(Proxy::new);
    let flow = follow(client, name, plan, detach_keys, wait);
    signal::set_on_interrupt(OnInterrupt::GoOn);
    signal::forwarded(proxy, client, name, flow).await
}

async fn follow(
    client: &Client,
    name: &str,
    plan: Plan,
    detach_keys: &str,
    wait: Result<Response, crate::client::Error>,
) -> Outcome {
    let connection = attach(client, name, plan, detach_keys).await?;
    running(client, name).await?;
    let path = container_path(name, "")?;
    let follows_size = plan.tty && terminal::stdout_is();
    if follows_size && let Some((columns, rows)) = terminal::size(std::io::stdout()) {
        // A program redraws only when the size changes: one too large first, then the right one.
        let _ = signal::resize_to(client, &path, columns + 1, rows + 1).await;
    }
    let ended = tokio::select! {
        biased;
        ended = stream::run(connection, plan, detach_keys) => ended,
        never = signal::follow_size(client, &path), if follows_size => match never {},
    };
    match ended {
        Ended::Detached => Err("read escape sequence".into()),
        Ended::Failed(message) => Err(Error::Message(message)),
        Ended::Closed => {
            let answer = wait?.value().await?;
            if *answer.at("Error") != Value::Nil {
                return Err(Error::Message(answer.at("Error").at("Message").text().to_owned()));
            }
            status(answer.at("StatusCode").int() as i32)
        }
    }
}
