//! How much a directory holds.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Adds up the sizes of all files below a directory, each inode once, as Docker does. No link is followed.
pub fn bytes(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut waiting = vec![directory.to_owned()];
    let mut total = 0;
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    total
}
