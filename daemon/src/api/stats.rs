//! `GET /containers/{name}/stats` and `/top`.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use serde::Serialize;

use super::{
    body::{self, Gone, Sender},
    error::{Error, Result},
    hijack::Socket,
    query::Query,
    version::ApiVersion,
};
use crate::{
    container::names::ContainerRef,
    engine::{Engine, stats::Sampler},
};

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/containers/{name}/stats", get(stats))
        .route("/containers/{name}/top", get(top))
}

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

async fn stats(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
    socket: Socket,
) -> Result {
    let streams = query.bool_or("stream", true);
    let one_shot = version.since(1, 41) && query.bool("one-shot");
    let mut sampler = engine.stats(&ContainerRef(name))?;
    if streams && one_shot {
        return Err(Error::invalid("cannot have stream=true and one-shot=true"));
    }
    if !streams && !sampler.is_running() {
        return body::ok(&sampler.nothing());
    }
    if one_shot {
        let mut stats = sampler.sample().await?;
        stats.forget_container();
        return body::ok(&stats);
    }
    let (sender, stream) = body::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            // However it ends, there is no one left to tell.
            _ = follow(&mut sampler, streams, &sender) => {}
            () = sender.closed() => {}
            () = socket.gone() => {}
        }
    });
    Ok(body::stream("application/json", stream))
}

async fn follow(sampler: &mut Sampler, streams: bool, sender: &Sender) -> Result<(), Gone> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        ticks.tick().await;
        if sampler.is_gone() {
            return Ok(());
        }
        let Ok(stats) = sampler.sample().await else { return Ok(()) };
        // Without a stream the first only serves as what the second is compared with.
        if streams || !is_first {
            sender.line(&stats).await?;
        }
        if !(streams || is_first) {
            return Ok(());
        }
        is_first = false;
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TopResponse {
    processes: Vec<Vec<String>>,
    titles: Vec<String>,
}

async fn top(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    let table = engine.top(&ContainerRef(name), query.get("ps_args")).await?;
    body::ok(&TopResponse { processes: table.processes, titles: table.titles })
}
