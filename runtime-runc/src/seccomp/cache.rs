//! A cache of compiled filters: a host's containers mostly share one profile.
//!
//! A file is named by a short hash of the profile, and holds the whole profile before the program: who finds another profile with
//! the same hash gains nothing. Files are written under another name and renamed, are root's alone, and are believed only
//! if they are ours.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use oci_spec::runtime::LinuxSeccomp;

use super::{Error, Filter, compile, head};

/// Changes whenever the compiler makes other programs of the same profiles.
const VERSION: &str = "1";
/// Nothing that we wrote is longer.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Compiles a profile, or takes what an earlier call left in `cache_dir`, which is created if need be.
/// A cache that cannot be read or written costs time, and is no error.
pub fn cached(cache_dir: &Path, profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let Ok(mut key) = serde_json::to_vec(profile) else { return compile(profile) };
    key.extend_from_slice(VERSION.as_bytes());
    let path = cache_dir.join(format!("{:016x}", fnv(&key)));
    if let Some(program) = read(&path, &key) {
        return Ok(Filter { program, ..head(profile) });
    }
    let filter = compile(profile)?;
    // A full or read-only disk must not keep a container from starting.
    let _ = write(cache_dir, &path, &key, &filter.program);
    Ok(filter)
}

/// FNV-1a. Source: RFC 9923.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn read(path: &Path, key: &[u8]) -> Option<Vec<u8>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    let is_ours =
        metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o7777 == 0o600;
    if !metadata.is_file() || !is_ours || metadata.len() > MAX_FILE_BYTES {
        return None;
    }
    let mut content = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut content).ok()?;
    let program = content.strip_prefix(key)?;
    (!program.is_empty() && program.len() % 8 == 0).then(|| program.to_vec())
}

fn write(cache_dir: &Path, path: &Path, key: &[u8], program: &[u8]) -> io::Result<()> {
    let temporary = cache_dir.join(format!(".{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = match options.open(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(cache_dir)?;
            options.open(&temporary)?
        }
        // Left by one that was killed while it wrote, and had our pid.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary)?;
            options.open(&temporary)?
        }
        other => other?,
    };
    let written = file
        .write_all(key)
        .and_then(|()| file.write_all(program))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
