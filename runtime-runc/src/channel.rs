//! What parent and child tell each other while a container or an exec comes up: one packet of a `SOCK_SEQPACKET` pair each,
//! the first byte says which. The end of the channel is the last word: the child has let it go, by `execve` or on purpose.

use crate::error::{Context, Result};
use cleat_sys::{Errno, fdpass};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest packet; errors are cut to it.
const MAX_BYTES: usize = 16 << 10;

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Child: the pid of the process that will be init (the sender made it and leaves).
    Born(i32),
    /// Child: everything is in place but the hooks that the parent runs.
    Hooks,
    /// Child: its new time namespace waits for its offsets.
    Clocks,
    /// Child: it needs the source of that mount of the configuration, which it may not open itself.
    Source(u32),
    /// Parent: here it is, detached.
    Tree(OwnedFd),
    /// Child: set up; what may still fail comes as an error.
    Ready,
    /// Child: the seccomp listener, for the agent of the profile.
    Listener(OwnedFd),
    /// Either: it failed, and why.
    Failed(String),
    /// Child: nothing can fail any more; it waits for the parent's word.
    Settled,
    /// Parent: go on.
    Go,
}

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Makes both ends, close-on-exec.
///
/// # Errors
/// At a limit of descriptors.
pub fn pair() -> Result<(Channel, Channel)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map(|(parent, child)| (Channel(parent), Channel(child)))
        .context(|| "unable to create init pipe".to_owned())
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Sends a message.
    ///
    /// # Errors
    /// `EPIPE` where the other side has gone.
    pub fn send(&self, message: &Message) -> std::result::Result<(), Errno> {
        let mut fds: Vec<RawFd> = Vec::new();
        let packet = match message {
            Message::Born(pid) => [b"b", &pid.to_ne_bytes()[..]].concat(),
            Message::Hooks => b"h".to_vec(),
            Message::Clocks => b"c".to_vec(),
            Message::Source(index) => [b"m", &index.to_ne_bytes()[..]].concat(),
            Message::Tree(fd) => {
                fds.push(fd.as_raw_fd());
                b"t".to_vec()
            }
            Message::Ready => b"r".to_vec(),
            Message::Listener(fd) => {
                fds.push(fd.as_raw_fd());
                b"l".to_vec()
            }
            Message::Failed(text) => [b"f", text.as_bytes()].concat(),
            Message::Settled => b"s".to_vec(),
            Message::Go => b"g".to_vec(),
        };
        fdpass::send(&self.0, &packet[..packet.len().min(MAX_BYTES)], &fds).map(drop)
    }

    /// Waits for a message; nothing at the end of the channel.
    ///
    /// # Errors
    /// `EPROTO` for a packet that is no message.
    pub fn receive(&self) -> std::result::Result<Option<Message>, Errno> {
        let mut packet = vec![0; MAX_BYTES];
        let (count, mut fds) = loop {
            match fdpass::recv(&self.0, &mut packet) {
                Err(Errno::EINTR) => {}
                // The other end had unread packets when it was closed.
                Err(Errno::ECONNRESET) => return Ok(None),
                done => break done?,
            }
        };
        let Some((kind, body)) = packet[..count].split_first() else { return Ok(None) };
        Ok(Some(match kind {
            b'b' => Message::Born(i32::from_ne_bytes(body.try_into().map_err(|_| Errno::EPROTO)?)),
            b'h' => Message::Hooks,
            b'c' => Message::Clocks,
            b'm' => {
                Message::Source(u32::from_ne_bytes(body.try_into().map_err(|_| Errno::EPROTO)?))
            }
            b't' => Message::Tree(fds.pop().ok_or(Errno::EPROTO)?),
            b'r' => Message::Ready,
            b'l' => Message::Listener(fds.pop().ok_or(Errno::EPROTO)?),
            b'f' => Message::Failed(String::from_utf8_lossy(body).into_owned()),
            b's' => Message::Settled,
            b'g' => Message::Go,
            _ => return Err(Errno::EPROTO),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_and_then_the_end() {
        let (parent, child) = pair().unwrap();
        child.send(&Message::Ready).unwrap();
        child.send(&Message::Failed("it broke".into())).unwrap();
        drop(child);
        assert!(matches!(parent.receive(), Ok(Some(Message::Ready))));
        assert!(matches!(parent.receive(), Ok(Some(Message::Failed(text))) if text == "it broke"));
        assert!(matches!(parent.receive(), Ok(None)));
    }
}
