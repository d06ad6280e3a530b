//! Decompression in process, by the first bytes: no program is ever run for it (CVE-2026-41567).

use std::io::{self, BufRead, Chain, Cursor, Read};

use super::{
    Error,
    chunks::{ChunkReader, Chunks, ReadAhead},
};

/// zstd's window may take this much memory (log 2); larger ones are refused by the decoder.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// xz's dictionary may take this much memory.
const XZ_MEMORY_MAX: u64 = 128 << 20;
/// The longest magic number below.
const MAGIC_MAX: usize = 6;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Tells from a stream's first bytes.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame in front: RFC 8878, 3.1.2.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Returns the chunks of a stream, decompressed if need be, by a thread of its own then.
///
/// # Errors
/// [`Error::Input`] if the stream cannot be read, or there is no thread.
pub fn decompressed(source: impl Chunks + 'static) -> Result<Box<dyn Chunks>, Error> {
    let mut reader = ChunkReader::new(source);
    let start = peek(&mut reader).map_err(Error::from_input)?;
    let kind = Compression::of(&start);
    let whole = Cursor::new(start).chain(reader);
    let decoder = match kind {
        Compression::None => return Ok(Box::new(Plain { reader: ChunkReader::new(Rest(whole)) })),
        other => decoder(other, whole).map_err(Error::Compression)?,
    };
    let ahead = ReadAhead::start(Telling(decoder)).map_err(Error::Input)?;
    Ok(Box::new(ahead))
}

/// A decoder for `kind` over `input`.
///
/// # Errors
/// If the decoder cannot be made.
pub fn decoder<R: BufRead + Send + 'static>(
    kind: Compression,
    input: R,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match kind {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_MAX,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

fn peek(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_MAX);
    reader.take(MAGIC_MAX as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Says which of the two failed: the decoder, or the stream below it.
struct Telling<R>(R);

impl<R: Read> Read for Telling<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return error;
            }
            let told = match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Truncated,
                _ => Error::Compression(error),
            };
            io::Error::other(told)
        })
    }
}

/// What was peeked at, then the rest, as chunks again.
struct Rest<C>(Chain<Cursor<Vec<u8>>, ChunkReader<C>>);

impl<C: Chunks> Chunks for Rest<C> {
    fn next(&mut self) -> io::Result<Option<bytes::Bytes>> {
        let (start, rest) = self.0.get_mut();
        let position = start.position() as usize;
        if position < start.get_ref().len() {
            let chunk = bytes::Bytes::copy_from_slice(&start.get_ref()[position..]);
            start.set_position(start.get_ref().len() as u64);
            return Ok(Some(chunk));
        }
        rest.next()
    }
}

struct Plain<C> {
    reader: ChunkReader<Rest<C>>,
}

impl<C: Chunks> Chunks for Plain<C> {
    fn next(&mut self) -> io::Result<Option<bytes::Bytes>> {
        self.reader.next()
    }
}
