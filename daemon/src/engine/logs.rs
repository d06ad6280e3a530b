//! Reading a container's log: the files of the `json-file` driver, written by the shim, rotated ones included.
//!
//! ```text
//!  open.rs    which files, from where (all, or the last n records)
//!  record.rs  one record: a fast path for what our shim writes, any JSON else
//!  render.rs  which records, and how they are shown
//!  watch.rs   that a file has grown, by inotify
//! ```
//! [`LogReader::next`] gives the log in large pieces. With `follow` it goes on until the container ends, across rotations
//! without a gap: a file is read to its end once more after the next one has appeared.
//! Source: Engine API v1.51, ContainerLogs.

mod open;
mod record;
mod render;
pub mod watch;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use cleat_proto::kind::Kind;
use flate2::read::MultiGzDecoder;

use super::{Engine, Error, Result, WaitCondition, Waiting};
use crate::container::{State, names::ContainerRef};

use open::Opened;
pub use render::LogOptions;
use render::{Render, Verdict};
use watch::Watched;

/// How much a piece holds at least, as long as there is more.
const PIECE_BYTES: usize = 64 * 1024;
/// How much is read from a file at once.
const READ_BYTES: usize = 64 * 1024;
/// A longer record is damaged: 16 KiB of text can become six times as long, and some attributes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// A log that is being read.
pub struct LogReader {
    /// With a terminal there are no frames.
    pub tty: bool,
    state: Option<Reading>,
    follow: Option<Follow>,
}

/// What `follow` waits for.
struct Follow {
    watched: Watched,
    ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The container has ended: what there is now is all.
    over: bool,
}

impl Engine {
    /// Opens a container's log.
    ///
    /// # Errors
    /// If there is no such container, or its driver keeps nothing that could be read.
    pub fn logs(&self, reference: &ContainerRef, options: LogOptions) -> Result<LogReader> {
        let container = self.container(reference)?;
        let record = &container.record;
        if matches!(container.state, State::Dead | State::Removing) {
            let text = "can not get logs from container which is dead or marked for removal";
            return Err(Error::new(Kind::Conflict, text));
        }
        if record.host_config.log_config.kind == "none" {
            let text = "configured logging driver does not support reading";
            return Err(Error::new(Kind::NotImplemented, text));
        }
        let path = self.log_path(&record.id);
        let tty = record.config.tty;
        let follow = options.follow && container.state.is_running();
        // Watched before the first look: what is written in between wakes us.
        let follow = if follow {
            let waiting = self.wait(reference, WaitCondition::NotRunning)?;
            let watched = self.watch_logs(path.parent().unwrap_or(Path::new("/")));
            Some(Follow::new(watched.map_err(|error| unreadable(&path, error))?, waiting))
        } else {
            None
        };
        let opened = open::open(&path, options.tail).map_err(|error| unreadable(&path, error))?;
        let state = Reading::new(path, opened, Render::new(options, tty), follow.is_some());
        Ok(LogReader { tty, state: Some(state), follow })
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::with_source(Kind::Internal, format!("cannot read the log {}", path.display()), error)
}

impl Follow {
    fn new(watched: Watched, waiting: Waiting) -> Self {
        let ended = Box::pin(async move {
            waiting.outcome().await;
        });
        Self { watched, ended, over: false }
    }

    async fn more(&mut self) {
        tokio::select! {
            () = self.watched.changed() => {}
            () = &mut self.ended => self.over = true,
        }
    }
}

impl LogReader {
    /// Returns the next piece, as it goes to the client; `None` at the end. Dropped in the middle, it leaves nothing behind.
    ///
    /// # Errors
    /// An I/O error of a log file.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(mut state) = self.state.take() else { return Ok(None) };
            let over = self.follow.as_ref().is_none_or(|follow| follow.over);
            let read = tokio::task::spawn_blocking(move || {
                let piece = state.piece();
                (state, piece)
            });
            let (state, piece) = read.await.map_err(io::Error::other)?;
            let Piece { bytes, caught_up, done } = piece?;
            if !(done || caught_up && over) {
                self.state = Some(state);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if let (Some(follow), true, true) = (&mut self.follow, caught_up, self.state.is_some())
            {
                follow.more().await;
            }
        }
    }
}

/// What one step brought.
struct Piece {
    bytes: Vec<u8>,
    /// There is nothing more for now.
    caught_up: bool,
    /// There will be nothing more: `until` has passed.
    done: bool,
}

/// The files, and where in them we are. Everything here blocks.
struct Reading {
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

impl Reading {
    fn new(path: PathBuf, opened: Vec<Opened>, render: Render, follow: bool) -> Self {
        let last = opened.len().saturating_sub(1);
        let inputs = opened.into_iter().enumerate();
        let inputs =
            inputs.map(|(index, file)| Input::new(file, follow && index == last)).collect();
        Self { path, inputs, render, follow, buffer: Vec::new(), filled: 0..0 }
    }

    fn piece(&mut self) -> io::Result<Piece> {
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
