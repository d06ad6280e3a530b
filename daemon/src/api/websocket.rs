//! WebSockets, as far as a server of byte streams needs them: the handshake, and a relay between a client's frames and a
//! container's stream.
//!
//! ```text
//! client ── frames ──▶ Decoder ── payload ──▶ shim (stdin)
//!        ◀── frames ── one per piece ◀── Pieces ◀── shim (stdout and stderr, in Docker's framing)
//! ```
//!
//! A library is not worth its weight here: of RFC 6455 a server that passes bytes on reads masked frames without keeping a
//! message together, and writes whole unmasked ones; extensions and subprotocols are never agreed on. What the client sees is
//! what Go's `x/net/websocket` does in dockerd.

use axum::response::Response;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use sha1::{Digest, Sha1};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::Mutex,
};

use super::hijack::{Socket, Taken};

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one version. RFC 6455, section 4.1.
const VERSION: &str = "13";
/// How much is passed on at a time.
const PIECE_BYTES: usize = 16 << 10;
/// A control frame's longest payload: RFC 6455, section 5.5.
const MAX_CONTROL: usize = 125;

/// What a frame is: RFC 6455, section 5.2.
mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// Why a connection is closed: RFC 6455, section 7.4.1.
mod status {
    pub const NORMAL: u16 = 1000;
    pub const PROTOCOL_ERROR: u16 = 1002;
}

/// What output is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As before API 1.28.
    Text,
    /// Since then.
    Binary,
}

/// A client's wish for a WebSocket, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Handshake {
    accept: String,
    protocol: Option<String>,
}

/// Why there is no WebSocket, in the words of Go's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No upgrade to it was asked for.
    NotWebSocket,
    /// No key.
    NoKey,
    /// Another version than 13.
    BadVersion,
    /// Several subprotocols, of which we would have to know one.
    Protocols,
}

impl Handshake {
    /// Reads a request's head: RFC 6455, section 4.2.1.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let connection = text(header::CONNECTION).to_ascii_lowercase();
        if !text(header::UPGRADE).eq_ignore_ascii_case("websocket")
            || !connection.contains("upgrade")
        {
            return Err(Refusal::NotWebSocket);
        }
        let key = text(header::SEC_WEBSOCKET_KEY);
        if key.is_empty() {
            return Err(Refusal::NoKey);
        }
        if text(header::SEC_WEBSOCKET_VERSION) != VERSION {
            return Err(Refusal::BadVersion);
        }
        let protocol = text(header::SEC_WEBSOCKET_PROTOCOL).trim();
        if protocol.contains(',') {
            return Err(Refusal::Protocols);
        }
        let sum = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        let protocol = Some(protocol.to_owned()).filter(|protocol| !protocol.is_empty());
        Ok(Self { accept: STANDARD.encode(sum), protocol })
    }

    /// The answer's head.
    fn head(&self) -> String {
        let protocol = match &self.protocol {
            Some(protocol) => format!("Sec-WebSocket-Protocol: {protocol}\r\n"),
            None => String::new(),
        };
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            self.accept
        )
    }
}

impl Refusal {
    /// Answers, and hangs up: the connection has been taken from HTTP by then.
    pub async fn answer(self, socket: &Socket) -> Response {
        let (more, text) = match self {
            Self::NotWebSocket => ("", "not websocket protocol"),
            Self::NoKey => ("", "mismatch challenge/response"),
            Self::BadVersion => {
                ("Sec-WebSocket-Version: 13\r\n", "missing or bad WebSocket Version")
            }
            Self::Protocols => ("", ""),
        };
        let answer = format!("HTTP/1.1 400 Bad Request\r\n{more}\r\n{text}");
        socket
            .take(async move |taken| {
                // A client that is gone needs no answer.
                let _ = taken.write(answer.as_bytes());
            })
            .await
    }
}

