//! Network namespaces made beforehand: `lo` is up, and `eth0` is there, down, with its other end a port of the bridge. A
//! start only gives it an address. A ready namespace is held by nothing but our descriptors: if the daemon dies, it
//! and its link go with it.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use cleat_sys::{
    netlink::{Family, Socket},
    netns,
};

use super::link::{self, Veth, Which};

/// How many wait. Making one takes a millisecond of a thread that nobody waits for.
const READY: usize = 4;

/// The container's interface.
pub const INTERFACE: &str = "eth0";

/// What a namespace is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The bridge's number here.
    pub bridge: u32,
    /// 0 is the default.
    pub mtu: u32,
    /// Containers must not talk to each other past the firewall.
    pub isolated: bool,
    /// The alias of links that are ready and nobody's yet.
    pub alias: String,
}

/// A namespace that nobody has yet.
#[derive(Debug)]
pub struct Ready {
    /// The namespace.
    pub netns: OwnedFd,
    /// A socket in it.
    pub inside: Socket,
    /// `eth0`'s number in it.
    pub index: u32,
    /// The other end's name here.
    pub name: String,
}

/// The ready namespaces, and the thread that makes them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    uplink: Uplink,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Ready>,
    closed: bool,
    /// The maker could not make one: it waits until somebody asks again.
    failed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts to fill a pool, from the calling thread's namespace.
    ///
    /// # Errors
    /// Whatever keeps the thread from starting.
    pub fn open(uplink: Uplink) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let pool = Self { shared: Arc::clone(&shared), uplink: uplink.clone() };
        let mut host = Socket::open(Family::Route)?;
        thread::Builder::new()
            .name("netns-pool".into())
            .stack_size(128 << 10)
            .spawn(move || fill(&shared, &uplink, &mut host))?;
        Ok(pool)
    }

    /// What its namespaces are connected to.
    pub fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// Takes a ready namespace, or makes one.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn take(&self) -> io::Result<Ready> {
        let ready = {
            let mut state = self.shared.lock();
            state.failed = false;
            state.ready.pop()
        };
        self.shared.changed.notify_all();
        match ready {
            Some(ready) => Ok(ready),
            None => make(&mut Socket::open(Family::Route)?, &self.uplink),
        }
    }

    /// Ends the thread and returns what was ready.
    pub fn close(&self) -> Vec<Ready> {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        std::mem::take(&mut state.ready)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

fn fill(shared: &Shared, uplink: &Uplink, host: &mut Socket) {
    let mut state = shared.lock();
    while !state.closed {
        if state.failed || state.ready.len() >= READY {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(state);
        let made = make(host, uplink);
        state = shared.lock();
        match made {
            // Whoever closed the pool took the others: this one is left to us.
            Ok(ready) if state.closed => discard(host, &ready),
            Ok(ready) => state.ready.push(ready),
            Err(error) => {
                tracing::warn!(%error, "cannot make a network namespace beforehand");
                state.failed = true;
            }
        }
    }
}

/// Removes the link of a namespace that nobody wants; the namespace ends with its descriptors.
pub fn discard(host: &mut Socket, ready: &Ready) {
    if let Err(error) = host.transact(&[link::delete(Which::Name(&ready.name))]) {
        tracing::warn!(%error, link = ready.name, "cannot remove a link");
    }
}

fn make(host: &mut Socket, uplink: &Uplink) -> io::Result<Ready> {
    let (netns, inside) = netns::create_with(prepare_inside)?;
    let mut inside = inside?;
    let name = link_name()?;
    let (alias, mac) = (uplink.alias.as_str(), random_mac()?);
    let index = connect(host, &mut inside, &netns, &name, alias, mac, uplink)?;
    Ok(Ready { netns, inside, index, name })
}

/// Makes the pair of links between the bridge and a namespace; both ends are down. Returns the inner end's number.
///
/// # Errors
/// What the kernel answers; then there is no pair.
pub fn connect(
    host: &mut Socket,
    inside: &mut Socket,
    netns: &OwnedFd,
    name: &str,
    alias: &str,
    peer_mac: [u8; 6],
    uplink: &Uplink,
) -> io::Result<u32> {
    let veth = Veth {
        name,
        master: uplink.bridge,
        peer: INTERFACE,
        peer_mac,
        namespace: netns.as_fd(),
        mtu: uplink.mtu,
    };
    let mut requests = vec![
        link::new_veth(&veth),
        link::set_alias(Which::Name(name), alias),
        link::port_flags(Which::Name(name), uplink.isolated),
    ];
    if has_ipv6() {
        requests.push(link::no_ipv6_address(Which::Name(name)));
    }
    let made = host.transact(&requests);
    if let Err(error) = made {
        if error.index > 0 {
            let _ = host.transact(&[link::delete(Which::Name(name))]);
        }
        return Err(error.into());
    }
    let found = link::find(inside, INTERFACE)?;
    found.map(|link| link.index).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Runs inside a new namespace.
fn prepare_inside() -> io::Result<Socket> {
    // Docker's containers on a network without IPv6 have none on their interface; `lo` keeps ::1.
    const IPV6: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    match fs::write(IPV6, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut inside = Socket::open(Family::Route)?;
    inside.transact(&[link::up(Which::Name("lo"))])?;
    Ok(inside)
}

fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Returns a name for a link of ours on the host, as Docker's look.
///
/// # Errors
/// What the random source answers.
pub fn link_name() -> io::Result<String> {
    let number = u32::from_ne_bytes(random()?);
    Ok(format!("veth{:07x}", number & 0x0fff_ffff))
}

/// Returns a hardware address that is local and not a group's.
///
/// # Errors
/// What the random source answers.
pub fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac: [u8; 6] = random()?;
    mac[0] = mac[0] & 0xfe | 0x02;
    Ok(mac)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
