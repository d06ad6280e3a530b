//! Which files a log consists of: the present one, `.1`, `.2` and so on, those from `.1` on perhaps compressed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// How often a rotation may come between before we take what we have.
const ATTEMPTS: usize = 5;
/// How much is read at once on the way back from the end.
const BACKWARD_BYTES: usize = 64 * 1024;

/// One open file, and from where it counts.
pub struct Opened {
    pub file: File,
    pub inode: u64,
    pub size: u64,
    pub gzip: bool,
    /// Of a plain file: where to begin.
    pub offset: u64,
    /// Of a compressed one: how many records to leave out.
    pub skip: usize,
}

/// Opens all files, oldest first; with `tail` so that only the last records are left. No file is no error: a container that
/// was never started has no log.
pub fn open(path: &Path, tail: Option<usize>) -> io::Result<Vec<Opened>> {
    let mut files = open_all(path)?;
    if let Some(records) = tail {
        cut(&mut files, records)?;
    }
    Ok(files)
}

fn open_all(path: &Path) -> io::Result<Vec<Opened>> {
    for _ in 0..ATTEMPTS {
        let Some(present) = open_one(path, false)? else { return Ok(Vec::new()) };
        let inode = present.inode;
        let mut files = vec![present];
        for number in 1.. {
            match open_rotated(path, number)? {
                Some(file) => files.push(file),
                None => break,
            }
        }
        // A rotation in between would show a file twice, or hide one.
        if std::fs::metadata(path).is_ok_and(|meta| meta.ino() == inode) {
            files.reverse();
            return Ok(files);
        }
    }
    Ok(open_one(path, false)?.into_iter().collect())
}

/// Opens what came after the file with `inode`, oldest first: everything if that is nowhere to be found any more and `None`,
/// the present file alone if it was compressed meanwhile.
pub fn newer_than(path: &Path, inode: Option<u64>) -> io::Result<Vec<Opened>> {
    let mut newer = Vec::new();
    let Some(present) = open_one(path, false)? else { return Ok(newer) };
    newer.push(present);
    let mut older = Vec::new();
    for number in 1.. {
        let Some(file) = open_one(&rotated(path, number), false)? else { break };
        if Some(file.inode) == inode {
            newer.extend(older);
            break;
        }
        older.push(file);
    }
    newer.reverse();
    Ok(newer)
}

fn open_rotated(path: &Path, number: u32) -> io::Result<Option<Opened>> {
    let plain = rotated(path, number);
    match open_one(&plain, false)? {
        Some(file) => Ok(Some(file)),
        None => open_one(&with_suffix(&plain, ".gz"), true),
    }
}

fn open_one(path: &Path, gzip: bool) -> io::Result<Option<Opened>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    Ok(Some(Opened { inode: meta.ino(), size: meta.len(), file, gzip, offset: 0, skip: 0 }))
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Leaves the last `records`, counting from the newest file back.
fn cut(files: &mut Vec<Opened>, records: usize) -> io::Result<()> {
    let mut wanted = records;
    let mut kept = files.len();
    for (index, file) in files.iter_mut().enumerate().rev() {
        // The newest stays even if nothing of it is wanted: there follow may go on.
        if wanted == 0 && index + 1 < kept {
            break;
        }
        kept = index;
        wanted -= if file.gzip { cut_compressed(file, wanted)? } else { cut_plain(file, wanted)? };
        if wanted == 0 {
            break;
        }
    }
    files.drain(..kept);
    Ok(())
}

/// Sets where the last `wanted` records begin; returns how many there are.
fn cut_plain(file: &mut Opened, wanted: usize) -> io::Result<usize> {
    let mut chunk = vec![0; BACKWARD_BYTES];
    let mut position = file.size;
    // The first newline from the end closes the last record, so one more is looked for.
    let mut newlines = 0;
    while position > 0 {
        let length = BACKWARD_BYTES.min(usize::try_from(position).unwrap_or(BACKWARD_BYTES));
        position -= length as u64;
        file.file.read_exact_at(&mut chunk[..length], position)?;
        for at in memchr::memrchr_iter(b'\n', &chunk[..length]) {
            if newlines == wanted {
                return start_at(file, position + at as u64 + 1, wanted);
            }
            newlines += 1;
        }
    }
    let start = if wanted == 0 { file.size } else { 0 };
    start_at(file, start, newlines.min(wanted))
}

fn start_at(file: &mut Opened, offset: u64, records: usize) -> io::Result<usize> {
    file.offset = offset;
    file.file.seek(SeekFrom::Start(offset))?;
    Ok(records)
}

fn cut_compressed(file: &mut Opened, wanted: usize) -> io::Result<usize> {
    let mut reader = BufReader::with_capacity(BACKWARD_BYTES, MultiGzDecoder::new(&file.file));
    let mut records = 0;
    loop {
        let data = reader.fill_buf()?;
        if data.is_empty() {
            break;
        }
        records += memchr::memchr_iter(b'\n', data).count();
        let length = data.len();
        reader.consume(length);
    }
    drop(reader);
    file.file.seek(SeekFrom::Start(0))?;
    file.skip = records.saturating_sub(wanted);
    Ok(records.min(wanted))
}
