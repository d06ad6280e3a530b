//! The writing end of a process's standard input, shared by the clients that may type into it.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    fcntl::{SpliceFFlags, splice},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use tokio::io::Interest;

use crate::descriptor::Descriptor;

/// Where a process's stdin is to be found: it comes into being with the process, clients may come before.
#[derive(Default)]
pub enum Slot {
    #[default]
    NotYet,
    Open(Arc<Stdin>),
    Absent,
}

/// A pipe, or the master of a terminal.
pub struct Stdin {
    end: Mutex<Option<Arc<Descriptor>>>,
    terminal: bool,
}

impl Stdin {
    /// How much one splice moves at most.
    const SPLICE_BYTES: usize = 1 << 20;

    pub fn new(end: Arc<Descriptor>, terminal: bool) -> Self {
        Self { end: Mutex::new(Some(end)), terminal }
    }

    /// Whether keys go into it, and not a stream of bytes.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Closes it, once writes under way have ended. A terminal stays open: its master also brings the output.
    pub fn close(&self) {
        self.lock().take();
    }

    /// Writes `data`, waiting for room.
    ///
    /// # Errors
    /// `BrokenPipe` if it is closed, here or by the process.
    pub async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.end()?.write_all(data).await
    }

    /// Moves what `socket` brings without copying it, until its end.
    ///
    /// # Errors
    /// `InvalidInput` before anything was moved if the kernel cannot; `BrokenPipe` as [`Self::write`] says.
    pub async fn splice_from(&self, socket: &Descriptor) -> io::Result<()> {
        let end = self.end()?;
        loop {
            match splice(
                socket,
                None,
                &*end,
                None,
                Self::SPLICE_BYTES,
                SpliceFFlags::SPLICE_F_NONBLOCK,
            ) {
                Ok(0) => return Ok(()),
                Ok(_) => tokio::task::consume_budget().await,
                Err(nix::Error::EINTR) => {}
                // It does not say which of the two has to be waited for.
                Err(nix::Error::EAGAIN) if is_ready(socket, PollFlags::POLLIN)? => {
                    end.exhausted(Interest::WRITABLE);
                    if !is_ready(&end, PollFlags::POLLOUT)? {
                        end.writable().await?;
                    }
                }
                Err(nix::Error::EAGAIN) => {
                    socket.exhausted(Interest::READABLE);
                    socket.readable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn end(&self) -> io::Result<Arc<Descriptor>> {
        self.lock().clone().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Descriptor>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_ready(descriptor: &Descriptor, what: PollFlags) -> io::Result<bool> {
    let mut asked = [PollFd::new(descriptor.as_fd(), what)];
    Ok(poll(&mut asked, PollTimeout::ZERO)? > 0)
}
