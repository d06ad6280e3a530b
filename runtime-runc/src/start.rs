//! `start`: lets a created container run its program.
//!
//! **The protocol**, which a shim of the same release may speak instead of running this verb. After `create` the container's
//! init waits in a blocking read of the fifo `ROOT/<id>/exec.fifo`, which it holds open for both directions. To start it:
//!
//! 1. open the fifo for writing, non-blocking: `ENXIO` means that init has died, `ENOENT` that it was started before;
//! 2. unlink the fifo (who unlinks it is the one that starts; a second one gets `ENOENT`);
//! 3. write one byte and close it: `0`, or [`DIE_WITH_PARENT`] if the container is to be killed when its parent dies, which
//!    after `create` is the nearest subreaper, the shim. (The program can take that off again: it is a help, not a guard.)
//!
//! Nothing here blocks, whatever became of init. While the fifo exists the container is `created`, afterwards `running`. Hooks
//! `poststart` are the caller's then (`cleat.poststart_hooks` in state.json tells whether there are any; run this verb if so).
//! What goes wrong later, in a `startContainer` hook or `execve` itself (`exec /x: exec format error`), init prints on the container's
//! stderr and exits with 255, as with runc.

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::state::{Container, FIFO, Status};
use crate::{fault, hook};
use cleat_sys::Errno;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// See the protocol.
pub const DIE_WITH_PARENT: u8 = b'd';

pub const SYNTAX: Syntax = Syntax { values: &[], switches: &[], least: 1, most: 1 };

/// Runs the verb.
///
/// # Errors
/// Where the container is not in the state `created`.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("start", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    let path = container.directory.join(FIFO);
    let fifo = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let mut fifo = match fifo.context(|| "exec fifo".to_owned()) {
        Err(Error::Kernel { errno: Errno::ENXIO, .. }) => return Err(stopped()),
        Err(Error::Kernel { errno: Errno::ENOENT, .. })
            if container.status()? == Status::Stopped =>
        {
            return Err(stopped());
        }
        Err(Error::Kernel { errno: Errno::ENOENT, .. }) => {
            return Err(Error::State("cannot start an already running container".to_owned()));
        }
        other => other?,
    };
    fault::point("start.before-byte");
    std::fs::remove_file(&path).context(|| "remove exec fifo".to_owned())?;
    fifo.write_all(b"0").context(|| "write exec fifo".to_owned())?;
    drop(fifo);
    fault::point("start.after-byte");
    if container.state.cleat.poststart_hooks {
        let spec = Spec::load(&container.state.cleat.bundle)?;
        let state = container.document("running", container.state.init_process_pid);
        if let Err(error) = hook::run("poststart", &spec.hooks.poststart, &state, &[]) {
            if let Some(init) = container.open_init()? {
                init.kill().context(|| "kill init".to_owned())?;
            }
            return Err(error);
        }
    }
    Ok(())
}

fn stopped() -> Error {
    Error::State("cannot start a container that has stopped".to_owned())
}