/// Serves a client until it or the container's stream ends. `stream` is the other side of what the shim was given; without a
/// terminal it is in Docker's framing, which a client of a WebSocket does not get.
///
/// # Errors
/// If either side fails.
pub async fn relay(
    client: Taken,
    handshake: &Handshake,
    stream: UnixStream,
    tty: bool,
    kind: Kind,
) -> std::io::Result<()> {
    client.write(handshake.head().as_bytes())?;
    let early = client.early.clone();
    let (mut from_client, to_client) = client.into_stream()?.into_split();
    let to_client = Mutex::new(to_client);
    let (mut from_shim, mut to_shim) = stream.into_split();
    let input = async {
        let mut decoder = Decoder::default();
        let mut payload = Vec::new();
        let mut buffer = early;
        loop {
            let end = answer(decoder.feed(&buffer, &mut payload), &to_client).await?;
            // One who reads no further has lost his interest in the input, not in the output.
            let _ = to_shim.write_all(&payload).await;
            payload.clear();
            if end {
                return to_shim.shutdown().await;
            }
            buffer.resize(PIECE_BYTES, 0);
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_shim.shutdown().await;
            }
            buffer.truncate(count);
        }
    };
    let output = async {
        let opcode = if kind == Kind::Text { opcode::TEXT } else { opcode::BINARY };
        let mut pieces = Pieces::new(tty);
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = from_shim.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            for piece in pieces.split(&buffer[..count]) {
                send(&to_client, opcode, piece).await?;
            }
        }
    };
    let ended = tokio::select! {
        ended = input => ended,
        ended = output => ended,
    };
    // Whoever closed first, the other is told: RFC 6455, section 5.5.1.
    let _ = send(&to_client, opcode::CLOSE, &status::NORMAL.to_be_bytes()).await;
    ended
}

/// Does what control frames ask for; `true` at the end of the client's stream.
async fn answer(
    control: Result<Vec<Control>, Violation>,
    client: &Mutex<OwnedWriteHalf>,
) -> std::io::Result<bool> {
    let Ok(control) = control else {
        send(client, opcode::CLOSE, &status::PROTOCOL_ERROR.to_be_bytes()).await?;
        return Ok(true);
    };
    for frame in control {
        match frame {
            Control::Ping(payload) => send(client, opcode::PONG, &payload).await?,
            Control::Close => return Ok(true),
        }
    }
    Ok(false)
}

/// Writes one whole frame, unmasked: RFC 6455, section 5.1.
async fn send(client: &Mutex<OwnedWriteHalf>, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    client.lock().await.write_all(&frame).await
}

/// A control frame that asks for something.
#[derive(Debug, PartialEq, Eq)]
enum Control {
    Ping(Vec<u8>),
    Close,
}

/// The client does not speak RFC 6455.
#[derive(Debug, PartialEq, Eq)]
struct Violation;

/// Takes frames apart, however they are cut; payload goes out as it comes.
#[derive(Debug, Default)]
struct Decoder {
    head: Vec<u8>,
    frame: Option<Frame>,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    mask: [u8; 4],
    at: u64,
    length: u64,
    control: Vec<u8>,
}

impl Decoder {
    /// Reads what came; appends the payload of data frames to `payload`. After a close nothing more is read.
    fn feed(&mut self, mut bytes: &[u8], payload: &mut Vec<u8>) -> Result<Vec<Control>, Violation> {
        let mut control = Vec::new();
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.begin(&mut bytes)? {
                    Some(frame) => frame,
                    None => return Ok(control),
                },
            };
            let left = usize::try_from(frame.length - frame.at).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(left));
            let target = if frame.is_control() { &mut frame.control } else { &mut *payload };
            for (byte, at) in now.iter().zip(frame.at..) {
                target.push(byte ^ frame.mask[(at % 4) as usize]);
            }
            frame.at += now.len() as u64;
            bytes = rest;
            if frame.at < frame.length {
                self.frame = Some(frame);
                return Ok(control);
            }
            match frame.opcode {
                opcode::PING => control.push(Control::Ping(frame.control)),
                opcode::CLOSE => {
                    control.push(Control::Close);
                    return Ok(control);
                }
                _ => {}
            }
        }
    }

    /// Reads a frame's head: RFC 6455, section 5.2. `None` if it is not whole yet.
    fn begin(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        loop {
            if let Some(frame) = Frame::parse(&self.head)? {
                self.head.clear();
                return Ok(Some(frame));
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
            self.head.push(*byte);
            *bytes = rest;
        }
    }
}

