//! A container's running instance, seen from the daemon: launching its shim and speaking to it.
