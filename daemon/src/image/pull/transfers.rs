//! Who is fetching what: each layer by one pull at a time, and few layers at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use cleat_proto::digest::Digest;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// dockerd's `max-concurrent-downloads`.
const DOWNLOADS: usize = 3;
/// dockerd's `max-concurrent-uploads`.
const UPLOADS: usize = 5;

/// All transfers of the daemon.
pub struct Transfers {
    turns: Mutex<HashMap<Digest, Arc<Turn<()>>>>,
    slots: Arc<Semaphore>,
    upload_slots: Arc<Semaphore>,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            slots: Arc::new(Semaphore::new(DOWNLOADS)),
            upload_slots: Arc::new(Semaphore::new(UPLOADS)),
        }
    }
}

/// The right to fetch some layers, until it is dropped.
pub struct Claim {
    digests: BTreeSet<Digest>,
    _turns: Vec<OwnedMutexGuard<()>>,
}

impl Claim {
    /// Returns which layers.
    pub fn digests(&self) -> &BTreeSet<Digest> {
        &self.digests
    }
}

impl Transfers {
    /// Claims all or nothing.
    pub fn try_claim(&self, digests: &BTreeSet<Digest>) -> Option<Claim> {
        let turns = self.turns(digests).into_iter().map(|turn| turn.try_lock_owned().ok());
        Some(Claim { _turns: turns.collect::<Option<_>>()?, digests: digests.clone() })
    }

    /// Waits for all of them, in the order of their names: two who want the same never wait for each other.
    pub async fn claim(&self, digests: &BTreeSet<Digest>) -> Claim {
        let mut turns = Vec::with_capacity(digests.len());
        for turn in self.turns(digests) {
            turns.push(turn.lock_owned().await);
        }
        Claim { _turns: turns, digests: digests.clone() }
    }

    /// Waits for one of the few slots.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// As [`Self::slot`], for the other direction.
    pub async fn upload_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.upload_slots).acquire_owned().await.ok()
    }

    /// Returns the digests that somebody is fetching or waits for.
    pub fn busy(&self) -> BTreeSet<Digest> {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = turns.iter().filter(|(_, turn)| Arc::strong_count(turn) > 1);
        busy.map(|(digest, _)| digest.clone()).collect()
    }

    fn turns(&self, digests: &BTreeSet<Digest>) -> Vec<Arc<Turn<()>>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        digests.iter().map(|digest| Arc::clone(turns.entry(digest.clone()).or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(numbers: &[u8]) -> BTreeSet<Digest> {
        numbers.iter().map(|n| Digest::from_sum([*n; 32])).collect()
    }

    #[tokio::test]
    async fn a_layer_has_one_owner_at_a_time() {
        let transfers = Transfers::default();
        let first = transfers.try_claim(&digests(&[1, 2])).unwrap();
        assert!(transfers.try_claim(&digests(&[2, 3])).is_none());
        // What was not to be had leaves no trace.
        drop(transfers.try_claim(&digests(&[3])).unwrap());
        assert_eq!(transfers.busy(), digests(&[1, 2]));
        drop(first);
        let second = transfers.claim(&digests(&[2, 3])).await;
        assert_eq!(*second.digests(), digests(&[2, 3]));
        drop(second);
        assert!(transfers.busy().is_empty());
    }
}
