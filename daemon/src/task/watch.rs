//! Following a shim's journal while it grows.

use std::io;

use cleat_proto::{
    journal::Entry,
    shim::{Answer, Hello, MAX_LINE_BYTES, PREFIX},
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{Error, TaskDir};

/// Entries are short; one that is longer only costs a second read.
const BUFFER_BYTES: usize = 512;

/// A journal being followed.
pub struct Watch {
    stream: BufReader<UnixStream>,
}

impl Watch {
    /// Begins with the entry behind `after`.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Shim`].
    pub async fn open(directory: &TaskDir, after: u64) -> Result<Self, Error> {
        let mut stream = directory.connect().await?;
        let line = line_of(&Hello::Watch { after })?;
        stream.write_all(&line).await.map_err(Error::Unreachable)?;
        let mut watch = Self { stream: BufReader::with_capacity(BUFFER_BYTES, stream) };
        watch.line::<Answer>().await?.map_or_else(|| Err(hung_up()), accepted)?;
        Ok(watch)
    }

    /// Waits for the next entry; `None` when the shim has gone.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if the connection fails, or says what is no entry.
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.line().await
    }

    async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        read_line(&mut self.stream).await
    }
}

/// Renders a greeting as the one line that it is.
pub(super) fn line_of(hello: &Hello) -> Result<Vec<u8>, Error> {
    let mut line = PREFIX.as_bytes().to_vec();
    serde_json::to_writer(&mut line, hello).map_err(|error| Error::Unreachable(error.into()))?;
    line.push(b'\n');
    if line.len() > MAX_LINE_BYTES {
        return Err(Error::Unreachable(io::Error::other("the greeting is too long")));
    }
    Ok(line)
}

/// Reads one line as JSON; `None` at the end of the stream.
pub(super) async fn read_line<T: DeserializeOwned>(
    stream: &mut BufReader<UnixStream>,
) -> Result<Option<T>, Error> {
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    let read = stream.take(limit).read_until(b'\n', &mut line).await;
    match read.map_err(Error::Unreachable)? {
        0 => Ok(None),
        _ if line.last() != Some(&b'\n') => Ok(None),
        _ => serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| Error::Unreachable(error.into())),
    }
}

pub(super) fn accepted(answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Ok => Ok(()),
        Answer::Error(message) => {
            Err(Error::Shim { kind: cleat_proto::kind::Kind::Internal, message })
        }
    }
}

pub(super) fn hung_up() -> Error {
    Error::Unreachable(io::ErrorKind::UnexpectedEof.into())
}
