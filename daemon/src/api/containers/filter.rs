//! Which containers a list shows, and prune removes. Source: Engine API v1.51, ContainerList and ContainerPrune, `filters`.

use std::{collections::BTreeSet, ops::ControlFlow};

use axum::extract::State;
use cleat_proto::{docker::container::PortMap, id::ContainerId, kind::Kind};
use regex_lite::Regex;
use serde::Serialize;

use crate::{
    api::{
        body,
        error::{Error, Result},
        query::{Filters, Query, parse_go_int},
    },
    container::{Container, mount_point::Source, names::ContainerRef, state},
    engine::Engine,
};

const KEYS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// A list's filters, checked, ready to be held against each container in turn (newest first).
pub struct ListFilter {
    filters: Filters,
    /// Those that do not run as well.
    all: bool,
    limit: Option<usize>,
    names: Option<Vec<Regex>>,
    ids: Option<BTreeSet<ContainerId>>,
    /// Skip down to this one.
    before: Option<ContainerId>,
    /// Stop at this one.
    since: Option<ContainerId>,
    exited: Vec<i64>,
    is_task: Option<bool>,
    ancestors: Option<BTreeSet<String>>,
    publish: BTreeSet<(u16, String)>,
    expose: BTreeSet<(u16, String)>,
    shown: usize,
}

impl ListFilter {
    /// Reads a list's query.
    ///
    /// # Errors
    /// Docker's, for each filter that is wrong.
    pub fn new(engine: &Engine, query: &Query) -> Result<Self, Error> {
        let filters = query.filters()?;
        let limit = query
            .int("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0);
        filters.only(&KEYS)?;
        let exited =
            filters.get("exited").iter().map(|text| exit_code(text)).collect::<Result<_, _>>()?;
        filters.get("status").iter().try_for_each(|text| status(text))?;
        let is_task =
            if filters.has("is-task") { filters.bool("is-task")?.or(Some(false)) } else { None };
        filters.get("health").iter().try_for_each(|text| health(text))?;
        Ok(Self {
            all: query.bool("all") || limit.is_some() || !filters.get("status").is_empty(),
            limit,
            names: names(&filters),
            ids: ids(&filters, engine),
            before: pivot(&filters, "before", query.get("before"), engine)?,
            since: pivot(&filters, "since", query.get("since"), engine)?,
            exited,
            is_task,
            ancestors: ancestors(&filters, engine),
            publish: ports(&filters, "publish")?,
            expose: ports(&filters, "expose")?,
            shown: 0,
            filters,
        })
    }

    /// Answers whether the list shows `container`; `Break` when it is complete.
    pub fn wants(&mut self, container: &Container) -> ControlFlow<(), bool> {
        let record = &container.record;
        if let Some(before) = &self.before {
            if *before == record.id {
                self.before = None;
            }
            return ControlFlow::Continue(false);
        }
        if self.since.as_ref() == Some(&record.id) {
            return ControlFlow::Break(());
        }
        if !(self.matches_identity(container) && (self.all || container.state.is_running())) {
            return ControlFlow::Continue(false);
        }
        if self.limit.is_some_and(|limit| self.shown == limit) {
            return ControlFlow::Break(());
        }
        let wanted = self.matches_state(container) && self.matches_parts(container);
        self.shown += usize::from(wanted);
        ControlFlow::Continue(wanted)
    }

    fn matches_identity(&self, container: &Container) -> bool {
        let record = &container.record;
        let named = || {
            self.names.as_ref().is_none_or(|names| {
                let slashed = format!("/{}", record.name);
                names.iter().any(|name| name.is_match(&slashed) || name.is_match(&record.name))
            })
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&record.id))
            && named()
            && self.is_task != Some(true)
            && self.filters.labels("label", record.config.labels.as_ref())
    }

    fn matches_state(&self, container: &Container) -> bool {
        let ended = !container.state.is_running() && container.run.started_at_nanos != 0;
        let exited = || ended && self.exited.contains(&i64::from(container.run.exit_code));
        (self.exited.is_empty() || exited())
            && self.filters.exact("status", container.state.as_str())
            && self.filters.exact("health", health_of(container))
    }

    fn matches_parts(&self, container: &Container) -> bool {
        let record = &container.record;
        let volume = |wanted: &str| {
            record.mounts.iter().any(|mount| {
                let from_here = match &mount.source {
                    Source::Volume { name, .. } => name == wanted,
                    Source::Bind { path, .. } => path.to_str() == Some(wanted),
                    Source::Image { name, .. } => name == wanted,
                    Source::Tmpfs { .. } => false,
                };
                from_here || mount.destination == wanted
            })
        };
        let network = |wanted: &str| {
            record.networks.iter().any(|(name, endpoint)| {
                name == wanted
                    || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(wanted))
            })
        };
        self.filters.any("volume", volume)
            && self.filters.any("network", network)
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&record.image_id))
            && self.matches_ports(container)
    }

    fn matches_ports(&self, container: &Container) -> bool {
        if self.publish.is_empty() && self.expose.is_empty() {
            return true;
        }
        let ports = super::inspect::ports(container);
        flat(&ports).any(|(private, public, protocol)| {
            self.expose.contains(&(private, protocol.to_owned()))
                || self.publish.contains(&(public, protocol.to_owned()))
        })
    }
}

