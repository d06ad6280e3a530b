//! A container's terminal: a pseudo-terminal of the container's own devpts, whose master goes to whoever asked for it.

use crate::error::{Context, Error, Result};
use crate::rootfs::{self, Kind};
use crate::spec::ConsoleSize;
use cleat_sys::openat2::{self, IN_ROOT, NO_SYMLINKS};
use cleat_sys::{Errno, fdpass, mountapi, pty, tty};
use nix::sys::stat::{fstat, makedev};
use nix::sys::statfs::FsType;
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// `DEVPTS_SUPER_MAGIC`, `linux/magic.h`.
const DEVPTS: FsType = FsType(0x1cd1);

/// Who takes the terminal's master.
#[derive(Debug)]
pub struct Taker {
    socket: OwnedFd,
    /// It is the worker itself, which copies it to its own output.
    is_worker: bool,
}

impl Taker {
    /// Connects to the socket of `--console-socket`.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn connect(path: &Path) -> Result<Self> {
        let what = || format!("failed to dial {}", path.display());
        let socket = UnixStream::connect(path).map(OwnedFd::from).context(what)?;
        Ok(Self { socket, is_worker: false })
    }

    /// Sends a terminal's master.
    ///
    /// # Errors
    /// Where nobody takes it any more.
    pub fn hand_over(&self, master: &OwnedFd) -> Result<()> {
        fdpass::send(&self.socket, b"/dev/ptmx", &[std::os::fd::AsRawFd::as_raw_fd(master)])
            .context(|| "send the terminal to the console socket".to_owned())
            .map(drop)
    }

    /// Returns the worker as the taker, and its end of the socket.
    ///
    /// # Errors
    /// At a limit of descriptors.
    pub fn worker() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context(|| "socketpair".to_owned())?;
        Ok((Self { socket: theirs.into(), is_worker: true }, ours.into()))
    }
}

/// Opens a terminal below `root`, sends its master to `taker`, and makes it this session's and the standard descriptors.
/// `mount`: put it at `/dev/console` as well, as a container's init does.
///
/// # Errors
/// [`Error`]; also where what lies at the place of the container's ptmx is not one (CVE-2025-52565).
pub fn open(root: impl AsFd, taker: &Taker, size: Option<ConsoleSize>, mount: bool) -> Result<()> {
    let root = root.as_fd();
    let master = open_master(root)?;
    let slave = pty::peer(&master).context(|| "open the terminal's other side".to_owned())?;
    if let Some(size) = size.filter(|size| size.width > 0 || size.height > 0) {
        tty::set_size(&master, size.width, size.height)
            .context(|| "set the terminal's size".to_owned())?;
    }
    if taker.is_worker {
        // The terminal that it is copied to adds the carriage returns; a file or a pipe gets none.
        let what = || "set the terminal's modes".to_owned();
        let mut modes = tcgetattr(&slave).context(what)?;
        modes.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&slave, SetArg::TCSANOW, &modes).context(what)?;
    }
    if mount {
        put_at_console(root, &slave)?;
    }
    taker.hand_over(&master)?;
    drop(master);
    pty::set_controlling(&slave).context(|| "ioctl(setctty)".to_owned())?;
    let what = || "dup the terminal".to_owned();
    dup2_stdin(&slave).context(what)?;
    dup2_stdout(&slave).context(what)?;
    dup2_stderr(&slave).context(what)
}

fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let what = || "open /dev/pts/ptmx".to_owned();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let path = Path::new("/dev/pts/ptmx");
    // First as a place, so that nothing is opened for real before it is known for what it is.
    let place =
        openat2::openat2(root, path, libc::O_PATH, 0, IN_ROOT | NO_SYMLINKS).context(what)?;
    let stat = fstat(&place).context(what)?;
    if !rootfs::lies_on(&place, DEVPTS).context(what)? || stat.st_rdev != makedev(5, 2) {
        return Err(Error::Invalid("/dev/pts/ptmx is not the multiplexer of a devpts".to_owned()));
    }
    let master = openat2::openat2(root, path, flags & !libc::O_NONBLOCK, 0, IN_ROOT | NO_SYMLINKS)
        .context(what)?;
    let opened = fstat(&master).context(what)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Error::Invalid("/dev/pts/ptmx was replaced".to_owned()));
    }
    Ok(master)
}

fn put_at_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> Result<()> {
    let what = || "mount the terminal at /dev/console".to_owned();
    let (dev, _) = rootfs::open_or_make(root, Path::new("/dev"), Kind::Directory).context(what)?;
    let target = match openat2::openat2(
        &dev,
        Path::new("console"),
        libc::O_PATH,
        0,
        openat2::BENEATH | NO_SYMLINKS,
    ) {
        Err(Errno::ENOENT) => {
            rootfs::open_or_make(&dev, Path::new("console"), Kind::File).context(what)?.0
        }
        found => found.context(what)?,
    };
    let cover = mountapi::clone_tree_at(slave, false).context(what)?;
    mountapi::attach(cover, target).context(what)
}
