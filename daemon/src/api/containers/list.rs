//! `GET /containers/json`.

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use axum::extract::State;
use cleat_proto::docker::{
    container::PortMap,
    summary::{MountPoint, Port, Summary, SummaryHostConfig, SummaryNetworks},
};
use http::StatusCode;
use serde::{Serializer, ser::SerializeSeq};

use super::{filter::ListFilter, inspect, status};
use crate::{
    api::{
        body,
        error::{Error, Result},
        query::Query,
        version::ApiVersion,
    },
    container::{
        Container,
        mount_point::{self, Source},
    },
    engine::Engine,
    event::now_nanos,
};

/// How much JSON one container makes, roughly.
const SUMMARY_BYTES: usize = 1024;

/// Sizes of one container: its own files, and those with the image's.
#[derive(Clone, Copy, Default)]
pub struct Sizes {
    own: i64,
    whole: i64,
}

/// The handler.
pub async fn list(State(engine): State<Engine>, query: Query, version: ApiVersion) -> Result {
    let mut filter = ListFilter::new(&engine, &query)?;
    let mut shown = Vec::new();
    for container in engine.containers() {
        match filter.wants(&container) {
            ControlFlow::Continue(true) => shown.push(container),
            ControlFlow::Continue(false) => {}
            ControlFlow::Break(()) => break,
        }
    }
    let sizes = if query.bool("size") { summary_sizes(&engine, &shown).await? } else { Vec::new() };
    let text = summaries(&engine, &shown, &sizes, version)
        .map_err(|error| Error::internal(error.to_string()))?;
    Ok(body::json_text(StatusCode::OK, text))
}

/// Counts what containers take: a walk over their files, so on a thread of its own.
///
/// # Errors
/// If a walk fails.
pub async fn summary_sizes(
    engine: &Engine,
    containers: &[Arc<Container>],
) -> Result<Vec<Sizes>, Error> {
    let (engine, containers) = (engine.clone(), containers.to_vec());
    let walk = move || containers.iter().map(|container| sizes(&engine, container)).collect();
    tokio::task::spawn_blocking(walk).await.map_err(|error| Error::internal(error.to_string()))
}

/// Counts what one container takes.
pub fn sizes(engine: &Engine, container: &Container) -> Sizes {
    let record = &container.record;
    let own = engine.snapshots().usage(&record.id).unwrap_or(0);
    let image = record.image_id.parse().ok().and_then(|id| engine.images().get(&id));
    let whole = own + image.map_or(0, |image| image.size);
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Sizes { own: number(own), whole: number(whole) }
}

impl Sizes {
    /// Bytes of its own files.
    pub fn own(self) -> i64 {
        self.own
    }

    /// Bytes with the image's.
    pub fn whole(self) -> i64 {
        self.whole
    }
}

/// Writes the list straight from what is shared with the engine: nothing is copied but the text.
///
/// # Errors
/// Never, as far as we know: the types have no value without JSON.
pub fn summaries(
    engine: &Engine,
    containers: &[Arc<Container>],
    sizes: &[Sizes],
    version: ApiVersion,
) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(containers.len() * SUMMARY_BYTES + 2);
    let mut writer = serde_json::Serializer::new(&mut text);
    let mut list = writer.serialize_seq(Some(containers.len()))?;
    let mut look = Look::new(engine, version);
    for (index, container) in containers.iter().enumerate() {
        let sizes = sizes.get(index).copied().unwrap_or_default();
        list.serialize_element(&look.summary(container, sizes))?;
    }
    list.end()?;
    text.push(b'\n');
    Ok(text)
}

/// What a list needs for each of its lines, looked up once.
struct Look<'a> {
    engine: &'a Engine,
    now_nanos: i64,
    shows_annotations: bool,
    no_labels: BTreeMap<String, String>,
    /// Which image a name means now: `None` is none.
    names: BTreeMap<String, Option<String>>,
}

