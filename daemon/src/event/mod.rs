//! What happened, for whoever listens: the last [`KEPT`] events and live subscribers.
//!
//! Events are hints, never the truth: they live in memory alone, and a subscriber that does not keep up is dropped rather
//! than waited for. Source for names and attributes: Engine API v1.51, SystemEvents.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

/// How many past events are kept; Docker keeps as many.
pub const KEPT: usize = 256;

/// How far a subscriber may fall behind before it is dropped.
const QUEUE: usize = 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// The daemon itself.
    Daemon,
}

impl Kind {
    /// Returns `Type` of the API's message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Daemon => "daemon",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub kind: Kind,
    /// What happened: `create`, `die`, `exec_start: sh` …
    pub action: String,
    /// The actor's id, or its name where names are ids (volumes).
    pub id: String,
    /// `name`, `image`, labels, and what the action adds.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub at_nanos: i64,
}

impl Event {
    /// Makes an event that happens now.
    pub fn now(
        kind: Kind,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        Self { kind, action: action.into(), id: id.into(), attributes, at_nanos: now_nanos() }
    }
}

/// Returns the time in nanoseconds since the epoch.
pub fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A listener's end.
pub struct Subscription {
    /// What was kept when the subscription began, oldest first; nothing is missing between it and what follows.
    pub past: Vec<Arc<Event>>,
    live: mpsc::Receiver<Arc<Event>>,
}

impl Subscription {
    /// Waits for the next event; `None` when this listener was too slow, or the daemon ends.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        self.live.recv().await
    }
}

#[derive(Default)]
struct Listeners {
    past: VecDeque<Arc<Event>>,
    live: Vec<mpsc::Sender<Arc<Event>>>,
}

/// Where events are published and listened to. Clones share it.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<Listeners>>);

impl Bus {
    /// Tells everybody, and keeps it for those who come later. Never waits.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut listeners = self.lock();
        if listeners.past.len() == KEPT {
            listeners.past.pop_front();
        }
        listeners.past.push_back(Arc::clone(&event));
        listeners.live.retain(|listener| listener.try_send(Arc::clone(&event)).is_ok());
    }

    /// Starts to listen.
    pub fn subscribe(&self) -> Subscription {
        let (sender, live) = mpsc::channel(QUEUE);
        let mut listeners = self.lock();
        // Those that hung up are otherwise noticed at the next event only.
        listeners.live.retain(|listener| !listener.is_closed());
        listeners.live.push(sender);
        Subscription { past: listeners.past.iter().cloned().collect(), live }
    }

    /// Counts those who listen.
    pub fn listeners(&self) -> usize {
        let listeners = self.lock();
        listeners.live.iter().filter(|listener| !listener.is_closed()).count()
    }

    /// Ends every subscription: the daemon is shutting down.
    pub fn close(&self) {
        self.lock().live.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: usize) -> Event {
        Event::now(Kind::Container, action.to_string(), "x", BTreeMap::new())
    }

    #[tokio::test]
    async fn a_listener_sees_the_past_and_then_what_comes() {
        let bus = Bus::default();
        bus.publish(event(1));
        let mut listener = bus.subscribe();
        bus.publish(event(2));
        assert_eq!(listener.past.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(), ["1"]);
        assert_eq!(listener.next().await.unwrap().action, "2");
    }

    #[test]
    fn only_the_last_events_are_kept() {
        let bus = Bus::default();
        (0..KEPT + 3).for_each(|n| bus.publish(event(n)));
        let past = bus.subscribe().past;
        assert_eq!((past.len(), past[0].action.as_str()), (KEPT, "3"));
    }

    #[tokio::test]
    async fn a_listener_that_does_not_keep_up_is_dropped() {
        let bus = Bus::default();
        let mut slow = bus.subscribe();
        (0..QUEUE + 1).for_each(|n| bus.publish(event(n)));
        let mut seen = 0;
        while slow.next().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE);
    }
}
