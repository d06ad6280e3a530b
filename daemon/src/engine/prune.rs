//! `docker container prune`.

use std::sync::atomic::{AtomicBool, Ordering};

use cleat_proto::kind::Kind;

use super::{Engine, Error, Pruned, RemoveOptions, Result};
use crate::{
    container::{Container, State},
    event::{self, Event},
};

static PRUNING: AtomicBool = AtomicBool::new(false);

/// Lets the next prune begin, however this one ends.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        PRUNING.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Removes every stopped container that `wanted` picks.
    ///
    /// # Errors
    /// `Conflict` while another prune runs.
    pub async fn prune_containers(
        &self,
        wanted: impl Fn(&Container) -> bool + Send,
    ) -> Result<Pruned> {
        if PRUNING.swap(true, Ordering::AcqRel) {
            return Err(Error::new(Kind::Conflict, "a prune operation is already running"));
        }
        let _turn = Turn;
        let mut pruned = Pruned::default();
        for container in self.containers() {
            let id = &container.record.id;
            if !matches!(container.state, State::Created | State::Exited) || !wanted(&container) {
                continue;
            }
            let size = self.snapshots().usage(id).unwrap_or(0);
            match self.remove(&id.into(), RemoveOptions::default()).await {
                Ok(()) => {
                    pruned.deleted.push(id.clone());
                    pruned.reclaimed_bytes += size;
                }
                // It was started or removed meanwhile, or cannot be removed: the others still can.
                Err(error) => tracing::warn!(container = %id, error = error.whole(), "not pruned"),
            }
        }
        let attributes = [("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())].into();
        self.0.events.publish(Event::now(event::Kind::Container, "prune", "", attributes));
        Ok(pruned)
    }
}
