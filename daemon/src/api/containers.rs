//! `/containers/…`: everything but archive, export and changes.

mod attach;
mod create;
mod filter;
mod inspect;
mod list;
mod status;

use axum::{
    Router,
    extract::{Path, Request, State},
    response::Response,
    routing::{delete, get, post},
};
use cleat_proto::docker::container::{HostConfig, RestartPolicy, WeightDevice};
use http::StatusCode;
use http_body::Body as _;
use serde::{Deserialize, Serialize};

use super::{
    body::{self, Json},
    error::{Error, Result},
    hijack::Socket,
    query::Query,
    version::ApiVersion,
};
use crate::{
    container::{names::ContainerRef, signal},
    engine::{
        Engine, RemoveOptions, StopOptions, Timeout, UpdateRequest, WaitCondition, WaitOutcome,
    },
};

pub use list::{summaries, summary_sizes};

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/json", get(list::list))
        .route("/containers/create", post(create::create))
        .route("/containers/prune", post(filter::prune))
        .route("/containers/{name}", delete(remove))
        .route("/containers/{name}/json", get(inspect::inspect))
        .route("/containers/{name}/start", post(start))
        .route("/containers/{name}/stop", post(stop))
        .route("/containers/{name}/restart", post(restart))
        .route("/containers/{name}/kill", post(kill))
        .route("/containers/{name}/pause", post(pause))
        .route("/containers/{name}/unpause", post(unpause))
        .route("/containers/{name}/rename", post(rename))
        .route("/containers/{name}/wait", post(wait))
        .route("/containers/{name}/resize", post(resize))
        .route("/containers/{name}/update", post(update))
        .route("/containers/{name}/attach", post(attach::attach))
        .route("/containers/{name}/attach/ws", get(attach::attach_websocket))
}

/// A non-empty JSON object has at least as many bytes: a `HostConfig` at start is long gone, and old clients send `null`.
const NO_START_BODY: u64 = 7;

async fn start(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    request: Request,
) -> Result {
    if request.body().size_hint().exact().is_none_or(|size| size > NO_START_BODY) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.optional("checkpoint").is_some() {
        return Err(Error::not_implemented("starting from a checkpoint"));
    }
    engine.start(&ContainerRef(name)).await?;
    body::no_content()
}

fn stop_options(
    engine: &Engine,
    container: &ContainerRef,
    version: ApiVersion,
    query: &Query,
) -> Result<StopOptions, Error> {
    let timeout = query.int("t")?.map(Timeout::from_seconds);
    let signal = query.optional("signal").filter(|_| version.since(1, 42));
    if signal.is_some() {
        // That there is no such container comes before the wrong signal.
        engine.container(container)?;
    }
    Ok(StopOptions { timeout, signal: signal.map(signal_number).transpose()? })
}

