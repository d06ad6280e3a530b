//! The host's ports that lead to the container: their sockets came from the daemon, bound and listening, as descriptors 5 and up.
//!
//! They do two things. They keep the ports taken: a program of the host that wants one of them is told so, also while the
//! daemon is dead. And they serve what the firewall does not lead past them: clients over IPv6 (the container has an
//! IPv4 address alone), and everybody if somebody has flushed the firewall. The other bytes never come here.
//!
//! The sockets are closed before anybody hears of the container's end, so that whoever was told can have the ports. Across
//! restarts by the policy they stay.

mod tcp;
mod udp;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cleat_proto::shim_v1::{PublishedPort, published_port::Protocol};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{sync::Semaphore, task::AbortHandle};

use crate::error::Error;

/// What one connection takes: two sockets, and a pipe for each direction.
const CONNECTION_DESCRIPTORS: u64 = 6;

/// A socket that can be closed at once, whoever else waits for it.
struct Slot<S>(Mutex<Option<S>>);

impl<S> Slot<S> {
    fn new(socket: S) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(socket))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a socket.
trait Close: Send {
    fn close(&self);
}

impl<S: Send> Close for Slot<S> {
    fn close(&self) {
        self.lock().take();
    }
}

/// All published ports of the container. They are closed when it is dropped.
#[derive(Default)]
pub struct Proxy {
    sockets: Vec<Arc<dyn Close + Sync>>,
    tasks: Vec<AbortHandle>,
    /// What the kernel alone serves: the socket only keeps the port.
    kept: Vec<OwnedFd>,
}

impl Proxy {
    /// Serves `ports` on `sockets`, one each; descriptors beyond are closed.
    pub fn start(ports: &[PublishedPort], sockets: Vec<OwnedFd>) -> Result<Self, Error> {
        if ports.len() > sockets.len() {
            let (wanted, given) = (ports.len(), sockets.len());
            return Err(Error::Invalid(format!("{wanted} ports are published on {given} sockets")));
        }
        let mut proxy = Self::default();
        let connections = Arc::new(Semaphore::new(most_connections()));
        for (port, socket) in ports.iter().zip(sockets) {
            proxy
                .add(port, socket, &connections)
                .map_err(Error::io(format!("cannot serve a published port of {}", port.target)))?;
        }
        Ok(proxy)
    }

    fn add(
        &mut self,
        port: &PublishedPort,
        socket: OwnedFd,
        connections: &Arc<Semaphore>,
    ) -> std::io::Result<()> {
        let target: SocketAddr = port.target.parse().map_err(std::io::Error::other)?;
        match port.protocol() {
            Protocol::Tcp => {
                let slot = Slot::new(tcp::listener(socket)?);
                self.sockets.push(slot.clone());
                let serve = tcp::serve(slot, target, Arc::clone(connections));
                self.tasks.push(tokio::spawn(serve).abort_handle());
            }
            Protocol::Udp => {
                let slot = Slot::new(udp::socket(socket)?);
                self.sockets.push(slot.clone());
                self.tasks.push(tokio::spawn(udp::serve(slot, target)).abort_handle());
            }
            Protocol::Sctp => self.kept.push(socket),
        }
        Ok(())
    }

    /// Gives the ports back, and ends what is served on them. When this returns, others can have them.
    pub fn close(&mut self) {
        self.sockets.drain(..).for_each(|socket| socket.close());
        self.tasks.drain(..).for_each(|task| task.abort());
        self.kept.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

/// Half of the descriptors we may have: the rest is for the container's own.
fn most_connections() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft / 2 / CONNECTION_DESCRIPTORS)
        .unwrap_or(usize::MAX)
        .clamp(16, Semaphore::MAX_PERMITS)
}
