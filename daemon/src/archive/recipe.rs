//! How to write a layer's tar again, byte for byte, from its files: all of the tar except what files hold.
//!
//! A layer is kept once, as files. Its tar (for `save`, for a push) has to have the digest that the image names, and no
//! packer could guess how the original was made, so everything around the files' bytes is kept: headers, padding, end.
//! zstd makes little of it. Records, lengths as little-endian u32, sizes as u64:
//!
//! ```text
//! R len bytes        these bytes
//! F len path size    the bytes of that file of the layer
//! M len path number  what was at `path` until now has been kept as `old/<number>`: the archive had the name again
//! ```

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
};

use super::Error;
use crate::disk;

/// Fast rather than small: headers shrink to a tenth either way.
const LEVEL: i32 = 1;
/// Raw bytes are collected up to this.
const RAW_MAX: usize = 64 << 10;
/// No path in a recipe is longer.
const PATH_MAX: usize = 8192;

/// Writes a recipe while a layer is applied.
pub struct Writer {
    output: zstd::stream::write::Encoder<'static, disk::File>,
    raw: Vec<u8>,
}

impl Writer {
    /// Begins a recipe.
    ///
    /// # Errors
    /// Those of the compressor.
    pub fn new(file: disk::File) -> io::Result<Self> {
        let output = zstd::stream::write::Encoder::new(file, LEVEL)?;
        Ok(Self { output, raw: Vec::with_capacity(RAW_MAX) })
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.raw.len() + bytes.len() > RAW_MAX {
            self.flush_raw()?;
        }
        if bytes.len() > RAW_MAX {
            return self.record(b'R', bytes, &[]);
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn file(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.flush_raw()?;
        self.record(b'F', path, &size.to_le_bytes())
    }

    pub(super) fn moved(&mut self, path: &[u8], number: u32) -> io::Result<()> {
        self.flush_raw()?;
        self.record(b'M', path, &u64::from(number).to_le_bytes())
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.raw);
        self.record(b'R', &raw, &[])?;
        self.raw = raw;
        self.raw.clear();
        Ok(())
    }

    fn record(&mut self, kind: u8, bytes: &[u8], tail: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.output.write_all(&[kind])?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(bytes)?;
        self.output.write_all(tail)
    }

    /// Ends the recipe.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush_raw()?;
        self.output.finish().map(drop)
    }
}

/// One record, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These bytes.
    Raw(Vec<u8>),
    /// As many bytes of a file of the layer.
    File {
        /// Below the layer's root.
        path: Vec<u8>,
        /// How many.
        size: u64,
    },
    /// What was at the path so far is kept under a number.
    Moved {
        /// Below the layer's root.
        path: Vec<u8>,
        /// `old/<number>`.
        number: u32,
    },
}

/// Reads a recipe.
pub struct Reader(BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>);

impl Reader {
    /// Begins to read.
    ///
    /// # Errors
    /// Those of the decompressor.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self(BufReader::with_capacity(64 << 10, zstd::stream::read::Decoder::new(file)?)))
    }

    /// Reads the next record; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Input`] for a damaged recipe.
    pub fn next_record(&mut self) -> Result<Option<Record>, Error> {
        self.read().map_err(Error::Input)
    }

    fn read(&mut self) -> io::Result<Option<Record>> {
        if self.0.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != b'R' && length > PATH_MAX {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        (&mut self.0).take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() != length {
            return Err(damaged());
        }
        Ok(Some(match head[0] {
            b'R' => Record::Raw(bytes),
            b'F' => Record::File { path: bytes, size: self.number()? },
            b'M' => {
                let number = u32::try_from(self.number()?).map_err(|_| damaged())?;
                Record::Moved { path: bytes, number }
            }
            _ => return Err(damaged()),
        }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's recipe is damaged")
}

/// Writes a layer's tar again, from its files (`files` below `layer`) and its recipe.
///
/// # Errors
/// [`Error`]: a file is missing or shorter than it was, or the output fails.
pub fn replay(
    layer: &std::path::Path,
    files: &str,
    recipe: &str,
    output: &mut impl Write,
) -> Result<(), Error> {
    let open = |path: &std::path::Path| {
        File::open(path).map_err(Error::io("open", path.as_os_str().as_encoded_bytes()))
    };
    let root = open(&layer.join(files))?;
    let moves = Moves::read(layer, recipe)?;
    let mut reader = Reader::new(open(&layer.join(recipe))?).map_err(Error::Input)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while let Some(record) = reader.next_record()? {
        at += 1;
        match record {
            Record::Raw(bytes) => output.write_all(&bytes).map_err(Error::Output)?,
            Record::Moved { .. } => {}
            Record::File { path, size } => {
                let file = match moves.aside(at, &path) {
                    None => open_below(&root, &path),
                    Some(aside) => open_below(&moves.old, &aside),
                };
                let file = file.map_err(Error::io("open", &path))?;
                copy(&file, size, &path, &mut buffer, output)?;
            }
        }
    }
    Ok(())
}

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;

fn open_below(root: &File, path: &[u8]) -> io::Result<File> {
    use std::os::unix::ffi::OsStrExt;
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    let rules = cleat_sys::openat2::IN_ROOT | cleat_sys::openat2::NO_SYMLINKS;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    Ok(cleat_sys::openat2::openat2(root, path, flags, 0, rules)?.into())
}

fn copy(
    mut file: &File,
    size: u64,
    path: &[u8],
    buffer: &mut [u8],
    output: &mut impl Write,
) -> Result<(), Error> {
    let mut left = size;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = file.read(&mut buffer[..want]).map_err(Error::io("read", path))?;
        if count == 0 {
            return Err(Error::entry(path, "the layer's file is shorter than it was"));
        }
        output.write_all(&buffer[..count]).map_err(Error::Output)?;
        left -= count as u64;
    }
    Ok(())
}

/// What of a layer was replaced by a later entry of its own tar, and where it is kept.
struct Moves {
    /// After which record, what path, under which number.
    all: Vec<(u64, Vec<u8>, u32)>,
    old: File,
}

impl Moves {
    fn read(layer: &std::path::Path, recipe: &str) -> Result<Self, Error> {
        let dir = layer.join("old");
        let mut all = Vec::new();
        let old = match File::open(&dir) {
            // Hardly any layer has the same name twice: nothing to look for.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let old = File::open(layer).map_err(Error::Input)?;
                return Ok(Self { all, old });
            }
            other => other.map_err(Error::Input)?,
        };
        let file = File::open(layer.join(recipe)).map_err(Error::Input)?;
        let mut reader = Reader::new(file).map_err(Error::Input)?;
        let mut at = 0;
        while let Some(record) = reader.next_record()? {
            at += 1;
            if let Record::Moved { path, number } = record {
                all.push((at, path, number));
            }
        }
        Ok(Self { all, old })
    }

    /// Returns where the file that record `at` means is now, if it was moved after that.
    fn aside(&self, at: u64, path: &[u8]) -> Option<Vec<u8>> {
        self.all.iter().find_map(|(after, moved, number)| {
            let rest = path.strip_prefix(moved.as_slice())?;
            let is_it = *after > at && (rest.is_empty() || rest.starts_with(b"/"));
            is_it.then(|| [number.to_string().as_bytes(), rest].concat())
        })
    }
}
