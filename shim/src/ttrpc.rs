//! ttrpc, containerd's small RPC: frames of a 10-byte header and a protobuf message (its PROTOCOL.md, version 1.0 unary calls).

use std::io;

use cleat_proto::ttrpc::{Request, Response, Status};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};

use crate::service::Service;

/// PROTOCOL.md, "Message Frame": the largest length that a peer may announce.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

struct Frame {
    stream: u32,
    kind: u8,
    payload: Vec<u8>,
}

/// Reads a frame; none at the end of the connection.
async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut header = [0; 10];
    if let Err(error) = from.read_exact(&mut header).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
    let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if len > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a ttrpc message of {len} bytes"),
        ));
    }
    let mut payload = Vec::new();
    // Grows as bytes arrive, not as they are announced.
    if from.take(len as u64).read_to_end(&mut payload).await? < len {
        return Ok(None);
    }
    Ok(Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, payload }))
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(10 + frame.payload.len());
    bytes.extend_from_slice(&u32::try_from(frame.payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&frame.stream.to_be_bytes());
    bytes.extend_from_slice(&[frame.kind, 0]);
    bytes.extend_from_slice(&frame.payload);
    to.write_all(&bytes).await
}

/// Serves one connection until the peer hangs up or speaks no ttrpc. Calls run side by side.
pub async fn serve(stream: UnixStream, service: Service) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (answers, mut queue) = mpsc::unbounded_channel::<Frame>();
    let writing = async move {
        while let Some(frame) = queue.recv().await {
            write_frame(&mut writer, &frame).await?;
        }
        Ok(())
    };
    let reading = async move {
        while let Some(frame) = read_frame(&mut reader).await? {
            // Clients have the odd streams (PROTOCOL.md, "Stream ID").
            if frame.kind != REQUEST || frame.stream % 2 == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a ttrpc request"));
            }
            let (service, answers) = (service.clone(), answers.clone());
            tokio::spawn(async move {
                let payload = answer(&service, &frame.payload).await.encode_to_vec();
                // The peer has gone.
                let _ = answers.send(Frame { stream: frame.stream, kind: RESPONSE, payload });
            });
        }
        Ok(())
    };
    // Writing ends when the last call has been answered.
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

async fn answer(service: &Service, request: &[u8]) -> Response {
    let result = match Request::decode(request) {
        Ok(request) => service.call(&request.service, &request.method, &request.payload).await,
        Err(error) => Err(tonic::Status::invalid_argument(error.to_string())),
    };
    match result {
        Ok(payload) => Response { status: None, payload },
        Err(status) => {
            let status =
                Status { code: status.code() as i32, message: status.message().to_owned() };
            Response { status: Some(status), payload: Vec::new() }
        }
    }
}

/// A connection to somebody else's server, one call at a time.
pub struct Client {
    stream: UnixStream,
    next: u32,
}

impl Client {
    /// Connects to `address`: a path, with or without `unix://`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        Ok(Self { stream: UnixStream::connect(path).await?, next: 1 })
    }

    /// Calls and waits for the answer, whose content does not matter.
    pub async fn call(&mut self, service: &str, method: &str, payload: &[u8]) -> io::Result<()> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.to_owned(),
            ..Request::default()
        };
        let stream = self.next;
        self.next += 2;
        write_frame(
            &mut self.stream,
            &Frame { stream, kind: REQUEST, payload: request.encode_to_vec() },
        )
        .await?;
        loop {
            match read_frame(&mut self.stream).await? {
                Some(frame) if frame.stream == stream => return Ok(()),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<Frame>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_frame(&mut &bytes[..]))
    }

    #[test]
    fn a_frame_survives_the_wire() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bytes = Vec::new();
        let frame = Frame { stream: 3, kind: REQUEST, payload: b"hello".to_vec() };
        runtime.block_on(write_frame(&mut bytes, &frame)).unwrap();
        assert_eq!(bytes, b"\0\0\0\x05\0\0\0\x03\x01\0hello");
        let back = read(&bytes).unwrap().unwrap();
        assert_eq!((back.stream, back.kind, &back.payload[..]), (3, REQUEST, &b"hello"[..]));
    }

    #[test]
    fn too_long_a_message_and_half_a_one_are_refused() {
        assert!(read(b"\xff\xff\xff\xff\0\0\0\x01\x01\0").is_err());
        assert!(read(b"\0\0\0\x05\0\0\0\x03\x01\0hel").unwrap().is_none());
        assert!(read(b"\0\0").unwrap().is_none());
    }
}
