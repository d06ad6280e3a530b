//! `GET /events`: what was kept, then what comes. Source: Engine API v1.51, SystemEvents.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use serde::Serialize;

use super::{
    body::{self, Gone, Sender},
    error::{Error, Result},
    hijack::Socket,
    query::{Filters, Query},
    time,
    version::ApiVersion,
};
use crate::{
    engine::Engine,
    event::{Event, Kind, Subscription, now_nanos},
};

/// The route.
pub fn routes() -> Router<Engine> {
    Router::new().route("/events", get(events))
}

/// What follows an event's few lines when its client does not read.
const QUEUE: usize = 16;

async fn events(
    State(engine): State<Engine>,
    query: Query,
    version: ApiVersion,
    socket: Socket,
) -> Result {
    let time = |key| {
        query
            .optional(key)
            .map(|text| time::unix_seconds(text).map_err(Error::internal))
            .transpose()
    };
    let (since, until) = (time("since")?, time("until")?);
    if until.is_some_and(|until| since.is_some_and(|since| until < since)) {
        let text = |key| query.get(key).to_owned();
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let wanted = Wanted {
        filters: query.filters()?,
        since,
        until,
        shows_image_create: version.since(1, 46),
    };
    let subscription = engine.events().subscribe();
    let (sender, stream) = body::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            // However it ended, nobody waits for more.
            _ = follow(subscription, wanted, &sender) => {}
            () = socket.gone() => {}
            () = sender.closed() => {}
        }
    });
    Ok(body::stream("application/json", stream))
}

async fn follow(
    mut subscription: Subscription,
    wanted: Wanted,
    sender: &Sender,
) -> Result<(), Gone> {
    let past = std::mem::take(&mut subscription.past);
    if wanted.since.is_some() || wanted.until.is_some() {
        for event in past.iter().filter(|event| wanted.in_time(event) && wanted.includes(event)) {
            sender.line(&Message::from(&**event)).await?;
        }
    }
    let left = match wanted.until {
        None => None,
        Some(until) => match u64::try_from(until - now_nanos()) {
            Ok(nanos) => Some(Duration::from_nanos(nanos)),
            Err(_) => return Ok(()),
        },
    };
    let end = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let event: Arc<Event> = tokio::select! {
            event = subscription.next() => match event {
                Some(event) => event,
                None => return Ok(()),
            },
            () = &mut end => return Ok(()),
        };
        if wanted.includes(&event) {
            sender.line(&Message::from(&*event)).await?;
        }
    }
}

/// Which events a client wants.
struct Wanted {
    filters: Filters,
    since: Option<i64>,
    until: Option<i64>,
    shows_image_create: bool,
}

impl Wanted {
    fn in_time(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.at_nanos >= since)
            && self.until.is_none_or(|until| event.at_nanos <= until)
    }

    fn includes(&self, event: &Event) -> bool {
        let hidden =
            !self.shows_image_create && event.kind == Kind::Image && event.action == "create";
        let actor = |key: &str| {
            let name = event.attributes.get("name").map_or("", String::as_str);
            self.filters.any(key, |wanted| event.id.starts_with(wanted) || name.starts_with(wanted))
        };
        let actors = [
            "container",
            "volume",
            "network",
            "daemon",
            "plugin",
            "node",
            "service",
            "secret",
            "config",
        ];
        !hidden
            && self.filters.any("event", |wanted| is_action(&event.action, wanted))
            && self.filters.exact("type", event.kind.as_str())
            && self.filters.exact("scope", "local")
            && actors.into_iter().all(actor)
            && self.filters.any("image", |wanted| is_image(event, wanted))
            && self.filters.labels("label", Some(&event.attributes))
    }
}

/// Some actions carry a text behind their name.
fn is_action(action: &str, wanted: &str) -> bool {
    const WITH_TEXT: [&str; 3] = ["health_status", "exec_create", "exec_start"];
    let with_text = WITH_TEXT.iter().any(|name| action.starts_with(name));
    action == wanted || (with_text && action.starts_with(wanted))
}

fn is_image(event: &Event, wanted: &str) -> bool {
    let key = if event.kind == Kind::Image { "name" } else { "image" };
    let name = event.attributes.get(key).map_or("", String::as_str);
    [event.id.as_str(), name].into_iter().any(|text| text == wanted || without_tag(text) == wanted)
}

/// `registry:5000/name:tag` → `registry:5000/name`.
fn without_tag(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find([':', '@']) {
        Some(end) => &name[..start + end],
        None => name,
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    from: &'a str,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'a str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Attributes")]
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Event> for Message<'a> {
    fn from(event: &'a Event) -> Self {
        let (legacy, from) = match event.kind {
            Kind::Container => (true, event.attributes.get("image").map_or("", String::as_str)),
            Kind::Image => (true, ""),
            Kind::Volume | Kind::Network | Kind::Daemon => (false, ""),
        };
        Self {
            status: if legacy { &event.action } else { "" },
            id: if legacy { &event.id } else { "" },
            from,
            kind: event.kind.as_str(),
            action: &event.action,
            actor: Actor { id: &event.id, attributes: &event.attributes },
            scope: "local",
            time: event.at_nanos.div_euclid(1_000_000_000),
            time_nano: event.at_nanos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        let attributes = [("name", "web"), ("image", "busybox:latest"), ("a", "1")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Event {
            kind: Kind::Container,
            action: action.into(),
            id: "abcdef".into(),
            attributes: attributes.into(),
            at_nanos: 5,
        }
    }

    #[track_caller]
    fn check(filters: &str, action: &str, expected: bool) {
        let filters = Filters::parse(filters).unwrap();
        let wanted = Wanted { filters, since: None, until: None, shows_image_create: true };
        assert_eq!(wanted.includes(&event(action)), expected, "{action}");
    }

    #[test]
    fn filters_look_at_ids_names_images_and_labels() {
        check("", "start", true);
        check(r#"{"container":["abc"]}"#, "start", true);
        check(r#"{"container":["we"],"event":["start","die"]}"#, "start", true);
        check(r#"{"container":["eb"]}"#, "start", false);
        check(r#"{"image":["busybox"]}"#, "start", true);
        check(r#"{"image":["busy"]}"#, "start", false);
        check(r#"{"label":["a=1"]}"#, "start", true);
        check(r#"{"label":["a=2"]}"#, "start", false);
        check(r#"{"type":["image"]}"#, "start", false);
    }

    #[test]
    fn actions_with_a_text_match_by_their_beginning() {
        check(r#"{"event":["exec_start"]}"#, "exec_start: sh", true);
        check(r#"{"event":["star"]}"#, "start", false);
    }

    #[test]
    fn old_clients_find_the_old_keys() {
        let text = serde_json::to_string(&Message::from(&event("start"))).unwrap();
        assert!(text.starts_with(r#"{"status":"start","id":"abcdef","from":"busybox:latest","Type":"container","Action":"start","#));
    }
}
