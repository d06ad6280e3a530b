//! `GET /system/df`: what images, containers and volumes take on disk. Source: Engine API v1.51, SystemDataUsage.

use std::collections::BTreeMap;

use axum::{Router, extract::State, routing::get};
use cleat_proto::docker::image::ImageSummary;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    body, containers,
    error::{Error, Result},
    images,
    query::Query,
    time,
    version::ApiVersion,
};
use crate::engine::Engine;

/// The route.
pub fn routes() -> Router<Engine> {
    Router::new().route("/system/df", get(df))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsage {
    layers_size: u64,
    images: Option<Vec<ImageSummary>>,
    containers: Option<Box<RawValue>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<[(); 0]>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    created_at: String,
    driver: String,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
    scope: &'static str,
    usage_data: UsageData,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UsageData {
    ref_count: usize,
    size: u64,
}

/// Which parts a client asks for; none is all.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    containers: bool,
    images: bool,
    volumes: bool,
    build_cache: bool,
}

impl Wanted {
    fn new<'a>(types: impl Iterator<Item = &'a str>, version: ApiVersion) -> Result<Self, Error> {
        let mut wanted =
            Self { containers: false, images: false, volumes: false, build_cache: false };
        let mut has_any = false;
        for name in types.filter(|_| version.since(1, 42)) {
            has_any = true;
            match name {
                "container" => wanted.containers = true,
                "image" => wanted.images = true,
                "volume" => wanted.volumes = true,
                "build-cache" => wanted.build_cache = true,
                other => return Err(Error::invalid(format!("unknown object type: {other}"))),
            }
        }
        if has_any {
            return Ok(wanted);
        }
        Ok(Self { containers: true, images: true, volumes: true, build_cache: true })
    }
}

async fn df(State(engine): State<Engine>, query: Query, version: ApiVersion) -> Result {
    let wanted = Wanted::new(query.all("type"), version)?;
    let containers = if wanted.containers {
        let all = engine.containers();
        let sizes = containers::summary_sizes(&engine, &all).await?;
        let text = containers::summaries(&engine, &all, &sizes, version).and_then(|text| {
            let text = String::from_utf8(text).unwrap_or_default();
            RawValue::from_string(text.trim_end().to_owned())
        });
        Some(text.map_err(|error| Error::internal(error.to_string()))?)
    } else {
        None
    };
    let volumes = if wanted.volumes { Some(volumes(&engine).await?) } else { None };
    let images = wanted.images.then(|| images::disk_usage(&engine, version));
    body::ok(&DiskUsage {
        layers_size: if wanted.images { layers_size(&engine) } else { 0 },
        images,
        containers,
        volumes,
        build_cache: wanted.build_cache.then_some([]),
    })
}

/// Each layer once, however many images have it.
fn layers_size(engine: &Engine) -> u64 {
    let images = engine.images().list();
    let layers = images.iter().flat_map(|image| &image.layers);
    layers.map(|layer| (&layer.chain_id, layer.size)).collect::<BTreeMap<_, _>>().values().sum()
}

/// A walk over their files, so on a thread of its own.
async fn volumes(engine: &Engine) -> Result<Vec<Volume>, Error> {
    let engine = engine.clone();
    let walk = move || {
        let shown = |(volume, users): (crate::volume::Volume, Vec<_>)| Volume {
            created_at: time::rfc3339_seconds(volume.created_at_nanos),
            mountpoint: engine.volumes().mountpoint(&volume.name).display().to_string(),
            usage_data: UsageData {
                ref_count: users.len(),
                size: engine.volumes().usage(&volume.name),
            },
            driver: volume.driver,
            labels: volume.labels,
            name: volume.name,
            options: volume.options,
            scope: "local",
        };
        engine.volumes().list().into_iter().map(shown).collect()
    };
    tokio::task::spawn_blocking(walk).await.map_err(|error| Error::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_is_all_and_a_wrong_one_is_named() {
        let read = |types: &[&str]| Wanted::new(types.iter().copied(), ApiVersion::MAX);
        assert!(read(&[]).unwrap().build_cache);
        assert!(!read(&["image"]).unwrap().volumes);
        assert_eq!(read(&["bad"]).unwrap_err().message(), "unknown object type: bad");
    }
}
