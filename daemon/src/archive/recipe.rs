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

/// Fast rather than small: headers shrink to a tenth either way.
const LEVEL: i32 = 1;
/// Raw bytes are collected up to this.
const RAW_MAX: usize = 64 << 10;
/// No path in a recipe is longer.
const PATH_MAX: usize = 8192;

/// Writes a recipe while a layer is applied.
pub struct Writer {
    output: zstd::stream::write::Encoder<'static, File>,
    raw: Vec<u8>,
}

impl Writer {
    /// Begins a recipe.
    ///
    /// # Errors
    /// Those of the compressor.
    pub fn new(file: File) -> io::Result<Self> {
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
