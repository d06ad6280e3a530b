//! Waiting for a process as its stand-in: signals go on to it, its terminal is this one, its exit status is ours.

use crate::error::{Context, Error, Result};
use cleat_sys::pidfd::PidFd;
use cleat_sys::{Errno, fdpass, pty, tty};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

/// Signals that arrive from now on are kept for [`Signals::forward`]. To be made after the fork: the child has none blocked.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn block() -> Result<Self> {
        let what = || "block signals".to_owned();
        let all = SigSet::all();
        all.thread_swap_mask(SigmaskHow::SIG_SETMASK).context(what)?;
        SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .context(what)
    }

    fn forward(&self, to: &PidFd, terminal: Option<&OwnedFd>) {
        while let Ok(Some(info)) = self.0.read_signal() {
            match (Signal::try_from(info.ssi_signo as i32), terminal) {
                (Ok(Signal::SIGCHLD | Signal::SIGURG), _) => {}
                (Ok(Signal::SIGWINCH), Some(terminal)) => copy_size(terminal),
                _ => drop(to.send_signal(info.ssi_signo as i32)),
            }
        }
    }
}

/// Waits for the end of `pid`; returns its exit code, or 128 and the signal that ended it.
///
/// # Errors
/// [`Error::Kernel`].
pub fn wait(pid: Pid, pidfd: &PidFd, signals: &Signals, terminal: Option<OwnedFd>) -> Result<i32> {
    let _raw = terminal.as_ref().map(|_| RawMode::enter());
    if let Some(terminal) = &terminal {
        copy_size(terminal);
    }
    let mut proxy = Proxy { terminal, reading: true };
    loop {
        let stdin = stdin();
        let mut fds = vec![
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(terminal) = &proxy.terminal {
            fds.push(PollFd::new(terminal.as_fd(), PollFlags::POLLIN));
            if proxy.reading {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.context(|| "poll".to_owned())?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        if ready[1] {
            signals.forward(pidfd, proxy.terminal.as_ref());
        }
        if ready.get(3) == Some(&true) {
            proxy.forward_input();
        }
        let more = ready.get(2) == Some(&true) && proxy.forward_output();
        if ready[0] && !more {
            return code(waitpid(pid, None).context(|| "wait".to_owned())?);
        }
    }
}

/// Returns the exit code for a wait status.
///
/// # Errors
/// For one that is no end.
pub fn code(status: WaitStatus) -> Result<i32> {
    match status {
        WaitStatus::Exited(_, code) => Ok(code),
        WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
        other => Err(Error::State(format!("unexpected wait status {other:?}"))),
    }
}

/// Takes the master that the child sent.
///
/// # Errors
/// Where none came.
pub fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd> {
    let (_, mut fds) =
        fdpass::recv(socket, &mut [0; 64]).context(|| "receive the terminal".to_owned())?;
    fds.pop().ok_or_else(|| Error::State("the terminal did not come".to_owned()))
}

fn copy_size(terminal: &OwnedFd) {
    if let Ok((rows, columns)) = pty::size(stdin()) {
        let _ = tty::set_size(terminal, columns, rows);
    }
}

struct Proxy {
    terminal: Option<OwnedFd>,
    reading: bool,
}

impl Proxy {
    fn forward_input(&mut self) {
        let mut buffer = [0; 4096];
        match (read(stdin(), &mut buffer), &self.terminal) {
            (Ok(count @ 1..), Some(terminal)) => write_all(terminal, &buffer[..count]),
            _ => self.reading = false,
        }
    }

    /// Returns whether there may be more.
    fn forward_output(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Some(terminal) = &self.terminal else { return false };
        match read(terminal, &mut buffer) {
            Ok(count @ 1..) => write_all(stdout(), &buffer[..count]),
            // EIO: the other side has been closed by the last who had it open.
            _ => self.terminal = None,
        }
        self.terminal.is_some()
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(&to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Raw mode of stdin while it lives.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let old = tcgetattr(stdin()).ok();
        if let Some(old) = &old {
            let mut raw = old.clone();
            cfmakeraw(&mut raw);
            raw.output_flags.insert(OutputFlags::OPOST);
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, &raw);
        }
        Self(old)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, old);
        }
    }
}
