//! Volumes of the local driver: `ROOT/volumes/<name>/_data`.
