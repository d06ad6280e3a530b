//! `delete`: removes what is left of a container.

use crate::cli::{Arguments, Syntax, check_id};
use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::state::{self, Container, Status};
use crate::{Global, hook};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

pub const SYNTAX: Syntax = Syntax { values: &[], switches: &["force,f"], least: 1, most: 1 };

/// How long a killed init may take to go, in milliseconds; as runc.
const PATIENCE_MILLIS: u16 = 10_000;

/// Runs the verb.
///
/// # Errors
/// Where the container is not stopped, and `--force` was not given.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("delete", words, &SYNTAX)?;
    let (id, force) = (&arguments.rest[0], arguments.has("force"));
    let container = match Container::load(&global.root, id) {
        Err(Error::NotFound) => {
            // A create that was killed leaves a directory without a state.
            let directory = global.root.join(check_id(id)?);
            let found = state::remove_directory(&directory).is_ok();
            return if force || found { Ok(()) } else { Err(Error::NotFound) };
        }
        // A state that cannot be read must not stay for ever.
        Err(Error::Invalid(_)) if force => {
            let directory = global.root.join(check_id(id)?);
            return state::remove_directory(&directory)
                .context(|| format!("remove {}", directory.display()));
        }
        other => other?,
    };
    match container.status()? {
        Status::Stopped => destroy(&container),
        Status::Created => kill_and_destroy(&container),
        _ if force => kill_and_destroy(&container),
        status => Err(Error::State(format!(
            "cannot delete container {id} that is not stopped: {}",
            status.word()
        ))),
    }
}

/// Ends the container, running or not, and removes everything.
///
/// # Errors
/// Where it does not end, or its cgroup cannot be removed.
pub fn kill_and_destroy(container: &Container) -> Result<()> {
    if let Some(init) = container.open_init()? {
        init.kill().context(|| "kill init".to_owned())?;
        if let Some(cgroup) = container.cgroup() {
            let cgroup = cgroup?;
            if cgroup.is_frozen()? {
                cgroup.thaw()?;
            }
        }
        let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(PATIENCE_MILLIS)).context(|| "poll".to_owned())? == 0 {
            return Err(Error::State("container init still running".to_owned()));
        }
    }
    destroy(container)
}

/// Removes everything, killing what is left in the cgroup; with a shared PID namespace the end of init ends nothing else.
///
/// # Errors
/// Where the cgroup cannot be removed.
pub fn destroy(container: &Container) -> Result<()> {
    if let Some(cgroup) = container.cgroup() {
        let cgroup = cgroup?;
        if container.state.cleat.namespaces & libc::CLONE_NEWPID == 0 {
            cgroup.kill()?;
        }
        if cgroup.delete().is_err() {
            cgroup.kill()?;
            cgroup.delete().map_err(|error| {
                Error::State(format!("unable to remove container's cgroup: {error}"))
            })?;
        }
    }
    let directory = &container.directory;
    state::remove_directory(directory)
        .context(|| format!("unable to remove container root dir {}", directory.display()))?;
    if container.state.cleat.poststop_hooks {
        let state = container.document("stopped", 0);
        match Spec::load(&container.state.cleat.bundle) {
            Ok(spec) => hook::run_all("poststop", &spec.hooks.poststop, &state),
            Err(error) => crate::log::warn(&format!("poststop hooks: {error}")),
        }
    }
    Ok(())
}
