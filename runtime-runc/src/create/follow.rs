//! Going along with a container's first process until it is set up.

use super::launch::died_at;
use super::source;
use crate::cgroup::Cgroup;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::state::Container;
use crate::{agent, fault, hook};
use cleat_sys::pidfd::PidFd;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

/// Who goes along, and with what.
pub(super) struct Follower<'a> {
    pub channel: &'a Channel,
    pub spec: &'a Spec,
    pub container: &'a Container,
    pub init: Option<&'a PidFd>,
    pub cgroup: Option<&'a Cgroup>,
    /// Init waits for our word, and not in the fifo.
    pub released_by_us: bool,
}

impl Follower<'_> {
    /// Answers init until it is set up.
    pub fn follow(&self) -> Result<()> {
        let mut ready = false;
        loop {
            match self.channel.receive().context(|| "sync with init".to_owned())? {
                Some(Message::Source(index)) => self.open_source(index)?,
                Some(Message::Clocks) => self.set_clocks()?,
                Some(Message::Hooks) => self.run_hooks()?,
                Some(Message::Ready) => {
                    self.set_limits()?;
                    fault::point("create.after-ready");
                    ready = true;
                }
                Some(Message::Listener(listener)) => {
                    agent::hand_over(&self.container.state, listener.as_fd(), None)?
                }
                Some(Message::Failed(text)) => return Err(Error::Init(text)),
                Some(Message::Settled) if self.released_by_us => return Ok(()),
                None if ready && !self.released_by_us => return Ok(()),
                _ => return Err(Error::State(String::new())),
            }
        }
    }

    fn open_source(&self, index: u32) -> Result<()> {
        let gone = || Error::State(String::new());
        let mount = self.spec.mounts.get(index as usize).ok_or_else(gone)?;
        let state = &self.container.state;
        let init = (state.init_process_pid, self.init.ok_or_else(gone)?);
        source::serve(self.channel, mount, &state.cleat.bundle, init)
    }

    fn set_clocks(&self) -> Result<()> {
        let offsets = self.spec.linux.time_offsets.iter();
        let text: String =
            offsets.map(|(clock, at)| format!("{clock} {} {}\n", at.secs, at.nanosecs)).collect();
        let path = format!("/proc/{}/timens_offsets", self.container.state.init_process_pid);
        std::fs::write(path, text).context(|| "failed to set time offsets".to_owned())?;
        self.channel.send(&Message::Go).context(died_at)
    }

    fn run_hooks(&self) -> Result<()> {
        let hooks = &self.spec.hooks;
        let state = self.container.document("creating", self.container.state.init_process_pid);
        hook::run("prestart", &hooks.prestart, &state, &[])?;
        hook::run("createRuntime", &hooks.create_runtime, &state, &[])?;
        self.channel.send(&Message::Go).context(died_at)
    }

    fn set_limits(&self) -> Result<()> {
        match (self.cgroup, &self.spec.linux.resources) {
            (Some(cgroup), Some(resources)) => Ok(cgroup.apply(resources)?),
            _ => Ok(()),
        }
    }
}

/// Words a failure of init: what it said, or what became of it.
pub(super) fn explain(error: Error, init: Pid) -> Error {
    match error {
        Error::Init(text) => Error::Init(format!(
            "unable to start container process: error during container init: {text}"
        )),
        Error::State(_) => {
            let text = match waitpid(init, None) {
                Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => {
                    "container init was OOM-killed (memory limit too low?)"
                }
                _ => "error during container init: it ended without a word",
            };
            Error::Init(format!("unable to start container process: {text}"))
        }
        other => Error::Init(format!("unable to start container process: {other}")),
    }
}
