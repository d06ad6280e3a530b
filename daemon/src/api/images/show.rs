//! `GET /images/{name}/json` and `/history`.

use std::collections::BTreeMap;

use cleat_proto::docker::{
    container::Config,
    go_json,
    image::{
        GraphDriver, HistoryItem, ImageInspect, ImageSettings, LegacySettings, Metadata, RootFs,
    },
};

use super::{resolve_for, unix_seconds};
use crate::{
    api::{
        body,
        error::{Error, Result},
        query::Query,
        time,
        version::ApiVersion,
    },
    engine::Engine,
    image::{Image, Member},
    registry::manifest::Platform,
};

pub(super) fn inspect(engine: &Engine, name: &str, version: ApiVersion, query: &Query) -> Result {
    let platform = if version.since(1, 49) { platform(query)? } else { None };
    let with_manifests = query.bool("manifests") && version.since(1, 48);
    if with_manifests && platform.is_some() {
        return Err(Error::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = resolve_for(engine, name, platform.as_ref())?;
    let index = engine.images().index_of(name).filter(|_| version.since(1, 48));
    let manifests = index.as_ref().filter(|_| with_manifests);
    let manifests = manifests.map(|index| super::manifests::summaries(engine, index));
    let descriptor = match platform {
        Some(_) => index.and_then(|index| {
            let mut members = engine.images().members(&index).into_iter();
            let is_it = |member: &Member| member.image.as_ref().is_some_and(|it| it.id == image.id);
            members.find(is_it).map(|member| member.entry)
        }),
        None => index.map(|index| index.descriptor()),
    };
    let before_1_44 = !version.since(1, 44);
    let legacy = !version.since(1, 50);
    body::ok(&ImageInspect {
        id: image.id.to_string(),
        repo_tags: image.tags(),
        repo_digests: image.digests(),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: image.comment.clone(),
        created: image.created.clone(),
        container: before_1_44.then(String::new),
        container_config: before_1_44.then(|| settings(&Config::default(), legacy)),
        docker_version: image.docker_version.clone(),
        author: image.author.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
        os: image.os.clone(),
        os_version: image.os_version.clone(),
        size: image.size,
        virtual_size: before_1_44.then_some(image.size),
        graph_driver: graph_driver(engine, &image),
        root_fs: RootFs {
            kind: "layers".into(),
            layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
        },
        descriptor,
        manifests: manifests.unwrap_or_default(),
        metadata: Metadata { last_tag_time: time::or_zero(image.tagged_at_nanos) },
        config: settings(&image.config, legacy),
    })
}

/// Reads a platform as clients send it since 1.46: OCI's, in JSON.
pub(super) fn platform(query: &Query) -> Result<Option<Platform>, Error> {
    query.optional("platform").map(platform_of).transpose()
}

/// The same of one value.
pub(super) fn platform_of(text: &str) -> Result<Platform, Error> {
    let platform: Platform = go_json::from_slice(text.as_bytes())
        .map_err(|error| Error::invalid(format!("failed to parse platform: {error}")))?;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(Error::invalid("both OS and Architecture must be provided"));
    }
    Ok(platform)
}

fn settings(config: &Config, legacy: bool) -> ImageSettings {
    ImageSettings {
        legacy: legacy.then(|| LegacySettings {
            attach_stderr: config.attach_stderr,
            attach_stdin: config.attach_stdin,
            attach_stdout: config.attach_stdout,
            domainname: config.domainname.clone(),
            hostname: config.hostname.clone(),
            image: config.image.clone(),
            open_stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            tty: config.tty,
        }),
        args_escaped: config.args_escaped,
        // What is empty is left out on Docker's way from the configuration to here, and so comes out as null.
        cmd: config.cmd.clone().filter(|words| !words.0.is_empty()),
        entrypoint: config.entrypoint.clone().filter(|words| !words.0.is_empty()),
        env: config.env.clone().filter(|env| !env.is_empty()),
        exposed_ports: config.exposed_ports.clone(),
        healthcheck: config.healthcheck.clone(),
        labels: config.labels.clone().filter(|labels| !labels.is_empty()),
        on_build: config.on_build.clone().filter(|triggers| !triggers.is_empty()),
        shell: config.shell.clone(),
        stop_signal: config.stop_signal.clone(),
        user: config.user.clone(),
        volumes: config.volumes.clone().filter(|volumes| !volumes.is_empty()),
        working_dir: config.working_dir.clone(),
    }
}

fn graph_driver(engine: &Engine, image: &Image) -> GraphDriver {
    let name = "overlay2".to_owned();
    let Some(top) = image.top_layer() else {
        return GraphDriver { data: None, name };
    };
    // A layer that has gone since is an image that has gone since.
    let dirs = engine.snapshots().lower_dirs(top).unwrap_or_default();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut data = BTreeMap::new();
    if let Some((upper, lower)) = dirs.split_first() {
        let dir = upper.parent().unwrap_or(upper);
        data.insert("MergedDir".into(), text(&dir.join("merged")));
        data.insert("UpperDir".into(), text(upper));
        data.insert("WorkDir".into(), text(&dir.join("work")));
        if !lower.is_empty() {
            let lower: Vec<String> = lower.iter().map(|path| text(path)).collect();
            data.insert("LowerDir".into(), lower.join(":"));
        }
    }
    GraphDriver { data: Some(data), name }
}

pub(super) fn history(engine: &Engine, name: &str, version: ApiVersion, query: &Query) -> Result {
    let platform = if version.since(1, 48) { platform(query)? } else { None };
    let image = resolve_for(engine, name, platform.as_ref())?;
    let mut layers = image.layers.iter();
    let mut items = Vec::with_capacity(image.history.len());
    for step in &image.history {
        let size = if step.empty_layer {
            0
        } else {
            let layer = layers.next();
            let layer = layer
                .ok_or_else(|| Error::internal("too many non-empty layers in History section"))?;
            layer.size
        };
        items.push(HistoryItem {
            comment: step.comment.clone(),
            created: step.created.as_deref().map_or(0, |created| unix_seconds(Some(created))),
            created_by: step.created_by.clone(),
            id: "<missing>".into(),
            size,
            tags: None,
        });
    }
    items.reverse();
    let mut next = Some(image);
    for item in &mut items {
        let Some(image) = next else { break };
        item.id = image.id.to_string();
        item.tags = Some(image.tags()).filter(|tags| !tags.is_empty());
        next = image.parent.as_ref().and_then(|parent| engine.images().get(parent));
    }
    body::ok(&items)
}
