//! Binding the sockets that `-H` names.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname},
    unistd::{Gid, Group, chown},
};
use tokio::net::{TcpListener, UnixListener};

use super::server::Listener;
use crate::config::Host;

/// The first descriptor that a service manager passes: `sd_listen_fds(3)`.
const LISTEN_FDS_START: i32 = 3;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `unix://…`
    #[error("cannot listen on {path}: {source}")]
    Unix {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("cannot listen on {0}: another daemon listens there")]
    InUse(PathBuf),
    /// `tcp://…`
    #[error("cannot listen on tcp://{address}: {source}")]
    Tcp {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The files for it.
    #[error(transparent)]
    Tls(#[from] super::tls::Error),
    /// `fd://` without a service manager.
    #[error(
        "no sockets found via socket activation: make sure the service manager is configured to pass them (LISTEN_FDS)"
    )]
    NoneInherited,
    /// A descriptor that is no listening socket.
    #[error("the inherited descriptor {number} is not usable: {source}")]
    Inherited {
        /// Which.
        number: i32,
        /// Why.
        source: io::Error,
    },
}

/// Binds everything. Unix sockets get mode 0660 and `group`, where that exists.
///
/// # Errors
/// [`Error`]: all or nothing.
pub async fn bind(hosts: &[Host], group: &str) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for host in hosts {
        match host {
            Host::Unix(path) => listeners.push(bind_unix(path, group)?),
            Host::Tcp(address, tls) => {
                let tls = tls.as_ref();
                if tls.is_none_or(|tls| !tls.verify) {
                    tracing::warn!(
                        address = %address,
                        "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network."
                    );
                }
                let acceptor = tls.map(super::tls::acceptor).transpose()?;
                let bound = TcpListener::bind(address.as_str()).await;
                let listener =
                    bound.map_err(|source| Error::Tcp { address: address.clone(), source })?;
                listeners.push(Listener::Tcp(listener, acceptor));
            }
            Host::Inherited => listeners.extend(inherited()?),
        }
    }
    Ok(listeners)
}

fn bind_unix(path: &Path, group: &str) -> Result<Listener, Error> {
    let failed = |source| Error::Unix { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    remove_stale(path)?;
    let listener = {
        // Nobody may connect between bind and chmod.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        nix::sys::stat::umask(before);
        bound.map_err(failed)?
    };
    if let Some(gid) = group_id(group) {
        chown(path, None, Some(gid)).map_err(|errno| failed(errno.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(Listener::Unix(listener))
}

/// A socket file that nobody listens on is in the way of `bind`.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(|source| Error::Unix { path: path.to_owned(), source })
}

/// A name or a number. Docker only warns if there is no such group.
fn group_id(group: &str) -> Option<Gid> {
    if group.is_empty() {
        return None;
    }
    if let Ok(number) = group.parse() {
        return Some(Gid::from_raw(number));
    }
    let found = Group::from_name(group).ok().flatten().map(|group| group.gid);
    if found.is_none() {
        tracing::warn!(group, "there is no such group: the socket is for root alone");
    }
    found
}

/// Takes what a service manager passed: `sd_listen_fds(3)`.
fn inherited() -> Result<Vec<Listener>, Error> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| pid.unsigned_abs() == std::process::id());
    let count =
        number("LISTEN_FDS").filter(|count| ours && *count > 0).ok_or(Error::NoneInherited)?;
    (LISTEN_FDS_START..LISTEN_FDS_START + count)
        .map(|number| {
            let taken = cleat_sys::inherited::take(number).map_err(io::Error::from);
            taken.and_then(listener).map_err(|source| Error::Inherited { number, source })
        })
        .collect()
}

fn listener(fd: OwnedFd) -> io::Result<Listener> {
    let address: SockaddrStorage = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))?;
    if address.family() == Some(AddressFamily::Unix) {
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true)?;
        return Ok(Listener::Unix(UnixListener::from_std(listener)?));
    }
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(TcpListener::from_std(listener)?, None))
}