async fn stop(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result {
    let container = ContainerRef(name);
    let options = stop_options(&engine, &container, version, &query)?;
    engine.stop(&container, options).await?;
    body::no_content()
}

async fn restart(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result {
    let container = ContainerRef(name);
    let options = stop_options(&engine, &container, version, &query)?;
    engine.restart(&container, options).await?;
    body::no_content()
}

async fn kill(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let within = |error: Error| error.within(format_args!("cannot kill container: {name}"));
    let signal = match query.optional("signal") {
        None => libc::SIGKILL,
        Some(signal) => killing(signal).map_err(within)?,
    };
    let killed = engine.kill(&ContainerRef(name.clone()), signal).await;
    killed.map_err(|error| within(error.into()))?;
    body::no_content()
}

/// As [`signal_number`]; of a number that Linux does not have, Docker says that.
fn killing(text: &str) -> Result<i32, Error> {
    match text.parse::<i32>() {
        Ok(number) if number != 0 && signal::parse(text).is_none() => {
            let why = format!("the linux daemon does not support signal {number}");
            Err(Error::invalid(why))
        }
        _ => signal_number(text),
    }
}

/// Reads `9`, `KILL`, `SIGKILL`, `RTMIN+3`, in any case.
///
/// # Errors
/// 400 `invalid signal: x`.
fn signal_number(text: &str) -> Result<i32, Error> {
    signal::parse(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

async fn pause(State(engine): State<Engine>, Path(name): Path<String>) -> Result {
    engine.pause(&ContainerRef(name)).await?;
    body::no_content()
}

async fn unpause(State(engine): State<Engine>, Path(name): Path<String>) -> Result {
    engine.unpause(&ContainerRef(name)).await?;
    body::no_content()
}

async fn rename(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let new = query.optional("name");
    let new = new.ok_or_else(|| Error::invalid("Neither old nor new names may be empty"))?;
    engine.rename(&ContainerRef(name), new).await?;
    body::no_content()
}

async fn remove(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let options = RemoveOptions {
        force: query.bool("force"),
        volumes: query.bool("v"),
        link: query.bool("link"),
    };
    engine.remove(&ContainerRef(name), options).await?;
    body::no_content()
}

async fn resize(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let (height, width) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
    engine.resize(&ContainerRef(name), height, width).await?;
    Ok(Response::default())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitResponse {
    status_code: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WaitError>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitError {
    message: String,
}

impl From<WaitOutcome> for WaitResponse {
    fn from(outcome: WaitOutcome) -> Self {
        Self {
            status_code: outcome.status,
            error: outcome.error.map(|message| WaitError { message }),
        }
    }
}

fn wait_condition(text: &str) -> Result<WaitCondition, Error> {
    match text {
        "" | "not-running" => Ok(WaitCondition::NotRunning),
        "next-exit" => Ok(WaitCondition::NextExit),
        "removed" => Ok(WaitCondition::Removed),
        other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
    }
}

/// The head goes out as soon as the wait is armed: `docker run` starts the container only then.
async fn wait(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
    socket: Socket,
) -> Result {
    let flushes = version.since(1, 30);
    let condition =
        if flushes { wait_condition(query.get("condition"))? } else { WaitCondition::NotRunning };
    let waiting = engine.wait(&ContainerRef(name), condition)?;
    if !flushes {
        return body::ok(&WaitResponse::from(waiting.outcome().await));
    }
    // Before 1.34 a failed removal was told by an empty answer.
    let silent = condition == WaitCondition::Removed && !version.since(1, 34);
    let (sender, stream) = body::channel(1);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = waiting.outcome() => outcome,
            () = socket.gone() => return,
            () = sender.closed() => return,
        };
        if !(silent && outcome.error.is_some()) {
            // A client that is gone does not want to know.
            let _ = sender.line(&WaitResponse::from(outcome)).await;
        }
    });
    Ok(body::stream("application/json", stream))
}

/// `HostConfig`'s resources and the restart policy; Go embeds them in one struct of this name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UpdateConfig {
    restart_policy: RestartPolicy,
    cpu_shares: i64,
    memory: i64,
    nano_cpus: i64,
    blkio_weight: u16,
    cpu_period: i64,
    cpu_quota: i64,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    memory_reservation: i64,
    memory_swap: i64,
    pids_limit: Option<i64>,
    // These are only checked: Docker applies none of them.
    memory_swappiness: Option<i64>,
    oom_kill_disable: Option<bool>,
    kernel_memory: i64,
    cpu_percent: i64,
    blkio_weight_device: Option<Vec<WeightDevice>>,
    #[serde(rename = "IOMaximumIOps")]
    io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    io_maximum_bandwidth: u64,
}

impl UpdateConfig {
    fn into_request(self, version: ApiVersion) -> UpdateRequest {
        let pids_limit = self.pids_limit.filter(|_| version.since(1, 40));
        let resources = HostConfig {
            cpu_shares: self.cpu_shares,
            memory: self.memory,
            nano_cpus: self.nano_cpus,
            blkio_weight: self.blkio_weight,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_realtime_period,
            cpu_realtime_runtime: self.cpu_realtime_runtime,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            memory_swappiness: self.memory_swappiness.filter(|swappiness| *swappiness != -1),
            oom_kill_disable: self.oom_kill_disable,
            kernel_memory: if version.since(1, 42) { 0 } else { self.kernel_memory },
            cpu_percent: self.cpu_percent,
            blkio_weight_device: self.blkio_weight_device,
            io_maximum_iops: self.io_maximum_iops,
            io_maximum_bandwidth: self.io_maximum_bandwidth,
            // Every number that is no limit is "unlimited".
            pids_limit: pids_limit.map(|limit| limit.max(0)),
            ..HostConfig::default()
        };
        UpdateRequest { resources, restart_policy: self.restart_policy }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateResponse {
    warnings: Option<Vec<String>>,
}

async fn update(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    version: ApiVersion,
    Json(config): Json<UpdateConfig>,
) -> Result {
    let warnings = engine.update(&ContainerRef(name), config.into_request(version)).await?;
    let warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    Ok(body::json(StatusCode::OK, &UpdateResponse { warnings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for wrong in ["", "0", "65", "-1", "NOSUCH", "RTMIN+31", "99999999999"] {
            assert_eq!(
                signal_number(wrong).unwrap_err().message(),
                format!("invalid signal: {wrong}")
            );
        }
    }

    #[test]
    fn a_number_that_is_no_signal_is_named() {
        assert_eq!(killing("9").unwrap(), 9);
        assert_eq!(
            killing("99").unwrap_err().message(),
            "the linux daemon does not support signal 99"
        );
        assert_eq!(killing("0").unwrap_err().message(), "invalid signal: 0");
    }

    #[test]
    fn wait_knows_three_conditions() {
        assert_eq!(wait_condition("removed").unwrap(), WaitCondition::Removed);
        assert_eq!(wait_condition("bad").unwrap_err().message(), "invalid condition: \"bad\"");
    }
}
