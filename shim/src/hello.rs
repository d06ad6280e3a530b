//! Our own line protocol on the shim's socket: see [`cleat_proto::shim`].

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use cleat_proto::shim::{Answer, Hello, MAX_LINE_BYTES, PREFIX};
use cleat_sys::fdpass;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::mpsc,
};

use crate::{process::Reply, service::Service, supervisor::Request};

/// Serves one connection.
pub async fn serve(mut stream: UnixStream, service: Service) -> io::Result<()> {
    let (line, descriptor) = read_line(&stream).await?;
    let hello = line.strip_prefix(PREFIX.as_bytes()).map(serde_json::from_slice::<Hello>);
    match hello {
        Some(Ok(Hello::Attach(wish))) => {
            let request = |socket, reply| Request::Attach { wish, socket, reply };
            give(stream, &service, descriptor, request).await
        }
        Some(Ok(Hello::Follow(wish))) => {
            let request = |socket, reply| Request::Follow { wish, socket, reply };
            give(stream, &service, descriptor, request).await
        }
        Some(Ok(Hello::Watch { after })) => watch(stream, &service, after).await,
        Some(Err(error)) => write_answer(&mut stream, Err(error.to_string())).await,
        None => write_answer(&mut stream, Err("not understood".to_owned())).await,
    }
}

/// Gives a client's connection to the supervisor.
async fn give(
    mut stream: UnixStream,
    service: &Service,
    descriptor: Option<OwnedFd>,
    request: impl FnOnce(OwnedFd, Reply<()>) -> Request,
) -> io::Result<()> {
    let result = match descriptor {
        Some(socket) => {
            service.ask(|reply| request(socket, reply)).await.map_err(|error| error.to_string())
        }
        None => Err("no descriptor came with the line".to_owned()),
    };
    write_answer(&mut stream, result).await
}

async fn watch(mut stream: UnixStream, service: &Service, after: u64) -> io::Result<()> {
    let (watcher, mut lines) = mpsc::unbounded_channel();
    let result = service.ask(|reply| Request::Watch { after, watcher, reply }).await;
    let failed = result.is_err();
    write_answer(&mut stream, result.map_err(|error| error.to_string())).await?;
    if failed {
        return Ok(());
    }
    let (mut reader, mut writer) = stream.into_split();
    let mut nothing = [0; 64];
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => writer.write_all(&line).await?,
                // The journal has been removed with its container.
                None => return Ok(()),
            },
            read = reader.read(&mut nothing) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn write_answer(stream: &mut UnixStream, result: Result<(), String>) -> io::Result<()> {
    let answer = result.map_or_else(Answer::Error, |()| Answer::Ok);
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Reads up to the newline; what a peer sends behind it has no meaning.
async fn read_line(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut line = Vec::new();
    let mut descriptor = None;
    let mut buffer = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || Ok(fdpass::recv(stream.as_fd(), &mut buffer)?)) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((n, fds)) => {
                descriptor = fds.into_iter().next().or(descriptor);
                line.extend_from_slice(&buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
            return Ok((line, descriptor));
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
    }
}