impl<'a> Look<'a> {
    fn new(engine: &'a Engine, version: ApiVersion) -> Self {
        Self {
            engine,
            now_nanos: now_nanos(),
            shows_annotations: version.since(1, 46),
            no_labels: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn summary<'c>(&'c mut self, container: &'c Container, sizes: Sizes) -> Summary<'c> {
        let record = &*container.record;
        let still_named = self.is_still_named(&record.config.image, &record.image_id);
        Summary {
            id: record.id.as_str(),
            names: [format!("/{}", record.name)],
            image: if still_named { &record.config.image } else { &record.image_id },
            image_id: &record.image_id,
            command: command(&record.path, &record.args),
            created: record.created_at_nanos.div_euclid(1_000_000_000),
            ports: ports(container),
            size_rw: sizes.own,
            size_root_fs: sizes.whole,
            labels: record.config.labels.as_ref().unwrap_or(&self.no_labels),
            state: container.state.as_str(),
            status: status::text(container, self.now_nanos),
            host_config: SummaryHostConfig {
                network_mode: &record.host_config.network_mode,
                annotations: record
                    .host_config
                    .annotations
                    .as_ref()
                    .filter(|_| self.shows_annotations),
            },
            network_settings: SummaryNetworks { networks: inspect::networks(container) },
            mounts: mounts(self.engine, container),
        }
    }

    /// A name that was moved to another image is no longer this one's.
    fn is_still_named(&mut self, name: &str, id: &str) -> bool {
        if !self.names.contains_key(name) {
            let means = self.engine.images().resolve(name).ok().map(|image| image.id.to_string());
            self.names.insert(name.to_owned(), means);
        }
        self.names.get(name).is_some_and(|means| means.as_deref() == Some(id))
    }
}

/// As it would be typed, arguments with a blank in quotes.
fn command<'a>(path: &'a str, args: &[String]) -> Cow<'a, str> {
    if args.is_empty() {
        return Cow::Borrowed(path);
    }
    let mut text = path.to_owned();
    for arg in args {
        text.push(' ');
        if arg.contains(' ') {
            text.extend(["'", arg, "'"]);
        } else {
            text.push_str(arg);
        }
    }
    Cow::Owned(text)
}

/// Splits `80/tcp`.
pub fn split_port(key: &str) -> (u16, &str) {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    (port.parse().unwrap_or(0), protocol)
}

fn ports(container: &Container) -> Vec<Port<'_>> {
    let Some(ports) = inspect::shown_ports(container) else { return Vec::new() };
    let bound: &PortMap = ports;
    let mut shown = Vec::new();
    for (key, bindings) in bound {
        let (private_port, protocol) = split_port(key);
        let bindings = bindings.as_deref().unwrap_or_default();
        if bindings.is_empty() {
            shown.push(Port { ip: "", private_port, public_port: 0, protocol });
        }
        shown.extend(bindings.iter().map(|binding| Port {
            ip: &binding.host_ip,
            private_port,
            public_port: binding.host_port.parse().unwrap_or(0),
            protocol,
        }));
    }
    let exposed = container.record.config.exposed_ports.iter().flatten().map(|(key, _)| key);
    for key in exposed.filter(|key| !bound.contains_key(*key)) {
        let (private_port, protocol) = split_port(key);
        shown.push(Port { ip: "", private_port, public_port: 0, protocol });
    }
    shown
}

/// The mounts as list and inspect show them. (`--tmpfs` is only in `HostConfig`.)
pub fn mounts<'a>(engine: &Engine, container: &'a Container) -> Vec<MountPoint<'a>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let shown = |mount: &'a mount_point::MountPoint| {
        let (kind, name, source, driver) = match &mount.source {
            Source::Bind { path, .. } => ("bind", "", path.to_string_lossy(), ""),
            Source::Volume { name, driver, .. } => {
                let source = Cow::Owned(text(&engine.volumes().mountpoint(name)));
                ("volume", name.as_str(), source, driver.as_str())
            }
            // It is mounted in the container alone, so no path of the host shows it.
            Source::Image { name, .. } => ("image", name.as_str(), Cow::Borrowed(""), ""),
            Source::Tmpfs { .. } if mount.from_mounts => ("tmpfs", "", Cow::Borrowed(""), ""),
            Source::Tmpfs { .. } => return None,
        };
        Some(MountPoint {
            kind,
            name,
            source,
            destination: &mount.destination,
            driver,
            mode: &mount.mode,
            rw: mount.rw,
            propagation: &mount.propagation,
        })
    };
    container.record.mounts.iter().filter_map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_its_blanks() {
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        assert_eq!(command("sh", &[]), "sh");
        assert_eq!(command("sh", &args(&["-c", "echo x"])), "sh -c 'echo x'");
    }

    #[test]
    fn a_port_without_a_protocol_is_tcp() {
        assert_eq!(split_port("80/udp"), (80, "udp"));
        assert_eq!(split_port("80"), (80, "tcp"));
    }
}
