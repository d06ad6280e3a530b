//! `start`.

use super::foreground::{Foreground, start};
use super::signal::{self, Proxy};
use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::{Client, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::print;
use crate::stream::Plan;

pub static START: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start stopped containers",
    names: "container start, start",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        short('a', "attach", Kind::Bool, "Attach stdout and stderr, and pass signals on"),
        flag("checkpoint", Kind::Text, "Checkpoint to go on from").hidden(),
        flag("checkpoint-dir", Kind::Text, "Directory of the checkpoints").hidden(),
        flag("detach-keys", Kind::Text, "Keys that detach from the container"),
        short('i', "interactive", Kind::Bool, "Attach stdin"),
    ]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let client = call.client()?;
    let checkpoint = call.flags.text("checkpoint");
    if call.flags.on("attach") || call.flags.on("interactive") {
        if call.args.len() > 1 {
            return Err("you cannot start and attach multiple containers at once".into());
        }
        return attached(&call, client).await;
    }
    if !checkpoint.is_empty() {
        if call.args.len() > 1 {
            return Err("you cannot restore multiple containers at once".into());
        }
        let query = Query::of("checkpoint", checkpoint)
            .with_some("checkpoint-dir", call.flags.text("checkpoint-dir"));
        client.post(&container_path(call.arg(0), "/start")?, &query).await?;
        return Ok(());
    }
    let mut failed = Vec::new();
    for name in &call.args {
        match start(client, name).await {
            Ok(()) => print::line(name),
            Err(error) => {
                print::err(&format!("{error}\n"));
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Message(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn attached(call: &Call, client: &Client) -> Outcome {
    let container = client.get(&container_path(call.arg(0), "/json")?, &Query::default()).await?;
    let id = container.at("Id").text().to_owned();
    let config = container.at("Config");
    let plan = Plan {
        stdin: call.flags.on("interactive") && config.at("OpenStdin").bool(),
        stdout: true,
        stderr: true,
        tty: config.at("Tty").bool(),
    };
    let auto_remove = container.at("HostConfig").at("AutoRemove").bool();
    let detach_keys = call.detach_keys();
    let proxy = (!plan.tty).then(Proxy::new);
    let attached =
        Foreground { client, id: &id, plan, auto_remove, detach_keys }.run(|error| error);
    signal::forwarded(proxy, client, &id, attached).await
}
