//! Connections to a published port: each is joined to one of ours to the container, and the kernel moves the bytes.

use std::{
    future::poll_fn,
    io,
    net::{self, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use nix::{
    fcntl::{OFlag, SpliceFFlags, splice},
    sys::socket::{Shutdown, setsockopt, shutdown, sockopt::KeepAlive},
    unistd::pipe2,
};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::Slot;

/// How much one splice moves at most: what a pipe holds.
const SPLICE_BYTES: usize = 64 << 10;
/// Before the next try when no descriptor or no memory was left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Watches a listening socket that was inherited.
pub fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves a port until its slot is emptied. `connections` says how many more there may be at once; who comes beyond that
/// waits in the socket's queue.
pub async fn serve(slot: Arc<Slot<TcpListener>>, target: SocketAddr, connections: Arc<Semaphore>) {
    let mut served = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match accept(&slot).await {
            None => return,
            Some(Ok(client)) => {
                served.spawn(async move {
                    // Whatever went wrong, the client sees its connection end.
                    let _ = join(client, target).await;
                    drop(permit);
                });
            }
            Some(Err(error)) if is_the_clients(&error) => {}
            Some(Err(_)) => tokio::time::sleep(EXHAUSTED).await,
        }
        while served.try_join_next().is_some() {}
    }
}

async fn accept(slot: &Slot<TcpListener>) -> Option<io::Result<TcpStream>> {
    poll_fn(|context| match &*slot.lock() {
        None => Poll::Ready(None),
        Some(listener) => {
            listener.poll_accept(context).map(|answer| Some(answer.map(|(client, _)| client)))
        }
    })
    .await
}

/// Whether an error is of the connection that was to be accepted, and not of ours. Source: `accept(2)`.
fn is_the_clients(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_none_or(|number| !ours.contains(&number))
}

/// Connects to the container and moves what comes from either side to the other, until both have ended.
async fn join(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let container = TcpStream::connect(target).await?;
    for stream in [&client, &container] {
        // The peers decide on their pieces, and a peer that vanished does not hold us for ever.
        stream.set_nodelay(true)?;
        setsockopt(stream, KeepAlive, &true)?;
    }
    tokio::try_join!(pour(&client, &container), pour(&container, &client)).map(drop)
}

/// Moves what `from` brings to `to` until its end, and ends `to` in this direction.
async fn pour(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    loop {
        from.readable().await?;
        // The pipe is empty here, so that EAGAIN can only be the socket's.
        let moved = from.try_io(Interest::READABLE, || splice_some(from, &into, SPLICE_BYTES));
        let mut left = match moved {
            Ok(0) => break,
            Ok(moved) => moved,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        while left > 0 {
            to.writable().await?;
            match to.try_io(Interest::WRITABLE, || splice_some(&out, to, left)) {
                Ok(moved) => left -= moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    match shutdown(std::os::fd::AsRawFd::as_raw_fd(to), Shutdown::Write) {
        // It has gone already.
        Err(nix::Error::ENOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

fn splice_some(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(from, None, to, None, most, flags) {
            Err(nix::Error::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::proxy::Close;

    /// Serves a port that leads to `target`, on a thread of its own, until the slot is closed; returns its address.
    fn proxy(target: SocketAddr, most: usize) -> (SocketAddr, Arc<Slot<TcpListener>>) {
        // An address that no other test uses: a port that was closed is nobody else's.
        let socket = net::TcpListener::bind("127.77.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let slot = Slot::new(listener(socket.into()).unwrap());
                tell.send(Arc::clone(&slot)).unwrap();
                serve(slot, target, Arc::new(Semaphore::new(most))).await;
            });
        });
        (address, told.recv().unwrap())
    }

    /// Listens, and hands each connection to `serve` on a thread.
    fn container(serve: impl Fn(net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
        address
    }

    #[test]
    fn many_bytes_come_through_whole_and_each_direction_ends_by_itself() {
        const MANY: usize = 20 << 20;
        // Answers only when the client has ended its direction.
        let target = container(|mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.reverse();
            stream.write_all(&all).unwrap();
        });
        let (address, slot) = proxy(target, 2);
        let sent: Vec<u8> = (0..MANY).map(|n| ((n * 7) >> 3) as u8).collect();
        let mut client = net::TcpStream::connect(address).unwrap();
        client.write_all(&sent).unwrap();
        client.shutdown(net::Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got.reverse();
        assert!(got == sent);
        slot.close();
    }

    #[test]
    fn a_client_beyond_the_limit_waits_for_its_turn() {
        let target = container(|mut stream| {
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte) {
                stream.write_all(&byte).unwrap();
            }
        });
        let (address, slot) = proxy(target, 1);
        let ask = |client: &mut net::TcpStream| {
            let mut byte = [0];
            client.write_all(b"x").unwrap();
            client.read_exact(&mut byte).map(|()| byte[0])
        };
        let mut first = net::TcpStream::connect(address).unwrap();
        assert_eq!(ask(&mut first).unwrap(), b'x');
        let mut second = net::TcpStream::connect(address).unwrap();
        second.write_all(b"y").unwrap();
        assert_eq!(ask(&mut first).unwrap(), b'x');
        drop(first);
        let mut byte = [0];
        second.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
        slot.close();
    }

    #[test]
    fn where_nobody_serves_the_client_sees_its_connection_end() {
        let nobody = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, slot) = proxy(nobody, 1);
        let mut client = net::TcpStream::connect(address).unwrap();
        let mut byte = [0];
        assert!(matches!(client.read(&mut byte), Ok(0) | Err(_)));
        slot.close();
    }

    #[test]
    fn a_closed_port_is_free_at_once() {
        let (address, slot) = proxy("127.0.0.1:9".parse().unwrap(), 1);
        assert!(net::TcpListener::bind(address).is_err());
        slot.close();
        net::TcpListener::bind(address).unwrap();
    }
}