/// Every published or exposed port: private, public (0 if only exposed), protocol.
fn flat(ports: &PortMap) -> impl Iterator<Item = (u16, u16, &str)> {
    ports.iter().flat_map(|(key, bindings)| {
        let (private, protocol) = super::list::split_port(key);
        let publics = bindings.as_deref().unwrap_or_default().iter();
        let publics: Vec<u16> =
            publics.map(|binding| binding.host_port.parse().unwrap_or(0)).collect();
        let publics = if publics.is_empty() { vec![0] } else { publics };
        publics.into_iter().map(move |public| (private, public, protocol))
    })
}

fn exit_code(text: &str) -> Result<i64, Error> {
    let wrong = |why| {
        Error::invalid(format!(
            "invalid filter 'exited={text}': strconv.Atoi: parsing {text:?}: {why}"
        ))
    };
    parse_go_int(text).map_err(wrong)
}

fn status(text: &str) -> Result<(), Error> {
    const STATES: [&str; 7] =
        ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    if STATES.contains(&text) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid filter 'status={text}': invalid value for state ({text}): must be one of {}",
        STATES.join(", ")
    )))
}

fn health_of(container: &Container) -> &'static str {
    container.run.health.as_ref().map_or("none", |health| health.status.as_str())
}

fn health(text: &str) -> Result<(), Error> {
    const STATES: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
    if STATES.contains(&text) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid filter 'health={text}': invalid value for health ({text}): must be one of {}",
        STATES.join(", ")
    )))
}

/// Names are regular expressions, found anywhere in the name with or without its slash. One that is none matches by equality.
fn names(filters: &Filters) -> Option<Vec<Regex>> {
    let wanted = filters.get("name");
    let regex = |text: &String| {
        Regex::new(text).or_else(|_| Regex::new(&format!("^{}$", regex_lite::escape(text))))
    };
    (!wanted.is_empty()).then(|| wanted.iter().filter_map(|text| regex(text).ok()).collect())
}

/// Ids and prefixes of exactly one.
fn ids(filters: &Filters, engine: &Engine) -> Option<BTreeSet<ContainerId>> {
    let wanted = filters.get("id");
    if wanted.is_empty() {
        return None;
    }
    let all = engine.containers();
    let found = wanted.iter().filter_map(|prefix| {
        let mut matches = all
            .iter()
            .filter(|container| container.record.id.as_str().starts_with(prefix.as_str()));
        let first = matches.next()?;
        matches.next().is_none().then(|| first.record.id.clone())
    });
    Some(found.collect())
}

/// `before` and `since`, as a filter or (for old clients) as a parameter.
fn pivot(
    filters: &Filters,
    key: &str,
    parameter: &str,
    engine: &Engine,
) -> Result<Option<ContainerId>, Error> {
    let parameter = Some(parameter).filter(|text| !text.is_empty());
    let mut found = None;
    for name in filters.get(key).iter().map(String::as_str).chain(parameter) {
        found = Some(engine.container(&ContainerRef(name.to_owned()))?.record.id.clone());
    }
    Ok(found)
}

/// The ids of the images named, and of those that were built on them. Unknown ones have no containers.
fn ancestors(filters: &Filters, engine: &Engine) -> Option<BTreeSet<String>> {
    if !filters.has("ancestor") {
        return None;
    }
    let named =
        filters.get("ancestor").iter().filter_map(|name| engine.images().resolve(name).ok());
    let mut found: BTreeSet<String> = named.map(|image| image.id.to_string()).collect();
    let all = engine.images().list();
    let mut before = 0;
    while found.len() > before {
        before = found.len();
        let children = all.iter().filter(|image| {
            image.parent.as_ref().is_some_and(|id| found.contains(&id.to_string()))
        });
        let children: Vec<String> = children.map(|image| image.id.to_string()).collect();
        found.extend(children);
    }
    Some(found)
}

/// Reads `80`, `80/udp`, `8000-8010/tcp`.
fn ports(filters: &Filters, key: &str) -> Result<BTreeSet<(u16, String)>, Error> {
    let mut found = BTreeSet::new();
    for text in filters.get(key) {
        if text.contains(':') {
            return Err(Error::internal(format!(
                "filter for '{key}' should not contain ':': {text}"
            )));
        }
        let wrong = |why: String| {
            Error::internal(format!("error while looking up for {key} {text}: {why}"))
        };
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (start, end) = range.split_once('-').unwrap_or((range, range));
        let (start, end) = (port_number(start).map_err(wrong)?, port_number(end).map_err(wrong)?);
        if end < start {
            return Err(wrong(format!("Invalid range specified for the Port: {range}")));
        }
        found.extend((start..=end).map(|port| (port, protocol.to_owned())));
    }
    Ok(found)
}

