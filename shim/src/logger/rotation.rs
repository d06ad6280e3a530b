//! Rotated log files, named as Docker names them: `LOG.1` is the youngest, with `.gz` when compressed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

/// How large a log may grow and what becomes of it then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// 0: without limit.
    pub max_size_bytes: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    pub compress: bool,
}

/// Returns the path of the `index`th rotated file.
pub fn rotated(path: &Path, index: u32, compressed: bool) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}{}", if compressed { ".gz" } else { "" }));
    name.into()
}

/// Moves every rotated file up by one, dropping the oldest, and the current one to `.1`.
///
/// # Errors
/// What a rename says other than that there was nothing to rename.
pub fn rotate(path: &Path, limits: Limits) -> io::Result<()> {
    let last = limits.max_files.saturating_sub(1);
    for compressed in [false, true] {
        missing_is_fine(fs::remove_file(rotated(path, last, compressed)))?;
        for index in (1..last).rev() {
            missing_is_fine(fs::rename(
                rotated(path, index, compressed),
                rotated(path, index + 1, compressed),
            ))?;
        }
    }
    missing_is_fine(fs::rename(path, rotated(path, 1, false)))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A file on its way to its compressed form, a piece at a time, so that the one thread we have stays free for the container.
pub struct Squeeze {
    from: File,
    plain: PathBuf,
    temporary: PathBuf,
    target: PathBuf,
    encoder: GzEncoder<File>,
}

impl Squeeze {
    const PIECE: usize = 64 * 1024;

    /// Begins with `LOG.1`.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let (plain, target) = (rotated(path, 1, false), rotated(path, 1, true));
        let temporary = target.with_extension("tmp");
        let from = File::open(&plain)?;
        let to = super::json_file::create(&temporary)?;
        Ok(Self {
            from,
            plain,
            temporary,
            target,
            encoder: GzEncoder::new(to, Compression::fast()),
        })
    }

    /// Does one more piece, and returns whether there is more to do.
    pub fn step(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; Self::PIECE];
        let n = self.from.read(&mut piece)?;
        if n > 0 {
            self.encoder.write_all(&piece[..n])?;
            return Ok(true);
        }
        self.encoder.try_finish()?;
        fs::rename(&self.temporary, &self.target)?;
        fs::remove_file(&self.plain)?;
        Ok(false)
    }

    /// Gives up; the plain file stays.
    pub fn abandon(self) {
        // It may not be there: nothing more can be done about it either way.
        let _ = fs::remove_file(&self.temporary);
    }
}
