//! What nothing refers to: mark and sweep as a pure function over references. The caller removes what it returns.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cleat_proto::digest::ChainId;

use crate::snapshot::Layer;

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

    #[test]
    fn without_roots_all_goes_from_the_top() {
        let layers = [layer(1, None), layer(2, Some(1)), layer(3, Some(2))];
        assert_eq!(unreferenced(&layers, &HashSet::new()), [chain(3), chain(2), chain(1)]);
    }
}
