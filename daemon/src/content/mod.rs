//! Blobs by digest, `ROOT/content/blobs/sha256/…`, and ingests that are still being written.
