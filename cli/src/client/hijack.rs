//! Connections taken over for raw streams: attach and exec.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;

use super::Error;

/// A socket in the container's hands. Blocking, to be used from threads.
pub struct Hijacked {
    /// What the daemon sends, from the first byte on.
    pub reader: Reader,
    /// What goes to the daemon.
    pub writer: Writer,
}

/// The reading half.
pub struct Reader {
    first: Bytes,
    socket: Socket,
}

/// The writing half.
pub struct Writer(Socket);

enum Socket {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
}

/// Takes the connection over once the daemon has switched protocols.
pub(super) async fn take_over(response: hyper::Response<Incoming>) -> Result<Hijacked, Error> {
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        // What the daemon says is not read: docker's client does not either, and its text is this one.
        let status = response.status().as_u16();
        return Err(Error::Request(format!("unable to upgrade to tcp, received {status}")));
    }
    let upgraded =
        hyper::upgrade::on(response).await.map_err(|error| Error::Transport(error.to_string()))?;
    let broken = |error: io::Error| Error::Transport(error.to_string());
    let (socket, first) = match upgraded.downcast::<TokioIo<tokio::net::UnixStream>>() {
        Ok(Parts { io, read_buf, .. }) => {
            (io.into_inner().into_std().map(Socket::Unix).map_err(broken)?, read_buf)
        }
        Err(upgraded) => match upgraded.downcast::<TokioIo<tokio::net::TcpStream>>() {
            Ok(Parts { io, read_buf, .. }) => {
                (io.into_inner().into_std().map(Socket::Tcp).map_err(broken)?, read_buf)
            }
            Err(_) => return Err(Error::Request("unexpected kind of connection".into())),
        },
    };
    let (reader, writer) = socket.split().map_err(broken)?;
    Ok(Hijacked { reader: Reader { first, socket: reader }, writer: Writer(writer) })
}

impl Socket {
    fn split(self) -> io::Result<(Self, Self)> {
        match self {
            Self::Unix(stream) => {
                stream.set_nonblocking(false)?;
                Ok((Self::Unix(stream.try_clone()?), Self::Unix(stream)))
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                Ok((Self::Tcp(stream.try_clone()?), Self::Tcp(stream)))
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.first.is_empty() {
            let count = buffer.len().min(self.first.len());
            buffer[..count].copy_from_slice(&self.first.split_to(count));
            return Ok(count);
        }
        match &mut self.socket {
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Unix(stream) => stream.write(buffer),
            Socket::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    /// Says that no more input follows; output goes on.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn close(&self) -> io::Result<()> {
        match &self.0 {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
