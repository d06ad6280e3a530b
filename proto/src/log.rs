//! The `json-file` logging driver's files: one JSON object a line, rotated ones included.
//!
//! Readers outside cleat follow these files, so the order of the keys and the form of the time are Docker's:
//! `{"log":"…\n","stream":"stdout","attrs":{…},"time":"2026-01-02T03:04:05.000000006Z"}`. A line longer than [`MAX_RECORD_BYTES`]
//! is cut into records of that size, of which only the last ends in a newline. The shim writes them; the shim, for who follows, and
//! the daemon, for who does not, read them with a [`Reader`].
//!
//! ```text
//!  open.rs    which files, from where (all, or the last n records)
//!  record.rs  one record: a fast path for what our shim writes, any JSON else
//!  render.rs  which records, and how they are shown
//! ```
//! A reader gives the log in large pieces. A follower goes on across rotations without a gap: a file is read to its end once more
//! after the next one has appeared. Source: Engine API v1.51, ContainerLogs.

mod open;
mod record;
mod render;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use open::Opened;
pub use render::LogOptions;
use render::{Render, Verdict};

/// How much of a line one record holds at most.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;
/// How much a piece holds at least, as long as there is more.
const PIECE_BYTES: usize = 64 * 1024;
/// How much is read from a file at once.
const READ_BYTES: usize = 64 * 1024;
/// A longer record is damaged: 16 KiB of text can become six times as long, and some attributes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What one step brought.
pub struct Piece {
    /// Whole records.
    pub bytes: Vec<u8>,
    /// There is nothing more for now.
    pub caught_up: bool,
    /// There will be nothing more: `until` has passed.
    pub done: bool,
}

/// The files, and where in them we are. Everything here blocks.
pub struct Reader {
    path: PathBuf,
    /// Oldest first; the present one is the last.
    inputs: std::collections::VecDeque<Input>,
    render: Render,
    follow: bool,
    buffer: Vec<u8>,
    /// What of the buffer is filled and not used.
    filled: std::ops::Range<usize>,
}

struct Input {
    source: Source,
    /// Identifies a file that may be rotated while we read it.
    inode: u64,
    /// How much of it counts; without `follow` what is written later does not.
    left: u64,
    /// Records at the beginning that `tail` leaves out.
    skip: usize,
}

enum Source {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Gzip(file) => file.read(buffer),
        }
    }
}

impl Reader {
    /// Opens all files that there are. A `follower` goes on with what is written later; for others it does not count.
    ///
    /// # Errors
    /// An I/O error of a log file; that there is none is no error.
    pub fn open(path: &Path, options: LogOptions, tty: bool, follower: bool) -> io::Result<Self> {
        let opened = open::open(path, options.tail)?;
        Ok(Self::new(path.to_owned(), opened, Render::new(options, tty), follower))
    }

    fn new(path: PathBuf, opened: Vec<Opened>, render: Render, follow: bool) -> Self {
        let last = opened.len().saturating_sub(1);
        let inputs = opened.into_iter().enumerate();
        let inputs =
            inputs.map(|(index, file)| Input::new(file, follow && index == last)).collect();
        Self { path, inputs, render, follow, buffer: Vec::new(), filled: 0..0 }
    }

    /// Reads on.
    ///
    /// # Errors
    /// An I/O error of a log file.
    pub fn piece(&mut self) -> io::Result<Piece> {
        let mut bytes = Vec::with_capacity(PIECE_BYTES + 32 * 1024);
        let (mut caught_up, mut done) = (false, false);
        while bytes.len() < PIECE_BYTES && !done && !caught_up {
            if self.fill()? {
                done = self.consume(&mut bytes);
            } else {
                caught_up = !self.next_input()?;
            }
        }
        if caught_up {
            // A reader that waits costs no more than its descriptors.
            self.compact();
        }
        Ok(Piece { bytes, caught_up, done })
    }

    /// Reads more of the present file; `false` at its end.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(input) = self.inputs.front_mut() else { return Ok(false) };
        if self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.filled.len() >= MAX_LINE_BYTES {
            self.filled = 0..0;
        }
        let wanted = self.filled.end + READ_BYTES;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let room = usize::try_from(input.left).unwrap_or(usize::MAX).min(READ_BYTES);
        let read = input.source.read(&mut self.buffer[self.filled.end..self.filled.end + room])?;
        input.left -= read as u64;
        self.filled.end += read;
        Ok(read > 0)
    }

    /// Renders whole records; answers whether `until` has passed.
    fn consume(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(input) = self.inputs.front_mut() else { return false };
        let data = &self.buffer[self.filled.clone()];
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &data[at..]) {
            let line = &data[at..at + length];
            at += length + 1;
            if input.skip > 0 {
                input.skip -= 1;
            } else if self.render.record(line, out) == Verdict::Past {
                return true;
            }
        }
        self.filled.start += at;
        false
    }

    fn compact(&mut self) {
        let rest = self.buffer[self.filled.clone()].to_vec();
        self.filled = 0..rest.len();
        self.buffer = rest;
    }

    /// Goes on with the next file; `false` if there is none yet.
    fn next_input(&mut self) -> io::Result<bool> {
        if self.inputs.len() <= 1 && !(self.follow && self.look_for_newer()?) {
            return Ok(false);
        }
        if self.inputs.len() > 1 {
            // The end of a file is the end of a record, unless the disk was full.
            self.filled = 0..0;
            self.inputs.pop_front();
        }
        Ok(true)
    }

    /// Finds out whether the file that we read was rotated or cut, and lines up what came after it.
    fn look_for_newer(&mut self) -> io::Result<bool> {
        let Some(present) = self.inputs.front_mut() else {
            // The container was started, its log is not there yet.
            let newer = open::newer_than(&self.path, None)?;
            self.inputs.extend(newer.into_iter().map(|file| Input::new(file, true)));
            return Ok(!self.inputs.is_empty());
        };
        let Ok(meta) = std::fs::metadata(&self.path) else { return Ok(false) };
        if meta.ino() == present.inode {
            return present.was_cut(meta.len());
        }
        // It may have grown between our last read and the rotation: once more, before the next.
        if self.fill()? {
            return Ok(true);
        }
        let inode = self.inputs.front().map(|input| input.inode);
        let newer = open::newer_than(&self.path, inode)?;
        self.inputs.extend(newer.into_iter().map(|file| Input::new(file, true)));
        Ok(self.inputs.len() > 1)
    }
}

impl Input {
    fn new(opened: Opened, endless: bool) -> Self {
        let left = if endless || opened.gzip {
            u64::MAX
        } else {
            opened.size.saturating_sub(opened.offset)
        };
        let source = if opened.gzip {
            Source::Gzip(Box::new(MultiGzDecoder::new(opened.file)))
        } else {
            Source::Plain(opened.file)
        };
        Self { source, inode: opened.inode, left, skip: opened.skip }
    }

    /// With one file only, rotation empties it: go back to its beginning.
    fn was_cut(&mut self, size: u64) -> io::Result<bool> {
        let Source::Plain(file) = &mut self.source else { return Ok(false) };
        if file.stream_position()? <= size {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
