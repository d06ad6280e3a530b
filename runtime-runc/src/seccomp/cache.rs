//! A cache of compiled filters: a host's containers mostly share one profile.
//!
//! A file is named by a short hash of the profile's text, and holds the program, then the whole text: who finds another profile
//! with the same hash gains nothing. Nothing of the text is parsed for that. Files are written under another name and renamed,
//! never changed (containers have links to them), are root's alone, and are believed only if they are ours.
//!
//! ```text
//! program · text of the profile · version · flags (u32) · length of the program (u32)
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use serde_json::value::RawValue;

use super::{Error, Filter, compile};

/// Changes whenever the compiler makes other programs of the same profiles.
const VERSION: &str = "2";
/// Nothing that we wrote is longer.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A filter, and the file that begins with its program where there is one.
#[derive(Debug)]
pub struct Cached {
    pub filter: Filter,
    pub file: Option<File>,
}

/// Compiles a profile, or takes what an earlier call left in `cache_dir`, which is created if need be.
/// A cache that cannot be read or written costs time, and is no error.
pub fn cached(cache_dir: &Path, profile: &RawValue) -> Result<Cached, Error> {
    let key = [profile.get().as_bytes(), VERSION.as_bytes()].concat();
    let path = cache_dir.join(format!("{:016x}", fnv(&key)));
    if let Some((filter, file)) = read(&path, &key) {
        return Ok(Cached { filter, file: Some(file) });
    }
    let filter = compile(&serde_json::from_str(profile.get()).map_err(Error::Profile)?)?;
    // One that notifies has an address with it, and is rare.
    if filter.flags & cleat_sys::seccomp::NEW_LISTENER == 0 {
        // A full or read-only disk must not keep a container from starting.
        let _ = write(cache_dir, &path, &key, &filter);
    }
    Ok(Cached { filter, file: None })
}

/// FNV-1a. Source: RFC 9923.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn read(path: &Path, key: &[u8]) -> Option<(Filter, File)> {
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
    let mut content = vec![0; metadata.len() as usize];
    file.read_exact(&mut content).ok()?;
    let (content, length) = content.split_last_chunk::<4>()?;
    let (content, flags) = content.split_last_chunk::<4>()?;
    let (program, text) = content.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
    let whole = text == key && !program.is_empty() && program.len() % 8 == 0;
    let flags = u32::from_ne_bytes(*flags);
    whole.then(|| (Filter { program: program.to_vec(), flags, ..Filter::default() }, file))
}

fn write(cache_dir: &Path, path: &Path, key: &[u8], filter: &Filter) -> io::Result<()> {
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
    let length = filter.program.len() as u32;
    let content =
        [&filter.program, key, &filter.flags.to_ne_bytes(), &length.to_ne_bytes()].concat();
    let written = file.write_all(&content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
