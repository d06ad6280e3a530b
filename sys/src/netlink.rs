//! Netlink sockets: messages in batches, their acknowledgements, dumps. What the payloads mean is the callers' business.
//!
//! A socket stays in the network namespace in which it was opened, whichever thread uses it later. Source: `netlink(7)`,
//! `linux/netlink.h`.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use crate::Errno;

const HEADER_BYTES: usize = 16;
const SOL_NETLINK: libc::c_int = 270;
/// `sizeof(struct nlmsgerr)`: the error and the header that it is about.
const ERROR_BYTES: usize = 4 + HEADER_BYTES;

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes: `rtnetlink(7)`.
    Route,
    /// nf_tables, conntrack: nfnetlink.
    Netfilter,
}

/// One message without its length and sequence number, which the socket fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`; `NLM_F_REQUEST` and `NLM_F_ACK` are added where they belong.
    pub flags: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// The kernel's refusal of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which message of the batch, from 0.
    pub index: usize,
    /// Why.
    pub errno: Errno,
    /// The kernel's own words, if it had some.
    pub detail: String,
}

impl Error {
    fn socket(errno: Errno) -> Self {
        Self { index: 0, errno, detail: String::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.errno.desc())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    /// Keeps the number where the kernel had no words: `raw_os_error` is of use then.
    fn from(error: Error) -> Self {
        if error.detail.is_empty() {
            Self::from(error.errno)
        } else {
            Self::new(Self::from(error.errno).kind(), error)
        }
    }
}

impl Error {
    /// Whether what was named is not there: a link, a table, an element.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno, Errno::ENODEV | Errno::ENOENT | Errno::ENXIO)
    }
}

/// A netlink socket of the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Whatever `socket(2)` or `bind(2)` answers.
    pub fn open(family: Family) -> crate::Result<Self> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(protocol))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel's own words for an error, and acknowledgements without the message they are about: both are
        // comforts (Linux 4.12 and 4.3), so a kernel without them will do.
        let _ = set_option(&fd, libc::NETLINK_EXT_ACK);
        let _ = set_option(&fd, libc::NETLINK_CAP_ACK);
        // Dumps honour the filters in their request (4.20).
        let _ = set_option(&fd, libc::NETLINK_GET_STRICT_CHK);
        Ok(Self { fd, sequence: 1, buffer: vec![0; 32 << 10] })
    }

    /// Sends all messages in one write and waits until the kernel has dealt with the last of them. Route messages take
    /// effect one by one: those before and after a refused one stand.
    ///
    /// # Errors
    /// The first refusal.
    pub fn transact(&mut self, messages: &[Message]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let last = messages.len() - 1;
        self.exchange(messages, last)
    }

    /// As [`Self::transact`] for nfnetlink, where `messages` are one transaction between `begin` and `end`: all or nothing.
    ///
    /// # Errors
    /// The first refusal, its index counted in `messages`.
    pub fn transact_atomically(
        &mut self,
        begin: &Message,
        messages: &[Message],
        end: &Message,
    ) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut all = Vec::with_capacity(messages.len() + 2);
        all.push(begin.clone());
        all.extend_from_slice(messages);
        all.push(end.clone());
        // The acknowledgement is asked for the last real message: the kernel sends it after the commit.
        self.exchange(&all, messages.len()).map_err(|mut error| {
            error.index = error.index.saturating_sub(1).min(messages.len() - 1);
            error
        })
    }

    /// Sends a dump request and returns type and payload of each answer.
    ///
    /// # Errors
    /// What the kernel answers; `EINTR` where what is dumped changed under the dump: ask again.
    pub fn dump(&mut self, request: &Message) -> Result<Vec<(u16, Vec<u8>)>, Error> {
        for _ in 0..8 {
            match self.dump_once(request) {
                Err(error) if error.errno == Errno::EINTR => {}
                other => return other,
            }
        }
        self.dump_once(request)
    }

    fn exchange(&mut self, messages: &[Message], acknowledged: usize) -> Result<(), Error> {
        let first = self.sequence;
        let mut bytes = Vec::with_capacity(
            messages.iter().map(|message| HEADER_BYTES + 4 + message.payload.len()).sum(),
        );
        for (index, message) in messages.iter().enumerate() {
            let ack = if index == acknowledged { libc::NLM_F_ACK } else { 0 };
            encode(&mut bytes, message, libc::NLM_F_REQUEST | ack, self.next_sequence());
        }
        self.send(&bytes)?;
        let mut refusal: Option<Error> = None;
        let mut done = false;
        while !done {
            let length = self.receive()?;
            for answer in answers(&self.buffer[..length]) {
                let index = answer.sequence.wrapping_sub(first) as usize;
                if answer.kind != libc::NLMSG_ERROR as u16 || index >= messages.len() {
                    continue;
                }
                let (errno, detail) = answer.error();
                if errno != 0 && refusal.is_none() {
                    refusal = Some(Error { index, errno: Errno::from_raw(errno), detail });
                }
                // A transaction whose commit failed is answered at its first message alone.
                done |= index == acknowledged || (errno != 0 && is_batch(messages));
            }
        }
        self.drain();
        refusal.map_or(Ok(()), Err)
    }

    fn dump_once(&mut self, request: &Message) -> Result<Vec<(u16, Vec<u8>)>, Error> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        encode(&mut bytes, request, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, sequence);
        self.send(&bytes)?;
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            for answer in answers(&self.buffer[..length]) {
                if answer.sequence != sequence {
                    continue;
                }
                interrupted |= answer.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        let (errno, detail) = answer.error();
                        let errno = if errno == 0 && interrupted { libc::EINTR } else { errno };
                        return match errno {
                            0 => Ok(found),
                            _ => Err(Error { index: 0, errno: Errno::from_raw(errno), detail }),
                        };
                    }
                    _ => found.push((answer.kind, answer.payload.to_vec())),
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1).max(1);
        sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop).map_err(Error::socket),
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other.map_err(Error::socket),
            }
        }
    }

    /// Takes what is left in the queue, so that the next exchange does not meet it.
    fn drain(&mut self) {
        while recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `NFNL_MSG_BATCH_BEGIN`, which opens a transaction. (No route message has this type.)
const BATCH_BEGIN: u16 = 0x10;

fn is_batch(messages: &[Message]) -> bool {
    messages.len() > 2
        && messages[0].kind == BATCH_BEGIN
        && messages[messages.len() - 1].kind == 0x11
}

fn set_option(fd: &OwnedFd, option: libc::c_int) -> crate::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: `one` is an int that lives across the call, and its true size is passed.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_NETLINK,
            option,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(answer).map(drop)
}

