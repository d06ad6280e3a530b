//! Reads json-file logs back, for a client that attaches with `logs=1`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::{Source, rotation::rotated};

/// One opened file of a log: at most as long as it was then.
pub struct LogFile {
    file: File,
    len: u64,
    compressed: bool,
}

/// Opens what exists of a log, oldest first.
pub fn open_all(path: &Path, max_files: u32) -> Vec<LogFile> {
    let older = (1..max_files)
        .rev()
        .flat_map(|index| [rotated(path, index, true), rotated(path, index, false)]);
    older.chain([path.to_owned()]).filter_map(|path| LogFile::open(&path).ok()).collect()
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            compressed: path.extension().is_some_and(|extension| extension == "gz"),
        })
    }

    /// Returns the records, one call each.
    pub fn records(self) -> Records {
        let limited = self.file.take(self.len);
        let plain: Box<dyn Read + Send> = if self.compressed {
            Box::new(MultiGzDecoder::new(limited))
        } else {
            Box::new(limited)
        };
        Records { lines: BufReader::with_capacity(32 * 1024, plain), line: Vec::new() }
    }
}

/// The records of one file.
pub struct Records {
    lines: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
}

impl Iterator for Records {
    type Item = (Source, String);

    /// Skips what is no record, such as the end of a file whose disk was full.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line.clear();
            if self.lines.read_until(b'\n', &mut self.line).ok()? == 0 {
                return None;
            }
            if let Ok(record) = serde_json::from_slice::<Record>(&self.line) {
                let source =
                    if record.stream == "stderr" { Source::Stderr } else { Source::Stdout };
                return Some((source, record.log));
            }
        }
    }
}
