//! The record of the `json-file` logging driver, one JSON object a line.
//!
//! Readers outside cleat follow these files, so the order of the keys and the form of the time are Docker's:
//! `{"log":"…\n","stream":"stdout","attrs":{…},"time":"2026-01-02T03:04:05.000000006Z"}`. A line longer than [`MAX_RECORD_BYTES`]
//! is cut into records of that size, of which only the last ends in a newline.

/// How much of a line one record holds at most.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;
