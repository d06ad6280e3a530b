//! Filesystem states: committed ones are an image's layers, active ones a container's own, all as overlayfs directories.
//!
//! `ROOT/snapshots/<n>/fs` is a committed layer, recorded by its chain id; `ROOT/snapshots/active/<container id>/{fs,work}` is a
//! container's, found by its name alone: one without a container's record is swept. Nothing is ever mounted in the
//! host's mount namespace: whoever needs the merged view gets mounts to make, or a detached one as a descriptor.
