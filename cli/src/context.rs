//! Stored contexts: `contexts/meta/SHA256(NAME)/meta.json` in the configuration directory.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The file that describes context `name`.
pub fn meta_file(directory: &Path, name: &str) -> PathBuf {
    let hash: String =
        Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join("contexts").join("meta").join(hash).join("meta.json")
}
