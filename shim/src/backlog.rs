//! What a slow client has not taken yet: an unlinked temporary file, used as a ring, and the task that empties it.
//!
//! ```text
//!  direct ── no progress for a second, or the log comes first ──▶ backlog ── emptied ──▶ direct
//!                                                                    └──── full ──▶ dropped
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cleat_proto::log::Reader;
use tokio::sync::Notify;

use crate::descriptor::Descriptor;

/// How far a client may fall behind before it is dropped.
const CAPACITY_BYTES: u64 = 64 * 1024 * 1024;

/// How long a client whose process has ended may make no progress.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ring and who waits at it.
pub struct Backlog {
    ring: Mutex<Ring>,
    changed: Notify,
}

struct Ring {
    file: File,
    read: u64,
    written: u64,
    /// Nothing more will be written.
    closed: bool,
    /// The client has gone, or the emptying task.
    broken: bool,
    /// The log goes out first.
    replaying: bool,
    /// Nobody waits for the rest.
    retired: bool,
    /// A piece has been taken and is on its way.
    sending: bool,
}

/// Where backlogs lie, and who must not end before they are empty.
#[derive(Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub unfinished: Unfinished,
}

/// Held by what the shim finishes before it exits.
pub type Unfinished = tokio::sync::mpsc::Sender<std::convert::Infallible>;

/// What the emptying task does before it empties anything.
pub struct Replay {
    pub log: Option<Reader>,
    /// What the log does not hold yet, as it goes to the client.
    pub pending: Vec<u8>,
}

impl Backlog {
    /// Makes an empty one in `directory` and starts emptying it into `socket`.
    pub fn start(
        place: &Place,
        socket: Arc<Descriptor>,
        replay: Option<Replay>,
    ) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(&place.directory)?;
        let replaying = replay.is_some();
        let ring = Ring {
            file,
            read: 0,
            written: 0,
            closed: false,
            broken: false,
            replaying,
            retired: false,
            sending: false,
        };
        let backlog = Arc::new(Self { ring: Mutex::new(ring), changed: Notify::new() });
        let (running, unfinished) = (Arc::clone(&backlog), place.unfinished.clone());
        tokio::spawn(async move {
            running.run(socket, replay).await;
            drop(unfinished);
        });
        Ok(backlog)
    }

    /// Appends `parts`; false if the client is to be dropped.
    pub fn push(&self, parts: &[&[u8]]) -> bool {
        let mut ring = self.lock();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if ring.broken || ring.written - ring.read + len as u64 > CAPACITY_BYTES {
            return false;
        }
        let fits = parts.iter().all(|part| ring.append(part).is_ok());
        self.changed.notify_one();
        fits
    }

    /// Whether everything has gone out, so that the client can be written to directly again.
    pub fn is_empty(&self) -> bool {
        let ring = self.lock();
        ring.read == ring.written && !(ring.sending || ring.replaying || ring.broken)
    }

    /// Says that nothing more comes: the task ends when the rest has gone out, and hangs up.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Says that the task is not needed any more: it ends without hanging up, and sends nothing that is left.
    pub fn retire(&self) {
        let mut ring = self.lock();
        ring.retired = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, socket: Arc<Descriptor>, replay: Option<Replay>) {
        if self.empty(&socket, replay).await.is_err() {
            self.lock().broken = true;
        }
        if self.lock().closed {
            crate::attach::hang_up(&socket);
        }
    }

    async fn empty(&self, socket: &Descriptor, replay: Option<Replay>) -> io::Result<()> {
        if let Some(replay) = replay {
            replay.send(socket).await?;
            self.lock().replaying = false;
        }
        loop {
            match self.next()? {
                Next::Piece(piece) => self.send(socket, &piece).await?,
                Next::Wait => self.changed.notified().await,
                Next::End => return Ok(()),
            }
        }
    }

    fn next(&self) -> io::Result<Next> {
        let mut ring = self.lock();
        ring.sending = false;
        if ring.retired {
            return Ok(Next::End);
        }
        if ring.read == ring.written {
            ring.forget();
            return Ok(if ring.closed { Next::End } else { Next::Wait });
        }
        ring.sending = true;
        ring.take().map(Next::Piece)
    }

    /// While the process lives, the ring's size bounds a client's slowness; afterwards time does.
    async fn send(&self, socket: &Descriptor, piece: &[u8]) -> io::Result<()> {
        send(socket, piece, || self.lock().closed).await
    }
}

