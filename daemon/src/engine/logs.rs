//! A container's log, as clients get it.
//!
//! What the log holds is read here. Who follows is given to the shim, which writes the log: so the daemon's death ends no
//! `docker logs -f`. Source: Engine API v1.51, ContainerLogs.

use std::{io, os::fd::OwnedFd, sync::Arc};

use cleat_proto::{
    kind::Kind,
    log::{LogOptions, Piece, Reader},
    shim::Follow,
};

use super::{Engine, Error, Result};
use crate::{
    container::{Container, State, names::ContainerRef},
    task::{TaskDir, client},
};

/// A log that is being read.
pub struct LogReader {
    /// With a terminal there are no frames.
    pub tty: bool,
    reader: Option<Reader>,
}

/// A log that its container's shim adds to.
pub struct GrowingLog {
    /// With a terminal there are no frames.
    pub tty: bool,
    task: TaskDir,
    options: LogOptions,
}

impl Engine {
    /// Opens a container's log as it is now.
    ///
    /// # Errors
    /// If there is no such container, or its driver keeps nothing that could be read.
    pub fn logs(&self, reference: &ContainerRef, options: LogOptions) -> Result<LogReader> {
        let container = readable(self.container(reference)?)?;
        let (path, tty) = (self.log_path(&container.record.id), container.record.config.tty);
        let reader = Reader::open(&path, options, tty, false);
        let reader = reader.map_err(|error| {
            let text = format!("cannot read the log {}", path.display());
            Error::with_source(Kind::Internal, text, error)
        })?;
        Ok(LogReader { tty, reader: Some(reader) })
    }

    /// Finds a container's log to follow; `None` if nothing runs that could add to it.
    ///
    /// # Errors
    /// As [`Self::logs`].
    pub async fn growing_log(
        &self,
        reference: &ContainerRef,
        options: LogOptions,
    ) -> Result<Option<GrowingLog>> {
        let container = readable(self.entry(reference)?.settled().await)?;
        let record = &container.record;
        let task = self.task_dir(&record.id);
        let tty = record.config.tty;
        Ok(container.state.is_running().then_some(GrowingLog { tty, task, options }))
    }
}

/// Refuses a container whose log cannot be read.
fn readable(container: Arc<Container>) -> Result<Arc<Container>> {
    if matches!(container.state, State::Dead | State::Removing) {
        let text = "can not get logs from container which is dead or marked for removal";
        return Err(Error::new(Kind::Conflict, text));
    }
    if container.record.host_config.log_config.kind == "none" {
        let text = "configured logging driver does not support reading";
        return Err(Error::new(Kind::NotImplemented, text));
    }
    Ok(container)
}

impl LogReader {
    /// Returns the next piece, as it goes to the client; `None` at the end. Dropped in the middle, it leaves nothing behind.
    ///
    /// # Errors
    /// An I/O error of a log file.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(mut reader) = self.reader.take() else { return Ok(None) };
            let read = tokio::task::spawn_blocking(move || {
                let piece = reader.piece();
                (reader, piece)
            });
            let (reader, piece) = read.await.map_err(io::Error::other)?;
            let Piece { bytes, caught_up, done } = piece?;
            self.reader = (!done && !caught_up).then_some(reader);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

impl GrowingLog {
    /// Gives the client's connection, after the response head, to the shim.
    ///
    /// # Errors
    /// If the shim does not take it: the container has ended meanwhile.
    pub async fn hand_over(self, client: OwnedFd, chunked: bool) -> Result<()> {
        let wish = Follow { options: self.options, chunked };
        Ok(client::follow(&self.task, wish, client).await?)
    }
}
