//! What nothing refers to: mark and sweep as a pure function over references. The caller removes what it returns.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use cleat_proto::digest::ChainId;

use crate::snapshot::Layer;

/// When images go by themselves. By default never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Once they were not used for so long.
    pub max_unused: Option<Duration>,
    /// While more of the disk is taken.
    pub disk_percent: Option<u8>,
}

/// An image that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Which.
    pub id: String,
    /// When it was last used, in nanoseconds since the epoch.
    pub last_used_nanos: i64,
}

/// Why an image goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was not used for so long.
    Old(Duration),
    /// So many percent of the disk are taken.
    Full(u8),
}

impl Policy {
    /// Returns which image is to go next, if one is: of those that are too old, and then of all while the disk is too full, the one
    /// unused for the longest. `taken` is how much of the disk is taken, in percent, if that is known.
    pub fn next(
        &self,
        unused: Vec<Unused>,
        now_nanos: i64,
        taken: Option<u8>,
    ) -> Option<(Unused, Reason)> {
        let key = |image: &Unused| (image.last_used_nanos, image.id.clone());
        let oldest = unused.into_iter().min_by_key(key)?;
        // A clock that was set back makes nothing old.
        let age = u64::try_from(now_nanos.saturating_sub(oldest.last_used_nanos)).unwrap_or(0);
        let age = Duration::from_nanos(age);
        if self.max_unused.is_some_and(|most| age > most) {
            return Some((oldest, Reason::Old(age)));
        }
        let (taken, most) = taken.zip(self.disk_percent)?;
        (taken > most).then_some((oldest, Reason::Full(taken)))
    }
}

/// Returns the layers that no root stands on, those above before those below.
pub fn unreferenced(layers: &[Arc<Layer>], roots: &HashSet<ChainId>) -> Vec<ChainId> {
    let by_id: HashMap<&ChainId, &Layer> =
        layers.iter().map(|layer| (&layer.chain_id, layer.as_ref())).collect();
    let mut marked: HashSet<&ChainId> = HashSet::new();
    for root in roots {
        let mut next = by_id.get(root);
        while let Some(layer) = next {
            if !marked.insert(&layer.chain_id) {
                break;
            }
            next = layer.parent.as_ref().and_then(|parent| by_id.get(parent));
        }
    }
    let mut garbage: Vec<&Layer> =
        by_id.values().filter(|layer| !marked.contains(&layer.chain_id)).copied().collect();
    garbage.sort_by_key(|layer| (std::cmp::Reverse(depth(layer, &by_id)), layer.number));
    garbage.into_iter().map(|layer| layer.chain_id.clone()).collect()
}

fn depth(layer: &Layer, by_id: &HashMap<&ChainId, &Layer>) -> usize {
    std::iter::successors(Some(layer), |layer| {
        layer.parent.as_ref().and_then(|parent| by_id.get(parent)).copied()
    })
    .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::digest::DiffId;

    fn chain(n: u8) -> ChainId {
        ChainId::from_sum([n; 32])
    }

    fn layer(n: u8, parent: Option<u8>) -> Arc<Layer> {
        Arc::new(Layer {
            chain_id: chain(n),
            diff_id: DiffId::from_sum([n; 32]),
            parent: parent.map(chain),
            number: n.into(),
            size: 0,
            tar_size: 0,
        })
    }

    #[test]
    fn a_layer_below_a_root_is_kept_and_one_above_is_not() {
        let layers = [layer(1, None), layer(2, Some(1)), layer(3, Some(2)), layer(4, Some(2))];
        let found = unreferenced(&layers, &HashSet::from([chain(3)]));
        assert_eq!(found, [chain(4)]);
    }

    #[track_caller]
    fn goes(policy: Policy, ages: &[(&str, i64)], taken: Option<u8>, expected: &[&str]) {
        const NOW: i64 = 1000;
        let image =
            |(id, age): &(&str, i64)| Unused { id: (*id).into(), last_used_nanos: NOW - age };
        let mut unused: Vec<Unused> = ages.iter().map(image).collect();
        let mut gone = Vec::new();
        while let Some((image, _)) = policy.next(unused.clone(), NOW, taken) {
            unused.retain(|other| *other != image);
            gone.push(image.id);
        }
        assert_eq!(gone, expected, "{policy:?} at {taken:?}");
    }

    #[test]
    fn images_go_by_age_and_while_the_disk_is_too_full_and_by_themselves_not_at_all() {
        let ages = [("new", 10), ("old", 90), ("mid", 50), ("next", -5)];
        let (max_unused, disk_percent) = (Some(Duration::from_nanos(60)), Some(80));
        goes(Policy::default(), &ages, Some(100), &[]);
        goes(Policy { max_unused, disk_percent: None }, &ages, Some(100), &["old"]);
        let none = None;
        goes(Policy { max_unused: none, disk_percent }, &ages, Some(80), &[]);
        goes(Policy { max_unused: none, disk_percent }, &ages, None, &[]);
        let all = ["old", "mid", "new", "next"];
        goes(Policy { max_unused: none, disk_percent }, &ages, Some(81), &all);
        goes(Policy { max_unused, disk_percent }, &ages, Some(10), &["old"]);
        // At its limit one is not over it.
        goes(Policy { max_unused, disk_percent: None }, &[("a", 60), ("b", 61)], None, &["b"]);
        // Of the same age the name decides.
        goes(Policy { max_unused, disk_percent }, &[("b", 99), ("a", 99)], None, &["a", "b"]);
    }

    #[test]
    fn why_an_image_goes_is_told() {
        let policy = Policy { max_unused: Some(Duration::from_nanos(60)), disk_percent: Some(80) };
        let reason = |last_used_nanos| {
            let image = Unused { id: "one".into(), last_used_nanos };
            policy.next(vec![image], 100, Some(90)).unwrap().1
        };
        assert_eq!(reason(10), Reason::Old(Duration::from_nanos(90)));
        assert_eq!(reason(50), Reason::Full(90));
    }

    #[test]
    fn without_roots_all_goes_from_the_top() {
        let layers = [layer(1, None), layer(2, Some(1)), layer(3, Some(2))];
        assert_eq!(unreferenced(&layers, &HashSet::new()), [chain(3), chain(2), chain(1)]);
    }
}
