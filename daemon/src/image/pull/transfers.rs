//! Who is fetching what: each layer by one pull at a time, and few layers at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use cleat_proto::digest::Digest;
use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard};

/// dockerd's `max-concurrent-downloads`.
pub const DOWNLOADS: usize = 3;
/// dockerd's `max-concurrent-uploads`.
pub const UPLOADS: usize = 5;

/// All transfers of the daemon.
pub struct Transfers {
    turns: Mutex<HashMap<Digest, Arc<Turn<()>>>>,
    downloads: Slots,
    uploads: Slots,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            downloads: Slots::new(DOWNLOADS),
            uploads: Slots::new(UPLOADS),
        }
    }
}

/// Few at once, and how few may change meanwhile.
struct Slots {
    count: Mutex<Count>,
    changed: Notify,
}

struct Count {
    /// 0 is without limit.
    limit: usize,
    taken: usize,
    /// Who wants one and has none.
    waiting: usize,
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a Slots);

/// The right to a transfer, until it is dropped.
pub struct Slot<'a>(&'a Slots);

impl Slots {
    fn new(limit: usize) -> Self {
        Self { count: Mutex::new(Count { limit, taken: 0, waiting: 0 }), changed: Notify::new() }
    }

    async fn take(&self) -> Slot<'_> {
        let _waiting = Waiting::new(self);
        loop {
            // Before the look: what changes in between wakes us.
            let changed = self.changed.notified();
            if self.try_take() {
                return Slot(self);
            }
            changed.await;
        }
    }

    /// One more for who has one already: only where nobody is kept waiting, and few in any case.
    fn spare(&self) -> Option<Slot<'_>> {
        let mut count = self.count();
        let limit = if count.limit == 0 { 2 * DOWNLOADS } else { count.limit };
        let is_free = count.waiting == 0 && count.taken < limit;
        count.taken += usize::from(is_free);
        is_free.then(|| Slot(self))
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self) -> bool {
        let mut count = self.count();
        let is_free = count.limit == 0 || count.taken < count.limit;
        count.taken += usize::from(is_free);
        is_free
    }

    fn set_limit(&self, limit: usize) {
        self.count().limit = limit;
        self.changed.notify_waiters();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.count().taken -= 1;
        self.0.changed.notify_one();
    }
}

impl<'a> Waiting<'a> {
    fn new(slots: &'a Slots) -> Self {
        slots.count().waiting += 1;
        Self(slots)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count().waiting -= 1;
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
    pub async fn slot(&self) -> Slot<'_> {
        self.downloads.take().await
    }

    /// Returns one more slot for a layer that has one, unless somebody waits for one.
    pub fn spare_slot(&self) -> Option<Slot<'_>> {
        self.downloads.spare()
    }

    /// As [`Self::slot`], for the other direction.
    pub async fn upload_slot(&self) -> Slot<'_> {
        self.uploads.take().await
    }

    /// Changes how many layers are on their way at once, in each direction; 0 is without limit. What is on its way stays.
    pub fn limit(&self, downloads: usize, uploads: usize) {
        self.downloads.set_limit(downloads);
        self.uploads.set_limit(uploads);
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

    #[tokio::test]
    async fn a_spare_slot_keeps_nobody_waiting() {
        let slots = Slots::new(2);
        let first = slots.take().await;
        let spare = slots.spare().unwrap();
        assert!(slots.spare().is_none(), "the limit holds for all of them");
        let mut second = std::pin::pin!(slots.take());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(spare);
        assert!(slots.spare().is_none(), "somebody waits");
        drop((first, second.await));
        assert!(slots.spare().is_some());
        slots.set_limit(0);
        let spares: Vec<Slot<'_>> = std::iter::from_fn(|| slots.spare()).collect();
        assert_eq!(spares.len(), 2 * DOWNLOADS);
    }

    #[tokio::test]
    async fn slots_are_few_and_may_become_more_or_fewer() {
        let slots = Slots::new(1);
        let first = slots.take().await;
        assert!(!slots.try_take());
        let mut second = std::pin::pin!(slots.take());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        slots.set_limit(2);
        let second = second.await;
        slots.set_limit(1);
        drop(first);
        assert!(!slots.try_take(), "the second is still there");
        let mut third = std::pin::pin!(slots.take());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(second);
        drop(third.await);
        slots.set_limit(0);
        let many = [slots.take().await, slots.take().await, slots.take().await];
        assert_eq!(many.len(), 3);
    }
}
