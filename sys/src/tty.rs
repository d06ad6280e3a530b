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
