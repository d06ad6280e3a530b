//! Datagrams to a published port: each client has a socket of its own towards the container, for as long as either side speaks.

use std::{
    collections::HashMap,
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Slot;

/// How long a client is remembered after the last datagram, Docker's.
const SILENCE: Duration = Duration::from_secs(90);
/// How many clients of a port are served at once; the datagrams of others are lost, as UDP's may be.
const MOST_CLIENTS: usize = 1024;
/// The longest datagram.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Watches a bound socket that was inherited, and asks to be told which address datagrams were sent to.
pub fn socket(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    match socket.local_addr()? {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
    }
    UdpSocket::from_std(socket)
}

/// Who sent something, and to which of the host's addresses: the answer has to come from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    address: SocketAddr,
    asked: Option<IpAddr>,
    /// Which link it came by, for an address that is only known there.
    link: u32,
}

/// A client's way to the container.
struct Flow {
    socket: UdpSocket,
    heard: Mutex<Instant>,
}

impl Flow {
    async fn open(target: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(target).await?;
        Ok(Self { socket, heard: Mutex::new(Instant::now()) })
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silent_at(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE
    }
}

/// Serves a port until its slot is emptied.
pub async fn serve(slot: Arc<Slot<UdpSocket>>, target: SocketAddr) {
    let mut flows: HashMap<Client, Arc<Flow>> = HashMap::new();
    let mut answering = JoinSet::new();
    // Taken when the first datagram comes: most ports are served by the kernel alone.
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            Some(silent) = answering.join_next(), if !answering.is_empty() => {
                if let Ok(client) = silent {
                    flows.remove(&client);
                }
            }
            readable = readable(&slot) => {
                if !readable {
                    return;
                }
                buffer.resize(DATAGRAM_BYTES, 0);
                let Ok((length, client)) = receive(&slot, &mut buffer) else { continue };
                let flow = match flows.get(&client) {
                    Some(flow) => Arc::clone(flow),
                    None if flows.len() >= MOST_CLIENTS => continue,
                    None => {
                        let Ok(flow) = Flow::open(target).await.map(Arc::new) else { continue };
                        flows.insert(client, Arc::clone(&flow));
                        answering.spawn(answer(Arc::clone(&slot), Arc::clone(&flow), client));
                        flow
                    }
                };
                flow.hear();
                // An error is that of the datagram before, which nobody took: this one gets its own try.
                if flow.socket.send(&buffer[..length]).await.is_err() {
                    let _ = flow.socket.send(&buffer[..length]).await;
                }
            }
        }
    }
}

/// Passes on what the container answers a client, until neither has spoken for a while.
async fn answer(slot: Arc<Slot<UdpSocket>>, flow: Arc<Flow>, client: Client) -> Client {
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            biased;
            readable = flow.socket.readable() => {
                if readable.is_err() {
                    return client;
                }
                buffer.resize(DATAGRAM_BYTES, 0);
                // An error is the refusal of a datagram that nobody in the container listened for: it may yet do so.
                if let Ok(length) = flow.socket.try_recv(&mut buffer) {
                    flow.hear();
                    let _ = send(&slot, &buffer[..length], client);
                }
                // Held only while it is busy.
                if !is_readable(&flow.socket) {
                    buffer = Vec::new();
                }
            }
            () = sleep_until(flow.silent_at()) => {
                if Instant::now() >= flow.silent_at() {
                    return client;
                }
            }
        }
    }
}

fn is_readable(socket: &UdpSocket) -> bool {
    let mut asked =
        [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(socket), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut asked, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits for a datagram; false if the slot is empty.
async fn readable(slot: &Slot<UdpSocket>) -> bool {
    poll_fn(|context| match &*slot.lock() {
        None => Poll::Ready(false),
        Some(socket) => socket.poll_recv_ready(context).map(|_| true),
    })
    .await
}

fn receive(slot: &Slot<UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    let slot = slot.lock();
    let socket = slot.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    socket.try_io(Interest::READABLE, || {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let got = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let from = got.address.as_ref().and_then(address_of);
        let address = from.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (mut asked, mut link) = (None, 0);
        for message in got.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    asked = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    asked = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                    link = info.ipi6_ifindex;
                }
                _ => {}
            }
        }
        Ok((got.bytes, Client { address, asked, link }))
    })
}

fn send(slot: &Slot<UdpSocket>, datagram: &[u8], client: Client) -> io::Result<usize> {
    let slot = slot.lock();
    let socket = slot.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let to = SockaddrStorage::from(client.address);
    let parts = [IoSlice::new(datagram)];
    let send = |control: &[ControlMessage<'_>]| {
        let fd = socket.as_raw_fd();
        Ok(sendmsg(fd, &parts, control, MsgFlags::MSG_DONTWAIT, Some(&to))?)
    };
    socket.try_io(Interest::WRITABLE, || match client.asked {
        None => send(&[]),
        Some(IpAddr::V4(address)) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        })]),
        Some(IpAddr::V6(address)) => send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
            ipi6_ifindex: if address.is_unicast_link_local() { client.link } else { 0 },
        })]),
    })
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Close;

    /// Serves a port at `address` that leads to `target`, on a thread of its own, until the slot is closed.
    fn proxy(address: &str, target: SocketAddr) -> (u16, Arc<Slot<UdpSocket>>) {
        let bound = net::UdpSocket::bind(address).unwrap();
        let port = bound.local_addr().unwrap().port();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let slot = Slot::new(socket(bound.into()).unwrap());
                tell.send(Arc::clone(&slot)).unwrap();
                serve(slot, target).await;
            });
        });
        (port, told.recv().unwrap())
    }

    fn bind(address: &str) -> net::UdpSocket {
        let socket = net::UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    #[track_caller]
    fn speaks_both_ways(address: &str, client: &net::UdpSocket, to: &str) {
        let container = bind("127.0.0.1:0");
        let (port, slot) = proxy(address, container.local_addr().unwrap());
        // A connected socket takes answers from the very address it sent to, and from no other.
        client.connect((to, port)).unwrap();
        let mut buffer = [0; 100];
        for round in 0..3u8 {
            client.send(&[round; 3]).unwrap();
            let (length, from) = container.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [round; 3]);
            container.send_to(&[round + 1; 5], from).unwrap();
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [round + 1; 5]);
        }
        slot.close();
    }

    #[test]
    fn the_answer_comes_from_the_address_that_was_asked() {
        speaks_both_ways("0.0.0.0:0", &bind("127.0.0.1:0"), "127.0.0.5");
    }

    #[test]
    fn a_client_over_ipv6_speaks_to_a_container_without_it() {
        speaks_both_ways("[::1]:0", &bind("[::1]:0"), "::1");
    }

    #[test]
    fn a_refusal_does_not_end_a_flow() {
        let spare = bind("127.0.0.1:0");
        let target = spare.local_addr().unwrap();
        let (port, slot) = proxy("127.0.0.1:0", target);
        let client = bind("127.0.0.1:0");
        client.connect(("127.0.0.1", port)).unwrap();
        client.send(b"a").unwrap();
        let mut buffer = [0; 10];
        let (_, flow) = spare.recv_from(&mut buffer).unwrap();
        drop(spare);
        // Nobody is there; then somebody is.
        client.send(b"b").unwrap();
        let again = bind(&target.to_string());
        let (got, from) = loop {
            client.send(b"c").unwrap();
            again.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            if let Ok((length, from)) = again.recv_from(&mut buffer) {
                break (buffer[..length].to_vec(), from);
            }
        };
        assert!(got == b"b" || got == b"c");
        assert_eq!(from, flow);
        slot.close();
    }
}
