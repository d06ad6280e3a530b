//! Images: references, manifests and configs over content and snapshots.
