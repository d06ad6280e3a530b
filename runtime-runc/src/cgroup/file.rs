//! Reads and writes the small files of cgroupfs: one `open`, one `read` or `write`, never a creation.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use super::error::{Error, Result};

/// Writes `value`, whole, by one `write(2)`.
pub fn write(dir: &Path, name: &str, value: impl ToString) -> Result<()> {
    let path = dir.join(name);
    let value = value.to_string();
    match OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
    {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::Write { path, value, source }),
    }
}

/// Writes each value by a `write(2)` of its own into the file, opened once.
pub fn write_each(dir: &Path, name: &str, values: &[String]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let path = dir.join(name);
    let failed =
        |value: &String, source| Error::Write { path: path.clone(), value: value.clone(), source };
    let mut file =
        OpenOptions::new().write(true).open(&path).map_err(|source| failed(&values[0], source))?;
    values.iter().try_for_each(|value| {
        file.write_all(value.as_bytes()).map_err(|source| failed(value, source))
    })
}

/// Returns what the file holds, trimmed.
pub fn read(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    match slurp(&path) {
        Ok(mut text) => {
            text.truncate(text.trim_end().len());
            Ok(text)
        }
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Returns the whole text of a file of the kernel's, whose size nobody needs to ask for: it is always 0. A program's name in it
/// may be any bytes; what is no UTF-8 is replaced.
pub fn slurp(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut bytes, mut filled) = (vec![0; 4096], 0);
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
    }
    bytes.truncate(filled);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the value of `key` in a file of `key value` lines.
pub fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(k, _)| *k == key).map(|(_, value)| value))
}

/// The kernel's answer, where an error carries one.
pub fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Write { source, .. } | Error::Read { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

/// Turns "no such file" into `None`, for what a kernel may lack.
pub fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the error is "no such file or directory".
pub fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
