//! A descriptor that epoll knows: pipes, FIFOs, sockets, pty masters, eventfds, inotify.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    task::{Context, Poll},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{Interest, unix::AsyncFd};

/// An owned, non-blocking descriptor. Reads and writes take `&self`: several tasks may share one.
pub struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Makes `fd` non-blocking (for everybody who shares its open file description) and watches it.
    ///
    /// # Errors
    /// `EPERM` if epoll cannot watch it, such as a regular file.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        // tokio's objection is to types whose descriptor changes while it is registered; an OwnedFd's does not, and the
        // function it would have instead is unsafe, which has no place here.
        #[expect(deprecated, reason = "see above")]
        let watched = AsyncFd::new(fd)?;
        Ok(Self(watched))
    }

    /// Waits until a read would not block.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// [`Self::readable`] as a poll, for whoever waits for several; one task at a time.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context).map_ok(|mut guard| guard.retain_ready())
    }

    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(|mut guard| guard.retain_ready())
    }

    /// Reads what is there; `WouldBlock` if that is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, buffer)?))
    }

    /// Writes what fits; `WouldBlock` if that is nothing.
    pub fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.attempt(Interest::WRITABLE, |fd| Ok(nix::sys::uio::writev(fd, parts)?))
    }

    /// Runs `call` whatever is known about readiness, and notes if it says `EAGAIN`.
    fn attempt<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(self.0.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.exhausted(interest);
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Notes that a call other than those here has said `EAGAIN`: waiting now means waiting for news.
    pub fn exhausted(&self, interest: Interest) {
        // Only its side effect is wanted.
        let _ = self.0.try_io(interest, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Reads, waiting for something to read.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Writes everything, waiting for room.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.try_write(&[IoSlice::new(data)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => data = &data[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer has closed both directions (`EPOLLHUP`).
    ///
    /// On a descriptor of its own that listens for nothing else: the readiness of this one is its readers' and writers'.
    pub async fn hung_up(&self) -> io::Result<()> {
        let copy = self.as_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "as in new")]
        let listener = AsyncFd::with_interest(copy, Interest::PRIORITY)?;
        let _ = listener.ready(Interest::PRIORITY).await?;
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
