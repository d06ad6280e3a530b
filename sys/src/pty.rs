//! Pseudo-terminals, `pts(4)`, `ioctl_tty(2)`.

use crate::{Errno, Result, owned_fd};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Opens a new pseudo-terminal of the host: the master, and the other side for a program.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOSPC` at a limit.
pub fn open() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open(Path::new("/dev/ptmx"), flags, Mode::empty())?;
    let slave = peer(&master)?;
    Ok((master, slave))
}

/// Unlocks the master's other side and opens it, whatever lies at its path.
///
/// # Errors
/// `ENOTTY` where `master` is none. Source: `TIOCGPTPEER(2const)`.
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    let master = master.as_fd().as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: `unlock` lives across the call, which reads it.
    Errno::result(unsafe { libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes integers.
    let raw = unsafe { libc::ioctl(master, libc::TIOCGPTPEER, flags) };
    owned_fd(raw.into())
}

/// Returns the number of the pseudo-terminal: its other side is `/dev/pts/<n>`.
///
/// # Errors
/// `ENOTTY` where `master` is none. Source: `TIOCGPTN(2const)`.
pub fn number(master: impl AsFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: `number` lives across the call, which writes it.
    let answer =
        unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    Errno::result(answer).map(|_| number)
}

/// Makes `terminal` the controlling one of the calling session leader.
///
/// # Errors
/// `EPERM` where the caller leads no session or has a terminal. Source: `TIOCSCTTY(2const)`.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: takes integers.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// Returns rows and columns.
///
/// # Errors
/// `ENOTTY` where `terminal` is none. Source: `TIOCGWINSZ(2const)`.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` lives across the call, which writes it.
    let answer =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(answer).map(|_| (size.ws_row, size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_about_the_size() {
        let (master, slave) = open().unwrap();
        crate::tty::set_size(&master, 81, 25).unwrap();
        assert_eq!(size(&slave), Ok((25, 81)));
        let path = format!("/dev/pts/{}", number(&master).unwrap());
        assert!(Path::new(&path).exists());
    }
}