fn port_number(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let why = if is_number { "value out of range" } else { "invalid syntax" };
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PruneReport {
    containers_deleted: Option<Vec<ContainerId>>,
    space_reclaimed: u64,
}

/// `POST /containers/prune`.
pub async fn prune(State(engine): State<Engine>, query: Query) -> Result {
    let filters = query.filters()?;
    filters.only(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let wanted = move |container: &Container| {
        let record = &container.record;
        let labels = record.config.labels.as_ref();
        until.is_none_or(|until| record.created_at_nanos <= until)
            && filters.labels("label", labels)
            && filters.no_labels("label!", labels)
            && !matches!(container.state, state::State::Removing)
    };
    let pruned = engine.prune_containers(wanted).await.map_err(|error| match error.kind() {
        Kind::Conflict => Error::new(Kind::Conflict, "a prune operation is already running"),
        _ => error.into(),
    })?;
    body::ok(&PruneReport {
        containers_deleted: Some(pruned.deleted).filter(|ids| !ids.is_empty()),
        space_reclaimed: pruned.reclaimed_bytes,
    })
}

#[cfg(test)]
pub mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use cleat_proto::docker::container::{Config, HostConfig};

    use super::*;
    use crate::container::{Phase, Record, Run, State as ContainerState};

    /// A container for tests of what is shown of one.
    pub fn container(name: &str) -> Container {
        let record = Record {
            id: ContainerId::from_bytes([7; 32]),
            name: name.to_owned(),
            created_at_nanos: 1,
            image_id: "sha256:1".to_owned(),
            top_layer: None,
            platform: "linux".to_owned(),
            path: "sh".to_owned(),
            args: Vec::new(),
            config: Config {
                labels: Some(BTreeMap::from([("a".into(), "1".into())])),
                ..Config::default()
            },
            host_config: HostConfig::default(),
            networks: BTreeMap::default(),
            mounts: Vec::new(),
            phase: Phase::Present,
            run: Run::default(),
        };
        Container {
            record: Arc::new(record),
            state: ContainerState::Exited,
            run: Run { started_at_nanos: 1, finished_at_nanos: 2, exit_code: 3, ..Run::default() },
            exec_ids: Vec::new(),
            exits: 1,
            gone: false,
        }
    }

    fn filter(text: &str) -> ListFilter {
        let filters = Filters::parse(text).unwrap();
        ListFilter {
            all: true,
            limit: None,
            names: names(&filters),
            ids: None,
            before: None,
            since: None,
            exited: filters.get("exited").iter().map(|text| exit_code(text).unwrap()).collect(),
            is_task: None,
            ancestors: None,
            publish: ports(&filters, "publish").unwrap(),
            expose: ports(&filters, "expose").unwrap(),
            shown: 0,
            filters,
        }
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let wanted = filter(text).wants(&container("web-1"));
        assert_eq!(wanted, ControlFlow::Continue(expected), "{text}");
    }

    #[test]
    fn names_match_with_and_without_the_slash() {
        for hit in ["web-1", "/web-1", "^/web-1$", "^web-1$", "eb", "w.b-[0-9]+"] {
            check(&format!(r#"{{"name":["{hit}"]}}"#), true);
        }
        for miss in ["^eb", "x", "["] {
            check(&format!(r#"{{"name":["{miss}"]}}"#), false);
        }
    }

    #[test]
    fn keys_are_and_values_are_or() {
        check(r#"{"exited":["3","4"],"label":["a=1"]}"#, true);
        check(r#"{"exited":["0"]}"#, false);
        check(r#"{"status":["running","exited"]}"#, true);
        check(r#"{"status":["running"]}"#, false);
        check(r#"{"label":["a=2"]}"#, false);
        check(r#"{"health":["none"]}"#, true);
        check(r#"{"network":["bridge"]}"#, false);
    }

    #[test]
    fn port_filters_have_ranges() {
        let read = |text: &str| ports(&Filters::parse(text).unwrap(), "publish");
        assert_eq!(read(r#"{"publish":["80-81/udp"]}"#).unwrap().len(), 2);
        assert_eq!(
            read(r#"{"publish":["x"]}"#).unwrap_err().message(),
            "error while looking up for publish x: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            read(r#"{"publish":["90-80"]}"#).unwrap_err().message(),
            "error while looking up for publish 90-80: Invalid range specified for the Port: 90-80"
        );
    }

    #[test]
    fn wrong_values_are_named() {
        assert!(
            status("bad")
                .unwrap_err()
                .message()
                .starts_with("invalid filter 'status=bad': invalid value")
        );
        assert_eq!(
            exit_code("x").unwrap_err().message(),
            "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"
        );
    }
}
