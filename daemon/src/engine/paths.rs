//! Directories that are nobody else's business.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

use cleat_proto::kind::Kind;

use super::{Error, Result};

/// Makes a directory (and those above it) that only root can look into, others can pass through.
pub(super) fn make_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o710).recursive(true).create(path).map_err(|error| {
        Error::with_source(Kind::Internal, format!("cannot make {}", path.display()), error)
    })
}

/// Removes a directory and all in it. Idempotent.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::with_source(
            Kind::Internal,
            format!("cannot remove {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

/// Makes a directory of the host that `-v` names and that is not there, as Docker does: root's, 0755.
pub(super) fn make_shared(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o755).recursive(true).create(path).map_err(|error| {
        Error::with_source(
            Kind::Internal,
            format!("error while creating mount source path '{}'", path.display()),
            error,
        )
    })
}
