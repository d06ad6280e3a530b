//! `/volumes/…`.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use cleat_proto::{
    docker::volume::{CreateOptions, List, Pruned, Volume},
    kind::Kind,
};
use http::StatusCode;

use super::{
    body::{self, Json},
    error::{Error, Result},
    query::Query,
    time,
    version::ApiVersion,
};
use crate::{
    engine::Engine,
    volume::{self, New},
};

const NANOS: i64 = 1_000_000_000;

/// The routes.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).put(update).delete(remove))
}

/// Shows a volume.
pub fn shown(engine: &Engine, volume: volume::Volume) -> Volume {
    Volume {
        created_at: time::rfc3339_nano(volume.created_at_nanos / NANOS * NANOS),
        driver: volume.driver,
        labels: volume.labels,
        mountpoint: engine.volumes().mountpoint(&volume.name).display().to_string(),
        name: volume.name,
        options: volume.options,
        scope: "local".to_owned(),
        usage_data: None,
    }
}

async fn list(State(engine): State<Engine>, query: Query) -> Result {
    let filters = query.filters().map_err(|error| error.within("error reading volume filters"))?;
    filters.only(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.bool("dangling")?;
    let volumes = engine
        .volumes()
        .list()
        .into_iter()
        .filter(|(volume, users)| {
            dangling.is_none_or(|dangling| dangling == users.is_empty())
                && filters.exact("driver", &volume.driver)
                && filters.labels("label", volume.labels.as_ref())
                && filters.any("name", |part| volume.name.contains(part))
        })
        .map(|(volume, _)| shown(&engine, volume))
        .collect();
    body::ok(&List { volumes, warnings: None })
}

async fn create(State(engine): State<Engine>, Json(options): Json<CreateOptions>) -> Result {
    if options.cluster_volume_spec.is_some() {
        return Err(Error::not_implemented("a cluster volume"));
    }
    let CreateOptions { name, driver, driver_opts, labels, .. } = options;
    let new = New { name, driver, options: driver_opts, labels };
    let volume = engine.create_volume(new).await?;
    Ok::<Response, _>(body::json(StatusCode::CREATED, &shown(&engine, volume)))
}

async fn inspect(State(engine): State<Engine>, Path(name): Path<String>) -> Result {
    let volume = engine.volumes().get(&name).map_err(crate::engine::Error::from)?;
    body::ok(&shown(&engine, volume))
}

async fn update() -> Error {
    Error::new(
        Kind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

async fn remove(State(engine): State<Engine>, Path(name): Path<String>, query: Query) -> Result {
    engine.remove_volume(&name, query.bool("force")).await?;
    body::no_content()
}

async fn prune(State(engine): State<Engine>, version: ApiVersion, query: Query) -> Result {
    let filters = query.filters()?;
    filters.only(&["label", "label!", "all"])?;
    // Since 1.42 only anonymous volumes go, unless all are asked for.
    let all = match filters.get("all") {
        [] => !version.since(1, 42),
        [one] => parse_go_bool(one).ok_or_else(|| {
            let why = format!("strconv.ParseBool: parsing {one:?}: invalid syntax");
            Error::invalid(format!("invalid filter 'all': {why}"))
        })?,
        several => {
            let several = several.join(" ");
            return Err(Error::invalid(format!("invalid filter 'all=[{several}]'")));
        }
    };
    let wanted = |volume: &volume::Volume| {
        (all || volume.is_anonymous())
            && filters.labels("label", volume.labels.as_ref())
            && filters.no_labels("label!", volume.labels.as_ref())
    };
    let pruned = engine.prune_volumes(wanted).await?;
    body::ok(&Pruned { volumes_deleted: pruned.deleted, space_reclaimed: pruned.reclaimed_bytes })
}

/// Go's `strconv.ParseBool`.
fn parse_go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
