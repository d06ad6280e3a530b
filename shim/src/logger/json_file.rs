//! The `json-file` logging driver: every line of output as one JSON record, byte for byte as Docker writes them.
//!
//! The form is in [`cleat_proto::log`]. What arrives in one read carries one time. A write that fails (disk full) never stops the
//! container: the records are lost and counted, and the file is cut back so that it never holds half a record.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use cleat_proto::{
    log::{LogOptions, MAX_RECORD_BYTES, Reader},
    shim_v1,
};

use super::{
    Source,
    clock::Clock,
    rotation::{self, Limits, Squeeze},
};

/// How much is gathered before it is written.
const BATCH_BYTES: usize = 256 * 1024;

/// How much of that is kept when nothing comes.
const SMALL_BATCH_BYTES: usize = 8 * 1024;

/// An open log.
pub struct JsonFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    limits: Limits,
    /// `"attrs":{…},`, or nothing.
    attributes: Vec<u8>,
    clock: Clock,
    /// The beginning of a line whose end has not come yet, by stream.
    partial: [Vec<u8>; 2],
    batch: Vec<u8>,
    squeeze: Option<Squeeze>,
    lost_batches: u64,
}

/// Creates `path` empty, readable for root's group as Docker's logs are.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o640).open(path)
}

impl JsonFile {
    /// Opens the log that `orders` describe, and goes on where it ends.
    pub fn open(orders: &shim_v1::Log) -> io::Result<Self> {
        let path = PathBuf::from(&orders.path);
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&path)?;
        let limits = Limits {
            max_size_bytes: orders.max_size_bytes,
            max_files: orders.max_files.max(1),
            compress: orders.compress,
        };
        Ok(Self {
            size_bytes: file.metadata()?.len(),
            path,
            file,
            limits,
            attributes: render_attributes(orders),
            clock: Clock::default(),
            partial: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            squeeze: None,
            lost_batches: 0,
        })
    }

    /// Logs what `source` said at `at`. Lines without an end wait for it, or for [`MAX_RECORD_BYTES`] or [`Self::finish`].
    pub fn write(&mut self, source: Source, mut data: &[u8], at: SystemTime) {
        let suffix = self.suffix(source, at);
        if !self.partial[source as usize].is_empty() {
            data = self.complete(source, data, &suffix);
        }
        while !data.is_empty() {
            let Some(end) = record_end(data) else {
                self.partial[source as usize].extend_from_slice(data);
                break;
            };
            self.record(&data[..end], &suffix);
            data = &data[end..];
        }
        self.flush();
    }

    /// Logs what never got its end of line.
    pub fn finish(&mut self, at: SystemTime) {
        for source in [Source::Stdout, Source::Stderr] {
            let tail = std::mem::take(&mut self.partial[source as usize]);
            if !tail.is_empty() {
                let suffix = self.suffix(source, at);
                self.record(&tail, &suffix);
            }
        }
        self.flush();
        while self.compress() {}
    }

    /// Returns what a reader of the file cannot see yet.
    pub fn pending(&self, source: Source) -> &[u8] {
        &self.partial[source as usize]
    }

    /// Whether [`Self::compress`] has something to do.
    pub fn compressing(&self) -> bool {
        self.squeeze.is_some()
    }

    /// Compresses one more piece of the rotated file; returns whether there is more to do.
    pub fn compress(&mut self) -> bool {
        let Some(squeeze) = &mut self.squeeze else { return false };
        match squeeze.step() {
            Ok(true) => return true,
            Ok(false) => self.squeeze = None,
            Err(_) => self.squeeze.take().map(Squeeze::abandon).unwrap_or_default(),
        }
        false
    }

    /// Opens the log as it is now: what is written or rotated later changes nothing for the reader.
    ///
    /// # Errors
    /// An I/O error of a log file.
    pub fn reader(&self, options: LogOptions, is_raw: bool) -> io::Result<Reader> {
        Reader::open(&self.path, options, is_raw, false)
    }

    /// Feeds a waiting partial line; returns what is left of `data`.
    fn complete<'a>(&mut self, source: Source, data: &'a [u8], suffix: &[u8]) -> &'a [u8] {
        let mut line = std::mem::take(&mut self.partial[source as usize]);
        let newline = data.iter().position(|&byte| byte == b'\n').map_or(data.len(), |at| at + 1);
        let room = MAX_RECORD_BYTES + 4 - line.len().min(MAX_RECORD_BYTES);
        let (head, rest) = data.split_at(newline.min(room));
        line.extend_from_slice(head);
        let mut from = 0;
        while let Some(end) = record_end(&line[from..]) {
            self.record(&line[from..from + end], suffix);
            from += end;
        }
        line.drain(..from);
        if line.is_empty() && line.capacity() > 4096 {
            line = Vec::new();
        }
        let done = line.is_empty();
        self.partial[source as usize] = line;
        if done || rest.is_empty() { rest } else { self.complete(source, rest, suffix) }
    }

    fn record(&mut self, line: &[u8], suffix: &[u8]) {
        let max = self.limits.max_size_bytes;
        if max > 0 && self.size_bytes + self.batch.len() as u64 >= max {
            self.flush();
            self.rotate();
        } else if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
        self.batch.extend_from_slice(b"{\"log\":\"");
        escape(line, &mut self.batch);
        self.batch.extend_from_slice(suffix);
    }

    fn suffix(&mut self, source: Source, at: SystemTime) -> Vec<u8> {
        let mut suffix = Vec::with_capacity(80 + self.attributes.len());
        suffix.extend_from_slice(b"\",\"stream\":\"");
        suffix.extend_from_slice(source.name().as_bytes());
        suffix.extend_from_slice(b"\",");
        suffix.extend_from_slice(&self.attributes);
        suffix.extend_from_slice(b"\"time\":\"");
        self.clock.append(at, &mut suffix);
        suffix.extend_from_slice(b"\"}\n");
        suffix
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            match self.file.write_all(&self.batch) {
                Ok(()) => self.size_bytes += self.batch.len() as u64,
                Err(_) => {
                    self.lost_batches += 1;
                    // If even that fails, readers skip the broken line.
                    let _ = self.file.set_len(self.size_bytes);
                }
            }
        }
        self.batch.clear();
    }

    /// Whether it holds memory that [`Self::rest`] would give back.
    pub fn is_roomy(&self) -> bool {
        self.batch.capacity() > SMALL_BATCH_BYTES
    }

    /// Gives memory back; to be called when nothing has come for a while.
    pub fn rest(&mut self) {
        if self.is_roomy() {
            self.batch = Vec::new();
        }
    }

    /// A rotation that fails leaves the log growing beyond its limit, which loses less than the alternative.
    fn rotate(&mut self) {
        while self.compress() {}
        if self.limits.max_files > 1 && rotation::rotate(&self.path, self.limits).is_err() {
            return;
        }
        let Ok(empty) = create(&self.path) else { return };
        drop(empty);
        if let Ok(file) = OpenOptions::new().append(true).open(&self.path) {
            self.file = file;
            self.size_bytes = 0;
        }
        if self.limits.compress && self.limits.max_files > 1 {
            self.squeeze = Squeeze::begin(&self.path).ok();
        }
    }
}