/// Sends everything to a client that may take its time until `is_over`, and [`PATIENCE`] for each step from then on.
///
/// # Errors
/// If the client has gone, or its time is up.
pub async fn send(
    socket: &Descriptor,
    mut piece: &[u8],
    is_over: impl Fn() -> bool,
) -> io::Result<()> {
    while !piece.is_empty() {
        match socket.try_write(&[io::IoSlice::new(piece)]) {
            Ok(n) => piece = &piece[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waited = tokio::time::timeout(PATIENCE, socket.writable()).await;
                if waited.is_err() && is_over() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

enum Next {
    Piece(Vec<u8>),
    Wait,
    End,
}

impl Ring {
    const PIECE: u64 = 64 * 1024;

    fn append(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let at = self.written % CAPACITY_BYTES;
            let (now, rest) = data.split_at(data.len().min((CAPACITY_BYTES - at) as usize));
            self.file.write_all_at(now, at)?;
            self.written += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    fn take(&mut self) -> io::Result<Vec<u8>> {
        let at = self.read % CAPACITY_BYTES;
        let len = (self.written - self.read).min(Self::PIECE).min(CAPACITY_BYTES - at);
        let mut piece = vec![0; len as usize];
        self.file.read_exact_at(&mut piece, at)?;
        self.read += len;
        Ok(piece)
    }

    /// Gives the file's space back.
    fn forget(&mut self) {
        if self.written > 0 && self.file.set_len(0).is_ok() {
            (self.read, self.written) = (0, 0);
        }
    }
}

impl Replay {
    async fn send(self, socket: &Descriptor) -> io::Result<()> {
        if let Some(mut log) = self.log {
            // What cannot be read is to the client as what is not there: it goes on with what comes now.
            while let Ok(piece) = log.piece() {
                socket.write_all(&piece.bytes).await?;
                tokio::task::consume_budget().await;
                if piece.caught_up {
                    break;
                }
            }
        }
        socket.write_all(&self.pending).await
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    fn place() -> Place {
        Place { directory: std::env::temp_dir(), unfinished: tokio::sync::mpsc::channel(1).0 }
    }

    fn local<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn what_a_slow_client_missed_arrives_whole_when_it_reads() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let reader = local(async {
            let socket = Arc::new(Descriptor::new(ours.into()).unwrap());
            let backlog = Backlog::start(&place(), socket, None).unwrap();
            for index in 0..100_u32 {
                assert!(backlog.push(&[&index.to_le_bytes(), &[7; 100_000]]));
                tokio::task::yield_now().await;
            }
            backlog.close();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                client.read_to_end(&mut all).unwrap();
                all
            });
            while !reader.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            reader
        });
        let all = reader.join().unwrap();
        assert_eq!(all.len(), 100 * 100_004);
        for (index, record) in all.chunks(100_004).enumerate() {
            assert_eq!(record[..4], (index as u32).to_le_bytes());
        }
    }

    #[test]
    fn a_client_that_never_reads_is_given_up_when_the_ring_is_full() {
        let (_client, ours) = UnixStream::pair().unwrap();
        local(async {
            let socket = Arc::new(Descriptor::new(ours.into()).unwrap());
            let backlog = Backlog::start(&place(), socket, None).unwrap();
            let piece = vec![0; 1 << 20];
            let taken = (0..100).take_while(|_| backlog.push(&[&piece])).count();
            assert_eq!(taken, 64);
        });
    }
}
