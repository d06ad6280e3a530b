//! A container in the foreground: attach, ask for its end, start it, and move its streams until it is over.

use super::{container_path, log, signal};
use crate::client::{Body, Client, Hijacked, Query, Response};
use crate::error::{Error, Outcome};
use crate::stream::{self, Ended, Plan};
use crate::terminal;
use crate::value::Value;

/// A container that is started in the foreground. The order of calls is docker's.
pub struct Foreground<'c> {
    /// The way to the daemon.
    pub client: &'c Client,
    /// Which container.
    pub id: &'c str,
    /// What of its streams is attached.
    pub plan: Plan,
    /// It removes itself: its end is known when it is gone.
    pub auto_remove: bool,
    /// What detaches us.
    pub detach_keys: &'c str,
}

impl Foreground<'_> {
    /// Starts it and stays until it ends or we detach. A start that fails is told as `failure` says.
    pub async fn run(self, failure: impl Fn(Error) -> Error) -> Outcome {
        let Self { client, id, plan, auto_remove, detach_keys } = self;
        let connection = attach(client, id, plan, detach_keys).await?;
        let mut exit = ExitStatus::watch(client, id, auto_remove).await;
        // Starting and printing go on side by side: a quick container may be over before `start` is answered.
        let streams = stream::run(connection, plan, detach_keys);
        tokio::pin!(streams);
        if let Err(error) = start(client, id).await {
            terminal::restore();
            if auto_remove {
                exit.code().await;
            }
            return Err(failure(error));
        }
        let path = format!("/containers/{id}");
        let resizing = signal::follow_size(client, &path);
        tokio::pin!(resizing);
        let ended = tokio::select! {
            biased;
            ended = &mut streams => ended,
            never = &mut resizing, if plan.tty && terminal::stdout_is() => match never {},
            code = exit.code(), if !plan.stdout && !plan.stderr => return status(code),
        };
        match ended {
            Ended::Detached => Ok(()),
            Ended::Failed(message) => Err(Error::Message(message)),
            Ended::Closed => status(exit.code().await),
        }
    }
}

/// Success, or a failure that only has an exit code.
pub fn status(code: i32) -> Outcome {
    if code == 0 { Ok(()) } else { Err(Error::exit(code)) }
}

/// Refuses to give a terminal's job to something else.
pub fn check_tty(stdin: bool, tty: bool) -> Outcome {
    if tty && stdin && !terminal::stdin_is() {
        return Err("the input device is not a TTY".into());
    }
    Ok(())
}

/// Starts a container.
pub async fn start(client: &Client, id: &str) -> Outcome {
    client.post(&container_path(id, "/start")?, &Query::default()).await?;
    Ok(())
}

/// Attaches to a container's streams.
pub async fn attach(client: &Client, id: &str, plan: Plan, detach_keys: &str) -> Outcome<Hijacked> {
    let mut query = Query::of("stream", "1");
    for (wanted, name) in [(plan.stdin, "stdin"), (plan.stdout, "stdout"), (plan.stderr, "stderr")]
    {
        if wanted {
            query.add(name, "1");
        }
    }
    let query = query.with_some("detachKeys", detach_keys);
    let path = container_path(id, "/attach")?;
    Ok(client.hijack(&path, &query, Body::Empty).await?)
}

/// The exit status of a container, asked for before it starts.
struct ExitStatus(Result<Response, String>);

impl ExitStatus {
    /// Asks. The daemon answers with a head at once, so that nothing can be missed.
    async fn watch(client: &Client, id: &str, removed: bool) -> Self {
        let query = Query::of("condition", if removed { "removed" } else { "next-exit" });
        let path = format!("/containers/{id}/wait");
        Self(client.post(&path, &query).await.map_err(|error| error.to_string()))
    }

    /// Waits for it.
    async fn code(&mut self) -> i32 {
        let response = std::mem::replace(&mut self.0, Err("already asked".into()));
        let answer = match response {
            Ok(response) => response.value().await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if *answer.at("Error") != Value::Nil => {
                let reason = answer.at("Error").at("Message").text();
                log("error", &format!("Error waiting for container: {reason}"));
                125
            }
            Ok(answer) => answer.at("StatusCode").int() as i32,
            Err(error) => {
                log("error", &format!("error waiting for container: {error}"));
                125
            }
        }
    }
}