fn render_attributes(orders: &shim_v1::Log) -> Vec<u8> {
    if orders.attributes.is_empty() {
        return Vec::new();
    }
    let sorted: std::collections::BTreeMap<_, _> = orders.attributes.iter().collect();
    let mut text = b"\"attrs\":{".to_vec();
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        text.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
        escape(key.as_bytes(), &mut text);
        text.extend_from_slice(b"\":\"");
        escape(value.as_bytes(), &mut text);
        text.push(b'"');
    }
    text.extend_from_slice(b"},");
    text
}

/// Returns where the first record of `data` ends, if it does: behind its newline, or at [`MAX_RECORD_BYTES`].
///
/// A cut spares a character that would straddle it, so that joining the records gives the line back unharmed.
fn record_end(data: &[u8]) -> Option<usize> {
    let window = &data[..data.len().min(MAX_RECORD_BYTES + 1)];
    if let Some(at) = find_newline(window) {
        return Some(at + 1);
    }
    if data.len() <= MAX_RECORD_BYTES {
        // Exactly full counts as cut only once it is known that no newline follows.
        return None;
    }
    Some(cut_before_character(data))
}

/// Steps back from the cut to the beginning of the character that straddles it, if one does.
fn cut_before_character(data: &[u8]) -> usize {
    let straddler = (MAX_RECORD_BYTES - 3..MAX_RECORD_BYTES).find(|&at| {
        let length = match data[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        at + length > MAX_RECORD_BYTES
    });
    straddler.unwrap_or(MAX_RECORD_BYTES)
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// Returns a word with the high bit set in (at least) the first byte of `word` that equals `byte`, and no bit below it.
const fn equals(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * byte as u64);
    difference.wrapping_sub(ONES) & !difference & HIGHS
}

const fn below_space(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGHS
}

fn find_newline(data: &[u8]) -> Option<usize> {
    let mut words = data.chunks_exact(8);
    let mut at = 0;
    for word in &mut words {
        let hit = equals(load(word), b'\n');
        if hit != 0 {
            return Some(at + (hit.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    words.remainder().iter().position(|&byte| byte == b'\n').map(|found| at + found)
}

fn load(word: &[u8]) -> u64 {
    word.try_into().map_or(0, u64::from_le_bytes)
}

/// Returns how many bytes from the start need no escape.
fn plain_len(data: &[u8]) -> usize {
    let mut words = data.chunks_exact(8);
    let mut at = 0;
    for word in &mut words {
        let word = load(word);
        let quotes = equals(word, b'"') | equals(word, b'\\') | equals(word, b'&');
        // `<` and `>` differ in one bit alone.
        let special = quotes | equals(word | (ONES * 2), b'>') | below_space(word) | (word & HIGHS);
        if special != 0 {
            // A borrow can mark a byte too many, but only above a true hit: the lowest is always true.
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + words.remainder().iter().take_while(|&&byte| is_plain(byte)).count()
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7f) && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// Appends `data` as the inside of a JSON string, with the escapes that Docker's log writer uses.
fn escape(mut data: &[u8], out: &mut Vec<u8>) {
    loop {
        let plain = plain_len(data);
        out.extend_from_slice(&data[..plain]);
        data = &data[plain..];
        let Some(&byte) = data.first() else { return };
        if byte < 0x80 {
            escape_ascii(byte, out);
            data = &data[1..];
        } else {
            data = escape_wide(data, out);
        }
    }
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b' '..=0x7f if is_plain(byte) => out.push(byte),
        _ => out.extend_from_slice(&[
            b'\\',
            b'u',
            b'0',
            b'0',
            HEX[usize::from(byte >> 4)],
            HEX[usize::from(byte & 15)],
        ]),
    }
}

/// Handles a run of bytes that are not ASCII; returns what follows it.
fn escape_wide<'a>(data: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (run, rest) = data.split_at(data.iter().position(u8::is_ascii).unwrap_or(data.len()));
    for chunk in run.utf8_chunks() {
        for (index, piece) in chunk.valid().split(['\u{2028}', '\u{2029}']).enumerate() {
            if index > 0 {
                // Which of the two it was stands in the last byte before the piece.
                let before = piece.as_ptr() as usize - run.as_ptr() as usize - 1;
                out.extend_from_slice(if run[before] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            }
            out.extend_from_slice(piece.as_bytes());
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    rest
}

#[cfg(test)]
mod tests;
