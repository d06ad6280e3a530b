//! `create`: makes everything of a container but its program's start; `run` goes through the same.
//!
//! `launch.rs` makes the container in steps, each with its undo; `birth.rs` clones its first process; `follow.rs` goes along with
//! that until it is set up; `source.rs` opens for it what it may not.

mod birth;
mod follow;
mod launch;
mod source;

pub use launch::{Draft, Undo, hand_over_pidfd, labels, launch, make_cgroup, make_directory};

use crate::cli::{self, Arguments, Syntax};
use crate::console::Taker;
use crate::error::{Context, Error, Result};
use crate::rootfs::layer;
use crate::spec::{Process, Spec};
use crate::{Global, selfexe};
use std::path::{Path, PathBuf};

pub const SYNTAX: Syntax = Syntax {
    values: &[
        "bundle,b",
        "console-socket",
        "pidfd-socket",
        "pid-file",
        "preserve-fds",
        "rootfs-mounts",
    ],
    switches: &["no-pivot", "no-new-keyring"],
    least: 1,
    most: 1,
};

/// What the command line says about the new container.
#[derive(Debug)]
pub struct Request {
    pub id: String,
    pub bundle: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve: u32,
    pub layers: Option<Vec<layer::Layer>>,
    pub new_keyring: bool,
    /// Leave the host's root below instead of letting go of it: a ramdisk cannot be pivoted away from.
    pub no_pivot: bool,
    /// The socket that gets a handle to init.
    pub pidfd_socket: Option<PathBuf>,
    /// Wait in the fifo for `start`; without, for [`Launched::release`].
    pub fifo: bool,
    /// Where the terminal's master goes if there is no socket for it.
    pub own_console: Option<Taker>,
    /// `run --keep`: what is known of a container stays, even if its program cannot be started.
    pub keep: bool,
}

impl Request {
    /// Returns a request without any of the flags.
    pub fn bare(id: &str, bundle: &Path) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            console_socket: None,
            pid_file: None,
            preserve: 0,
            layers: None,
            new_keyring: true,
            no_pivot: false,
            pidfd_socket: None,
            fifo: true,
            own_console: None,
            keep: false,
        }
    }

    /// Reads the flags that `create` and `run` share.
    ///
    /// # Errors
    /// [`Error`] for values that make no sense.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let bundle = arguments.path("bundle").unwrap_or_else(|| PathBuf::from("."));
        let bundle = bundle.canonicalize().context(|| format!("chdir {}", bundle.display()))?;
        let absolute = |name: &str| {
            let path = arguments.path(name).map(std::path::absolute).transpose();
            path.context(|| format!("--{name}"))
        };
        Ok(Self {
            id: cli::check_id(&arguments.rest[0])?.to_owned(),
            bundle,
            console_socket: absolute("console-socket")?,
            pid_file: absolute("pid-file")?,
            preserve: arguments.number("preserve-fds")?.unwrap_or(0),
            layers: arguments.value("rootfs-mounts").map(layer::parse).transpose()?,
            new_keyring: !arguments.has("no-new-keyring"),
            no_pivot: arguments.has("no-pivot"),
            pidfd_socket: absolute("pidfd-socket")?,
            fifo: true,
            own_console: None,
            keep: false,
        })
    }
}

/// Runs the verb.
///
/// # Errors
/// [`Error`]; nothing of the container is left then.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    selfexe::protect(&global.root)?;
    let request = Request::new(&Arguments::parse_verb("create", words, &SYNTAX)?)?;
    let spec = Spec::load(&request.bundle)?;
    check_terminal(&spec, &request, true)?;
    launch(global, request, &spec).map(drop)
}

/// A terminal needs somebody who takes its master, and the other way round.
///
/// # Errors
/// [`Error::Invalid`] in runc's words.
pub fn check_terminal(spec: &Spec, request: &Request, detach: bool) -> Result<()> {
    let terminal = spec.process()?.terminal;
    let refuse = |text: &str| Err(Error::Invalid(text.to_owned()));
    match (terminal, request.console_socket.is_some()) {
        (true, false) if detach => {
            refuse("cannot allocate tty if runc will detach without setting console socket")
        }
        (false, true) => {
            refuse("cannot use console socket if runc will not detach or allocate tty")
        }
        _ => Ok(()),
    }
}

/// Passes on what a service manager passed to us, `sd_listen_fds(3)`.
///
/// # Errors
/// Where a descriptor that is to be preserved is not open.
pub fn with_listen_fds(process: &Process, preserve: &mut u32) -> Result<Process> {
    let mut process = process.clone();
    let listen =
        std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if listen > 0 {
        process.env.push(format!("LISTEN_FDS={listen}"));
        process.env.push("LISTEN_PID=1".to_owned());
        *preserve = preserve.saturating_add(listen);
    }
    for number in 3..preserve.saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let text = format!("unable to find preserved-fd {} (fd {number})", number - 3);
            return Err(Error::Invalid(text));
        }
    }
    Ok(process)
}
