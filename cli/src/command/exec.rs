//! `exec`.

use serde::Serialize;

use super::foreground::{check_tty, status};
use super::{container_path, handler, signal};
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Client, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, flag, short};
use crate::opts::env;
use crate::stream::{self, Ended, Plan};
use crate::terminal;

pub static EXEC: Command = Command {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Run another command in a running container",
    names: "container exec, exec",
    arity: Arity::AtLeast(2),
    options_first: true,
    flags: &[&[
        short('d', "detach", Kind::Bool, "Leave the command in the background"),
        flag("detach-keys", Kind::Text, "Keys that detach from the command"),
        short('e', "env", Kind::Env, "Environment variable").since("1.25"),
        flag("env-file", Kind::List, "File with environment variables").since("1.25"),
        short('i', "interactive", Kind::Bool, "Attach stdin"),
        flag("privileged", Kind::Bool, "Give it all privileges"),
        short('t', "tty", Kind::Bool, "Give it a terminal"),
        short('u', "user", Kind::Text, "User, and group (name|uid[:group|gid])"),
        short('w', "workdir", Kind::Text, "Working directory").since("1.35"),
    ]],
    run: handler!(run),
};

/// The body of `POST /containers/ID/exec`. (Engine API, ContainerExec.)
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExecRequest {
    user: String,
    privileged: bool,
    tty: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    console_size: Option<[u32; 2]>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    detach: bool,
    detach_keys: String,
    env: Option<Vec<String>>,
    working_dir: String,
    cmd: Vec<String>,
}

/// The body of `POST /exec/ID/start`. (Engine API, ExecStart.)
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StartRequest {
    detach: bool,
    tty: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    console_size: Option<[u32; 2]>,
}

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let environment =
        env::read(&flags.list("env-file"), &flags.list("env"), env::from_environment)?;
    let client = call.client()?;
    client.get(&container_path(call.arg(0), "/json")?, &Query::default()).await?;
    let (detach, tty) = (flags.on("detach"), flags.on("tty"));
    let stdin = flags.on("interactive") && !detach;
    if !detach {
        check_tty(stdin, tty)?;
    }
    let console_size = tty.then(terminal::console_size);
    let detach_keys = call.detach_keys().to_owned();
    let request = ExecRequest {
        user: flags.text("user").into(),
        privileged: flags.on("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stderr: !detach,
        attach_stdout: !detach,
        detach,
        detach_keys: detach_keys.clone(),
        env: environment,
        working_dir: flags.text("workdir").into(),
        cmd: call.args[1..].to_vec(),
    };
    let path = container_path(call.arg(0), "/exec")?;
    let created = client.post_json_for(&path, &Query::default(), &request).await?;
    let id = created.at("Id").text();
    if id.is_empty() {
        return Err("exec ID empty".into());
    }
    let start = StartRequest { detach, tty, console_size };
    if detach {
        client.post_json(&format!("/exec/{id}/start"), &Query::default(), &start).await?;
        return Ok(());
    }
    let plan = Plan { stdin, stdout: true, stderr: true, tty };
    attached(client, id, &start, plan, &detach_keys).await
}

async fn attached(
    client: &Client,
    id: &str,
    start: &StartRequest,
    plan: Plan,
    detach_keys: &str,
) -> Outcome {
    let path = format!("/exec/{id}");
    signal::set_on_interrupt(signal::OnInterrupt::EndQuietly);
    let connection =
        client.hijack(&format!("{path}/start"), &Query::default(), Body::json(start)).await?;
    let ended = tokio::select! {
        biased;
        ended = stream::run(connection, plan, detach_keys) => ended,
        never = signal::follow_size(client, &path), if plan.tty && terminal::stdin_is() => match never {},
    };
    match ended {
        Ended::Detached => return Err("read escape sequence".into()),
        Ended::Failed(message) => return Err(Error::Message(message)),
        Ended::Closed => {}
    }
    match client.get(&format!("{path}/json"), &Query::default()).await {
        Ok(answer) => status(answer.at("ExitCode").int() as i32),
        Err(error) if error.is_connection() => Err(Error::exit(255)),
        Err(error) => Err(error.into()),
    }
}
