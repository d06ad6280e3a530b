//! Tar in and out of a tree, on descriptors: one applier for layers, `docker cp` and import; one packer for export and diff.
