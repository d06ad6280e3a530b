//! A client of a WebSocket, as RFC 6455 has it: enough to hold ours against the standard.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

/// One message as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// 1 text, 2 binary, 8 close, 10 pong.
    pub opcode: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// An open WebSocket.
pub struct WebSocket(UnixStream);

impl WebSocket {
    /// Asks for one at `path`; returns the head of the answer if it is refused.
    ///
    /// # Errors
    /// The answer, to its end.
    pub fn open(socket: &Path, path: &str) -> Result<Self, String> {
        let mut stream = UnixStream::connect(socket).expect("the daemon listens");
        // RFC 6455, section 1.3, has this key and what must come back for it.
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .expect("a request can be sent");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("an answer") == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        if head.starts_with("HTTP/1.1 101 ") {
            assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
            return Ok(Self(stream));
        }
        stream.shutdown(std::net::Shutdown::Write).expect("a socket can be half-closed");
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        Err(head + &rest)
    }

    /// Sends a masked frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        assert!(payload.len() < 126, "a test's frames are short");
        let mask = [7, 1, 200, 33];
        let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).expect("a frame can be sent");
    }

    /// Reads the next frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert_eq!(head[0] & 0xf0, 0x80, "a whole frame without extensions");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let mut read = |count: usize| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; count];
            self.0.read_exact(&mut bytes).map(|()| bytes)
        };
        let number = |bytes: Vec<u8>| bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let length = match head[1] {
            126 => number(read(2).ok()?),
            127 => number(read(8).ok()?),
            short => short.into(),
        };
        Some(Frame { opcode: head[0] & 0x0f, payload: read(length).ok()? })
    }

    /// Reads data frames of kind `opcode` until `wanted` bytes are there.
    pub fn read(&mut self, opcode: u8, wanted: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < wanted {
            let frame = self.frame().expect("more data");
            assert_eq!(frame.opcode, opcode, "{frame:?}");
            all.extend(frame.payload);
        }
        all
    }
}
