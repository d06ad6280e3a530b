//! What `nix` lacks for terminals: their size (`ioctl_tty(2)`).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Sets the size that programs on the terminal see, and sends them `SIGWINCH`.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn set_size(terminal: impl AsFd, columns: u16, rows: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize` through the pointer, which lives until after the call.
    let result =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}

/// Returns the columns and rows of `terminal`.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` through the pointer, which lives until after the call.
    let result =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result).map(|_| (size.ws_col, size.ws_row))
}
