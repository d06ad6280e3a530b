//! Attached clients: Docker's framing, what they type, and how they leave.
//!
//! Facts: Engine API, ContainerAttach, "Stream format". What the end of a client's input means is moby's rule: with stdin-once
//! and no terminal it closes the process's stdin and the client stays for the output; otherwise it ends the attachment.

use std::{io, os::fd::AsRawFd, sync::Arc, time::Duration};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::{
    select,
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use crate::{
    backlog::Backlog,
    descriptor::Descriptor,
    logger::Source,
    output::Command,
    stdin::{Slot, Stdin},
};

/// How long a client that was hung up on may take to hang up as well.
pub const GOODBYE: Duration = Duration::from_secs(2);

/// An attached client, as the output sees it.
pub struct Client {
    pub id: u64,
    pub socket: Arc<Descriptor>,
    pub stdout: bool,
    pub stderr: bool,
    /// With 8-byte headers; raw otherwise.
    pub framed: bool,
    /// It was slow, or gets the log first.
    pub backlog: Option<Arc<Backlog>>,
    /// Tells the task that reads from it.
    pub ended: Arc<Notify>,
}

impl Client {
    /// Whether it asked for `source`.
    pub fn wants(&self, source: Source) -> bool {
        match source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        }
    }

    /// Hangs up without sending what is left.
    pub fn drop_now(&self) {
        if let Some(backlog) = &self.backlog {
            backlog.retire();
        }
        hang_up(&self.socket);
        self.ended.notify_one();
    }
}

/// Ends our half of the connection; what was written still arrives.
pub fn hang_up(socket: &Descriptor) {
    // It may have gone already.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// Returns the header of a frame of `len` bytes.
pub fn frame_header(source: Source, len: usize) -> [u8; 8] {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [source.frame_type(), 0, 0, 0, len[0], len[1], len[2], len[3]]
}

/// What the task that reads from a client needs.
pub struct Typist {
    pub id: u64,
    pub socket: Arc<Descriptor>,
    /// Where it goes; none if the client is not to type.
    pub stdin: Option<watch::Receiver<Slot>>,
    pub stdin_once: bool,
    pub early: Vec<u8>,
    pub detach_keys: Vec<u8>,
    pub output: mpsc::UnboundedSender<Command>,
    pub ended: Arc<Notify>,
}

impl Typist {
    /// Reads from the client until either side leaves; returns whether the client left by the detach keys.
    pub async fn run(self) -> bool {
        let ended = Arc::clone(&self.ended);
        let detached = select! {
            detached = self.listen() => detached,
            () = ended.notified() => {
                // Closing with unread input would reset a TCP connection and with it the last of the output.
                let _ = timeout(GOODBYE, discard(&self.socket)).await;
                false
            }
        };
        // Nobody listens any more: then it is removed already.
        let _ = self.output.send(Command::Remove(self.id));
        detached
    }

    async fn listen(&self) -> bool {
        let Some(stdin) = self.open_stdin().await else {
            let _ = discard(&self.socket).await;
            let _ = self.socket.hung_up().await;
            return false;
        };
        let closes_stdin = self.stdin_once && !stdin.is_terminal();
        match self.type_into(&stdin).await {
            Ok(End::Detached) => return true,
            Ok(End::Input) if !closes_stdin => return false,
            // On an error the process takes no more, or the client has gone; the last output may still be to come.
            Ok(End::Input) | Err(_) => {}
        }
        let _ = discard(&self.socket).await;
        if closes_stdin {
            stdin.close();
        }
        let _ = self.socket.hung_up().await;
        false
    }

    /// Waits until the process has been started; none if it has no stdin, or the client does not want it.
    async fn open_stdin(&self) -> Option<Arc<Stdin>> {
        let mut slot = self.stdin.clone()?;
        let slot = slot.wait_for(|slot| !matches!(slot, Slot::NotYet)).await.ok()?;
        match &*slot {
            Slot::Open(stdin) => Some(Arc::clone(stdin)),
            Slot::NotYet | Slot::Absent => None,
        }
    }

    async fn type_into(&self, stdin: &Stdin) -> io::Result<End> {
        if stdin.is_terminal() && !self.detach_keys.is_empty() {
            return self.watch_keys(stdin).await;
        }
        stdin.write(&self.early).await?;
        copy(&self.socket, stdin).await?;
        Ok(End::Input)
    }

    async fn watch_keys(&self, stdin: &Stdin) -> io::Result<End> {
        let mut keys = DetachKeys { keys: &self.detach_keys, matched: 0 };
        let mut passed = Vec::new();
        let mut buffer = [0; 1024];
        let mut input = &self.early[..];
        loop {
            let detached = keys.filter(input, &mut passed);
            stdin.write(&passed).await?;
            if detached {
                return Ok(End::Detached);
            }
            passed.clear();
            match self.socket.read(&mut buffer).await? {
                0 => return Ok(End::Input),
                n => input = &buffer[..n],
            }
        }
    }
}

enum End {
    Input,
    Detached,
}

/// Copies what `from` brings into `stdin`, until its end.
pub async fn copy(from: &Descriptor, stdin: &Stdin) -> io::Result<()> {
    // A FIFO that nobody has opened for writing yet looks like one at its end.
    from.readable().await?;
    if !stdin.is_terminal() {
        match stdin.splice_from(from).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            other => return other,
        }
    }
    let mut buffer = vec![0; 4096];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stdin.write(&buffer[..n]).await?,
        }
        tokio::task::consume_budget().await;
    }
}

/// Reads until the peer says no more, and forgets it.
pub async fn discard(socket: &Descriptor) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while socket.read(&mut buffer).await? > 0 {
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// Finds the key sequence in what a client types; a beginning of it is held back until it is clear that it is none.
struct DetachKeys<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl DetachKeys<'_> {
    /// Appends what is to be passed on to `passed`; returns whether the sequence is complete. What follows it is dropped.
    fn filter(&mut self, input: &[u8], passed: &mut Vec<u8>) -> bool {
        for &byte in input {
            if byte != self.keys[self.matched] {
                passed.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte != self.keys[self.matched] {
                passed.push(byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&[u8]], passed: &[u8], detached: bool) {
        let mut keys = DetachKeys { keys: &[16, 17], matched: 0 };
        let mut out = Vec::new();
        let left = pieces.iter().any(|piece| keys.filter(piece, &mut out));
        assert_eq!((&out[..], left), (passed, detached), "{pieces:?}");
    }

    #[test]
    fn the_detach_keys_are_found_and_nothing_else_is_lost() {
        check(&[b"ab\x10\x11rest"], b"ab", true);
        check(&[b"\x10", b"\x11"], b"", true);
        check(&[b"\x10x\x11"], b"\x10x\x11", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"a\x10"], b"a", false);
    }

    #[test]
    fn a_frame_begins_with_its_stream_and_its_length() {
        assert_eq!(frame_header(Source::Stderr, 0x0102_0304), [2, 0, 0, 0, 1, 2, 3, 4]);
    }
}
