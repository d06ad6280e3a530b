//! A little of the disk that is kept for the database: on a full disk what takes things away must still be recorded.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// More than the changes of any commit take.
const BYTES: i64 = 1 << 20;

/// By how much the records may grow, together, in a commit that the reserve is given up for: a state that is noted, a name.
pub(super) const GROWTH_MAX: i64 = 1024;

fn path(database: &Path) -> PathBuf {
    database.with_extension("reserve")
}

/// Makes the reserve if it is not there. Without space there is none, until there is some again.
pub(super) fn keep(database: &Path) {
    let path = path(database);
    if path.exists() {
        return;
    }
    let made = File::create_new(&path)
        .and_then(|file| Ok(nix::fcntl::posix_fallocate(file.as_fd(), 0, BYTES)?));
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
}

/// Gives the space to whoever needs it now.
pub(super) fn give_up(database: &Path) {
    let _ = fs::remove_file(path(database));
}

/// Whether a failure was that of a full disk.
pub(super) fn is_full(error: &redb::Error) -> bool {
    let redb::Error::Io(error) = error else { return false };
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