fn encode(bytes: &mut Vec<u8>, message: &Message, flags: libc::c_int, sequence: u32) {
    let length = HEADER_BYTES + message.payload.len();
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&message.kind.to_ne_bytes());
    bytes.extend_from_slice(&(message.flags | flags as u16).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&message.payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

struct Answer<'b> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'b [u8],
}

impl Answer<'_> {
    /// The error of `NLMSG_ERROR` or `NLMSG_DONE`, positive, with the kernel's words from the extended acknowledgement.
    fn error(&self) -> (i32, String) {
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        let header = if i32::from(self.kind) == libc::NLMSG_DONE { 4 } else { ERROR_BYTES };
        let has_words = self.flags & libc::NLM_F_ACK_TLVS as u16 != 0;
        let rest = self.payload.get(header..).filter(|_| has_words).unwrap_or_default();
        (-code, words(rest))
    }
}

/// Finds `NLMSGERR_ATTR_MSG` among the attributes of an extended acknowledgement.
fn words(mut rest: &[u8]) -> String {
    const MESSAGE: u16 = 1;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = rest.get(4..length) else { break };
        if u16::from_ne_bytes([k0, k1]) == MESSAGE {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    String::new()
}

/// Splits a datagram into its messages; a damaged rest is left out.
fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let whole = bytes.get(..length)?;
        let answer = Answer {
            kind: u16::from_ne_bytes(*whole.get(4..)?.first_chunk()?),
            flags: u16::from_ne_bytes(*whole.get(6..)?.first_chunk()?),
            sequence: u32::from_ne_bytes(*whole.get(8..)?.first_chunk()?),
            payload: whole.get(HEADER_BYTES..)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RTM_GETLINK`.
    const GET_LINK: u16 = 18;
    /// `RTM_DELLINK`.
    const DELETE_LINK: u16 = 17;

    fn link(index: u32, kind: u16) -> Message {
        let mut payload = vec![0; 16];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        Message { kind, flags: 0, payload }
    }

    #[test]
    fn a_dump_of_the_links_of_a_new_namespace_is_the_loopback() {
        let (_namespace, found) = crate::netns::create_with(|| {
            Socket::open(Family::Route).unwrap().dump(&link(0, GET_LINK)).unwrap()
        })
        .unwrap();
        let names = found.iter().filter(|(kind, payload)| {
            *kind == 16 && payload.windows(3).any(|window| window == b"lo\0")
        });
        assert_eq!(names.count(), 1);
    }

    #[test]
    fn the_first_refusal_of_a_batch_is_told_with_its_place() {
        let (_namespace, error) = crate::netns::create_with(|| {
            let mut socket = Socket::open(Family::Route).unwrap();
            let error = socket.transact(&[link(77, DELETE_LINK), link(78, DELETE_LINK)]);
            // The socket is still in step after a refusal.
            assert!(socket.dump(&link(0, GET_LINK)).is_ok());
            error.unwrap_err()
        })
        .unwrap();
        assert_eq!((error.index, error.errno), (0, Errno::ENODEV));
    }
}
