//! Network namespaces as descriptors.
