//! The terminal we run on: whether there is one, its size, and raw mode that is always undone.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Mutex;

use nix::sys::termios::{self, SetArg, Termios};

/// Whether stdin is a terminal.
pub fn stdin_is() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether stdout is a terminal.
pub fn stdout_is() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns and rows, if it is a terminal.
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    cleat_sys::tty::size(terminal).ok().filter(|(columns, rows)| *columns > 0 || *rows > 0)
}

/// Height and width of stdout, zeros if it is no terminal, as `ConsoleSize` has them.
pub fn console_size() -> [u32; 2] {
    size(std::io::stdout()).map_or([0, 0], |(columns, rows)| [u32::from(rows), u32::from(columns)])
}

/// What to restore when we are done. One process has one terminal.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Passes every key through as it is. Undone by [`restore`]. Does nothing where stdin is no terminal, or with `NORAW`.
///
/// # Errors
/// The terminal refuses.
pub fn set_raw() -> Result<(), nix::errno::Errno> {
    if !stdin_is() || std::env::var("NORAW").is_ok_and(|value| !value.is_empty()) {
        return Ok(());
    }
    let stdin = std::io::stdin();
    let current = termios::tcgetattr(&stdin)?;
    let mut raw = current.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
    if let Ok(mut saved) = SAVED.lock() {
        saved.get_or_insert(current);
    }
    Ok(())
}

/// Shows nothing of what is typed, until [`restore`].
///
/// # Errors
/// The terminal refuses.
pub fn hide_input() -> Result<(), std::io::Error> {
    let stdin = std::io::stdin();
    let current = termios::tcgetattr(&stdin)?;
    let mut hidden = current.clone();
    hidden.local_flags.remove(termios::LocalFlags::ECHO);
    termios::tcsetattr(&stdin, SetArg::TCSANOW, &hidden)?;
    if let Ok(mut saved) = SAVED.lock() {
        saved.get_or_insert(current);
    }
    Ok(())
}

/// Undoes [`set_raw`] and [`hide_input`]. May be called at any time, by any thread.
pub fn restore() {
    if let Ok(mut saved) = SAVED.lock()
        && let Some(before) = saved.take()
    {
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before);
    }
}