impl Frame {
    fn parse(head: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = head else { return Ok(None) };
        let (opcode, short) = (first & 0x0f, second & 0x7f);
        let known = matches!(
            opcode,
            opcode::CONTINUATION
                | opcode::TEXT
                | opcode::BINARY
                | opcode::CLOSE
                | opcode::PING
                | opcode::PONG
        );
        let is_control = opcode >= opcode::CLOSE;
        let is_whole = first & 0x80 != 0;
        // No extension was agreed on, a client masks, and a control frame is short and whole.
        if first & 0x70 != 0
            || second & 0x80 == 0
            || !known
            || is_control && (!is_whole || usize::from(short) > MAX_CONTROL)
        {
            return Err(Violation);
        }
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, mask)) = rest.split_at_checked(width) else { return Ok(None) };
        let Ok(mask) = <[u8; 4]>::try_from(mask) else { return Ok(None) };
        let length = match width {
            0 => u64::from(short),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length > i64::MAX as u64 {
            return Err(Violation);
        }
        Ok(Some(Self { opcode, mask, at: 0, length, control: Vec::new() }))
    }

    fn is_control(&self) -> bool {
        self.opcode >= opcode::CLOSE
    }
}

/// Takes Docker's framing off a stream: eight bytes before each piece, the last four its length.
/// Source: Engine API v1.51, ContainerAttach, "Stream format".
struct Pieces {
    tty: bool,
    head: Vec<u8>,
    left: usize,
}

impl Pieces {
    fn new(tty: bool) -> Self {
        Self { tty, head: Vec::new(), left: 0 }
    }

    /// Returns the pieces in `bytes`; one that is cut goes on in the next call.
    fn split<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        if self.tty {
            return vec![bytes];
        }
        let mut pieces = Vec::new();
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(bytes.len().min(self.left));
                self.left -= piece.len();
                pieces.push(piece);
                bytes = rest;
                continue;
            }
            self.head.push(*byte);
            bytes = rest;
            if let [_, _, _, _, a, b, c, d] = self.head[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.head.clear();
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode];
        if payload.len() < 126 {
            frame.push(0x80 | payload.len() as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn the_handshake_is_the_standards_example() {
        let mut headers = HeaderMap::new();
        assert_eq!(Handshake::read(&headers), Err(Refusal::NotWebSocket));
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        headers.insert(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert_eq!(Handshake::read(&headers), Err(Refusal::NoKey));
        headers.insert(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(Handshake::read(&headers), Err(Refusal::BadVersion));
        headers.insert(header::SEC_WEBSOCKET_VERSION, "13".parse().unwrap());
        // RFC 6455, section 1.3
        assert_eq!(Handshake::read(&headers).unwrap().accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "a, b".parse().unwrap());
        assert_eq!(Handshake::read(&headers), Err(Refusal::Protocols));
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut sent = masked(opcode::TEXT, b"hello ");
        sent.extend(masked(opcode::PING, b"p"));
        sent.extend(masked(opcode::BINARY, &[b'x'; 300]));
        sent.extend(masked(opcode::PONG, b"q"));
        sent.extend(masked(opcode::CLOSE, &1000_u16.to_be_bytes()));
        sent.extend(masked(opcode::TEXT, b"too late"));
        for cut in [1, 2, 3, 7, 1000] {
            let (mut decoder, mut payload, mut control) =
                (Decoder::default(), Vec::new(), Vec::new());
            for bytes in sent.chunks(cut) {
                if control.last() != Some(&Control::Close) {
                    control.extend(decoder.feed(bytes, &mut payload).unwrap());
                }
            }
            assert_eq!(payload, [b"hello ".as_slice(), &[b'x'; 300]].concat(), "{cut}");
            assert_eq!(control, [Control::Ping(b"p".to_vec()), Control::Close]);
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_noticed() {
        let unmasked = [0x81, 1, b'x'];
        let reserved = [0xc1, 0x80, 0, 0, 0, 0];
        let unknown = [0x83, 0x80, 0, 0, 0, 0];
        let cut_ping = [opcode::PING, 0x80, 0, 0, 0, 0];
        let long_ping = [0x80 | opcode::PING, 0x80 | 126, 1, 0, 0, 0, 0, 0];
        for wrong in [&unmasked[..], &reserved, &unknown, &cut_ping, &long_ping] {
            let read = Decoder::default().feed(wrong, &mut Vec::new());
            assert_eq!(read, Err(Violation), "{wrong:?}");
        }
    }

    #[test]
    fn dockers_framing_is_taken_off() {
        let stream = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03err";
        for cut in [1, 3, 9, 100] {
            let mut pieces = Pieces::new(false);
            let joined: Vec<u8> =
                stream.chunks(cut).flat_map(|bytes| pieces.split(bytes).concat()).collect();
            assert_eq!(joined, b"hierr", "{cut}");
        }
        assert_eq!(Pieces::new(true).split(b"\x01raw"), [b"\x01raw"]);
    }
}
