//! gzip in parallel: blocks of equal length, each compressed by whichever thread is free, with the end of the block before as
//! its dictionary. Together they are one member (RFC 1952), whose bytes do not depend on how many threads there were.
//!
//! ```text
//!  source ─▶ block ─▶ queue ─▶ worker, worker … ─▶ in order ─▶ output
//! ```

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// What is compressed at once. Longer ones gain nothing, shorter ones lose a little at each seam.
const BLOCK: usize = 512 << 10;
/// How far back deflate looks. RFC 1951, 2.
const WINDOW: usize = 32 << 10;
/// The most threads, and with them a bound on memory: about two megabytes for each.
const WORKERS_MAX: usize = 8;
/// Half again as fast as zlib's own default, for about two parts in a hundred more bytes on trees of files.
const LEVEL: u32 = 3;
/// No flags, no time, no file system. RFC 1952, 2.3.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

struct Job {
    /// The end of the block before.
    dictionary: Vec<u8>,
    block: Vec<u8>,
    is_last: bool,
    reply: mpsc::SyncSender<io::Result<Block>>,
}

struct Block {
    bytes: Vec<u8>,
    sum: Crc,
}

/// Compresses all that `next` gives.
///
/// # Errors
/// Those of `next` and of the output.
pub fn compress(
    mut next: impl FnMut() -> io::Result<Option<Bytes>>,
    output: &mut impl Write,
) -> io::Result<()> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    thread::scope(|scope| {
        let (jobs, queue) = mpsc::sync_channel(workers);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            let worker = thread::Builder::new().name("gzip".into());
            worker.spawn_scoped(scope, move || work(&queue))?;
        }
        output.write_all(&HEADER)?;
        let (mut waiting, mut sum) = (VecDeque::new(), Crc::new());
        let (mut rest, mut dictionary, mut is_last) = (Bytes::new(), Vec::new(), false);
        while !is_last {
            let mut block = Vec::with_capacity(BLOCK);
            is_last = fill(&mut block, &mut rest, &mut next)?;
            let window = block[block.len().saturating_sub(WINDOW)..].to_vec();
            let dictionary = std::mem::replace(&mut dictionary, window);
            let (reply, answer) = mpsc::sync_channel(1);
            jobs.send(Job { dictionary, block, is_last, reply }).map_err(|_| dead())?;
            waiting.push_back(answer);
            if waiting.len() > workers {
                write_first(&mut waiting, &mut sum, output)?;
            }
        }
        while !waiting.is_empty() {
            write_first(&mut waiting, &mut sum, output)?;
        }
        output.write_all(&sum.sum().to_le_bytes())?;
        output.write_all(&sum.amount().to_le_bytes())
    })
}

/// Fills a block. Returns whether there is nothing more.
fn fill(
    block: &mut Vec<u8>,
    rest: &mut Bytes,
    next: &mut impl FnMut() -> io::Result<Option<Bytes>>,
) -> io::Result<bool> {
    loop {
        let count = rest.len().min(BLOCK - block.len());
        block.extend_from_slice(&rest.split_to(count));
        if block.len() == BLOCK {
            return Ok(false);
        }
        match next()? {
            Some(chunk) => *rest = chunk,
            None => return Ok(true),
        }
    }
}

fn write_first(
    waiting: &mut VecDeque<mpsc::Receiver<io::Result<Block>>>,
    sum: &mut Crc,
    output: &mut impl Write,
) -> io::Result<()> {
    let Some(first) = waiting.pop_front() else { return Ok(()) };
    let block = first.recv().map_err(|_| dead())??;
    sum.combine(&block.sum);
    output.write_all(&block.bytes)
}

fn dead() -> io::Error {
    io::Error::other("a compressing thread died")
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let block = deflated(&mut deflate, &job);
        // Whoever waited may have failed meanwhile.
        let _ = job.reply.send(block);
    }
}

/// Compresses one block up to a byte's boundary, so that the next one can follow.
fn deflated(deflate: &mut Compress, job: &Job) -> io::Result<Block> {
    deflate.reset();
    if !job.dictionary.is_empty() {
        deflate.set_dictionary(&job.dictionary).map_err(io::Error::other)?;
    }
    let flush = if job.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut bytes = Vec::with_capacity(BLOCK / 2);
    let mut left = &job.block[..];
    loop {
        let before = deflate.total_in();
        let status = deflate.compress_vec(left, &mut bytes, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(deflate.total_in() - before).map_err(io::Error::other)?;
        left = &left[taken..];
        let is_whole = match job.is_last {
            true => status == Status::StreamEnd,
            // Room that was left over says that the flush is complete.
            false => left.is_empty() && bytes.len() < bytes.capacity(),
        };
        if is_whole {
            break;
        }
        bytes.reserve(BLOCK / 4);
    }
    let mut sum = Crc::new();
    sum.update(&job.block);
    Ok(Block { bytes, sum })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn compressed(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut chunks = bytes.chunks(chunk);
        let mut output = Vec::new();
        compress(|| Ok(chunks.next().map(Bytes::copy_from_slice)), &mut output).unwrap();
        output
    }

    /// A third noise, the rest text.
    fn mixed(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let bytes = (0..length).map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at / 1000 % 3 == 0 { (state >> 24) as u8 } else { b"the same again "[at % 15] }
        });
        bytes.collect()
    }

    #[test]
    fn one_member_comes_back_as_it_was() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 12_345] {
            let bytes = mixed(length);
            let packed = compressed(&bytes, 100_000);
            let (mut back, mut decoder) = (Vec::new(), flate2::bufread::GzDecoder::new(&*packed));
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            assert!(decoder.into_inner().is_empty(), "nothing follows the member of {length}");
        }
    }

    #[test]
    fn noise_comes_back_as_well() {
        let bytes: Vec<u8> =
            mixed(3_000_000).chunks(3000).flat_map(|part| part[..1000].to_vec()).collect();
        let packed = compressed(&bytes, 4096);
        let mut back = Vec::new();
        flate2::bufread::GzDecoder::new(&*packed).read_to_end(&mut back).unwrap();
        assert!(back == bytes);
    }

    #[test]
    fn the_bytes_do_not_depend_on_how_they_came() {
        let bytes = mixed(3 * BLOCK + 7);
        assert!(compressed(&bytes, 1000) == compressed(&bytes, 10 * BLOCK));
    }

    #[test]
    fn an_error_of_the_source_is_the_answer() {
        let mut count = 0;
        let next = || {
            count += 1;
            if count == 20 { Err(io::Error::other("gone")) } else { Ok(Some(mixed(BLOCK).into())) }
        };
        assert_eq!(compress(next, &mut Vec::new()).unwrap_err().to_string(), "gone");
    }
}
