//! Descriptors through a unix socket: `SCM_RIGHTS` of `unix(7)`, as owned handles.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// The most descriptors that [`recv`] takes from one message; the kernel closes what is beyond.
pub const MAX_FDS: usize = 4;

/// Sends `bytes` with `fds` on the first of them, and returns how many bytes went.
///
/// # Errors
/// What `sendmsg(2)` says; `EAGAIN` on a non-blocking socket that is full.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[RawFd]) -> Result<usize, Errno> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
    let data = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &data, control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Receives into `buffer`, and returns how many bytes came (0: the peer has shut down) and the descriptors among them.
///
/// The descriptors are close-on-exec.
///
/// # Errors
/// What `recvmsg(2)` says; `EAGAIN` on a non-blocking socket with nothing to read.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut data = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut data, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    if let Ok(control) = message.cmsgs() {
        for item in control {
            if let ControlMessageOwned::ScmRights(raw) = item {
                // SAFETY: the kernel has just installed these descriptors for us, so nothing else owns them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::{fd::AsRawFd, unix::net::UnixStream},
    };

    #[test]
    fn a_descriptor_arrives_with_the_first_byte() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        assert_eq!(super::send(&left, b"take it", &[near.as_raw_fd()]).unwrap(), 7);
        drop(near);

        let mut buffer = [0; 16];
        let (n, mut fds) = super::recv(&right, &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"take it"[..], 1));

        UnixStream::from(fds.remove(0)).write_all(b"hello").unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_message_without_descriptors_brings_none() {
        let (left, right) = UnixStream::pair().unwrap();
        super::send(&left, b"x", &[]).unwrap();
        let (n, fds) = super::recv(&right, &mut [0; 4]).unwrap();
        assert_eq!((n, fds.len()), (1, 0));
        drop(left);
        assert_eq!(super::recv(&right, &mut [0; 4]).unwrap().0, 0);
    }
}
