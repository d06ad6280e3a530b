//! Bytes on their way between threads: bounded channels of chunks, a reader over them, and a hash taken in passing.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc,
    thread,
};

use bytes::Bytes;
use cleat_proto::digest::Digest;
use sha2::{Digest as _, Sha256};

/// The size of a chunk where we make it.
pub const CHUNK: usize = 128 << 10;
/// How many chunks may wait between two threads: with [`CHUNK`] a bound on memory per step.
const QUEUE: usize = 16;

/// Where chunks come from. An empty chunk is not the end; `None` is.
pub trait Chunks: Send {
    /// Waits for the next chunk.
    ///
    /// # Errors
    /// Whatever the source met.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

impl<T: Chunks + ?Sized> Chunks for Box<T> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        (**self).next()
    }
}

impl<T: Chunks + ?Sized> Chunks for &mut T {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        (**self).next()
    }
}

/// Chunks that an asynchronous task sends: a request's body.
pub struct Received(tokio::sync::mpsc::Receiver<io::Result<Bytes>>);

impl Received {
    /// Makes a channel for a body.
    pub fn channel() -> (tokio::sync::mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        (sender, Self(receiver))
    }
}

impl Chunks for Received {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.blocking_recv().transpose()
    }
}

/// All that a reader gives, read by a thread of its own, ahead of whoever takes it.
pub struct ReadAhead(mpsc::Receiver<io::Result<Bytes>>);

impl ReadAhead {
    /// Starts the thread. It ends with the reader, or when nobody takes any more.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(mut reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("read-ahead".into()).spawn(move || {
            loop {
                let chunk = read_chunk(&mut reader);
                let last = !matches!(&chunk, Ok(Some(_)));
                let Some(chunk) = chunk.transpose() else { return };
                if sender.send(chunk).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }
}

fn read_chunk(reader: &mut impl Read) -> io::Result<Option<Bytes>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok((!chunk.is_empty()).then(|| Bytes::from(chunk)))
}

impl Chunks for ReadAhead {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.recv().ok().transpose()
    }
}

/// Passes chunks on and hashes them in a thread of its own.
pub struct Hashed<C> {
    inner: C,
    hasher: Hasher,
}

/// A thread that hashes.
struct Hasher {
    sender: mpsc::SyncSender<Bytes>,
    thread: thread::JoinHandle<Sum>,
}

/// What went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Of all bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

impl Hasher {
    fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel::<Bytes>(QUEUE);
        let thread = thread::Builder::new().name("sha256".into()).spawn(move || {
            let mut hash = Sha256::new();
            let mut size = 0;
            for chunk in receiver {
                hash.update(&chunk);
                size += chunk.len() as u64;
            }
            Sum { digest: Digest::from_sum(hash.finalize()), size }
        })?;
        Ok(Self { sender, thread })
    }

    fn add(&self, chunk: Bytes) -> io::Result<()> {
        self.sender.send(chunk).map_err(|_| io::Error::other("the hashing thread died"))
    }

    fn finish(self) -> io::Result<Sum> {
        drop(self.sender);
        self.thread.join().map_err(|_| io::Error::other("the hashing thread died"))
    }
}

impl<C: Chunks> Hashed<C> {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn new(inner: C) -> io::Result<Self> {
        Ok(Self { inner, hasher: Hasher::start()? })
    }

    /// Reads what is left and returns the sum of all.
    ///
    /// # Errors
    /// Whatever the source met.
    pub fn finish(mut self) -> io::Result<Sum> {
        while self.next()?.is_some() {}
        self.hasher.finish()
    }
}

impl<C: Chunks> Chunks for Hashed<C> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = self.inner.next()?;
        if let Some(chunk) = &chunk {
            self.hasher.add(chunk.clone())?;
        }
        Ok(chunk)
    }
}

/// Reads chunks as a stream of bytes, without copying where the reader uses `fill_buf`.
pub struct ChunkReader<C> {
    source: C,
    chunk: Bytes,
}

impl<C: Chunks> ChunkReader<C> {
    /// Begins to read.
    pub fn new(source: C) -> Self {
        Self { source, chunk: Bytes::new() }
    }

    /// Returns the source; what was fetched and not read is lost.
    pub fn into_source(self) -> C {
        self.source
    }
}

impl<C: Chunks> BufRead for ChunkReader<C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.source.next()? {
                Some(chunk) => self.chunk = chunk,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.chunk.split_to(amount);
    }
}

impl<C: Chunks> Read for ChunkReader<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<C: Chunks> Chunks for ChunkReader<C> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.chunk.is_empty() {
            return self.source.next();
        }
        Ok(Some(std::mem::take(&mut self.chunk)))
    }
}

/// Where chunks go.
pub trait Sink {
    /// Hands a chunk on, or the error that ends the stream. Blocks while whoever takes them is behind.
    ///
    /// # Errors
    /// `BrokenPipe` if nobody takes any more.
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()>;
}

impl Sink for tokio::sync::mpsc::Sender<io::Result<Bytes>> {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        self.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Sink for mpsc::SyncSender<io::Result<Bytes>> {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        mpsc::SyncSender::send(self, chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Collects what is written into chunks and hands them on.
pub struct ChunkWriter<S> {
    sink: S,
    buffer: Vec<u8>,
    hasher: Option<Hasher>,
}

/// Writes to an asynchronous task: a response's body.
pub type BodyWriter = ChunkWriter<tokio::sync::mpsc::Sender<io::Result<Bytes>>>;

/// Writes to another thread.
pub type PipeWriter = ChunkWriter<mpsc::SyncSender<io::Result<Bytes>>>;

/// Makes a channel for a body.
pub fn body() -> (BodyWriter, tokio::sync::mpsc::Receiver<io::Result<Bytes>>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
    (ChunkWriter::new(sender), receiver)
}

/// Makes a pipe within the process.
pub fn pipe() -> (PipeWriter, impl Chunks + 'static) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    (ChunkWriter::new(sender), ReadAhead(receiver))
}

impl<S: Sink> ChunkWriter<S> {
    fn new(sink: S) -> Self {
        Self { sink, buffer: Vec::new(), hasher: None }
    }

    /// Hashes what is written from now on.
    ///
    /// # Errors
    /// If the reader is gone, or there is no thread.
    pub fn start_sum(&mut self) -> io::Result<()> {
        io::Write::flush(self)?;
        self.hasher = Some(Hasher::start()?);
        Ok(())
    }

    /// Returns the sum of what was written since [`Self::start_sum`].
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn finish_sum(&mut self) -> io::Result<Sum> {
        io::Write::flush(self)?;
        let hasher = self.hasher.take();
        hasher.ok_or_else(|| io::Error::other("nothing was hashed"))?.finish()
    }

    /// Ends the stream with an error: the reader sees a cut stream, not a whole one.
    pub fn fail(self, error: io::Error) {
        let _ = self.sink.send(Err(error));
    }
}

impl PipeWriter {
    /// Sends a chunk as it is, beside what is written; answers whether anybody takes it.
    pub fn send(&self, chunk: Bytes) -> bool {
        self.sink.send(Ok(chunk)).is_ok()
    }
}

impl<S: Sink> io::Write for ChunkWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(CHUNK);
        }
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        if let Some(hasher) = &self.hasher {
            hasher.add(chunk.clone())?;
        }
        self.sink.send(Ok(chunk))
    }
}
