//! Where a process stands, and what may be done with it then. Touches nothing.

use cleat_proto::containerd::v1::types::Status;

use crate::{error::Error, reaper::Exit};

/// Where a process stands: the container's first one, or an exec.
///
/// ```text
///  Added ──(exec only)──────┐ start            exit           all its output read
///  Creating ─▶ Created ─────┴─▶ Starting ─▶ Running ─▶ Ending ─┬─▶ Stopped ─ delete ─▶ (gone)
///                  │               ▲         │  ▲              │
///                  │               │   pause ▼  │ resume       │ the policy says so
///                  │               │        Paused             ▼
///                  │               └──────────────────────  Delayed
///                  └── killed before it was started ─▶ Ending
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// An exec that nobody has started.
    Added,
    /// The runtime is at work.
    Creating,
    /// The first process waits to be let go.
    Created {
        pid: u32,
    },
    /// It is being let go; it may have ended before the runtime tells us so.
    Starting {
        pid: Option<u32>,
        ended: Option<Exit>,
    },
    Running {
        pid: u32,
    },
    Paused {
        pid: u32,
    },
    /// It has ended; its last words are being read.
    Ending(Exit),
    /// It has ended and will be started again.
    Delayed(Exit),
    /// It has ended for good.
    Stopped(Exit),
}

impl State {
    /// Returns the pid, where there is a process.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Created { pid } | Self::Running { pid } | Self::Paused { pid } => Some(*pid),
            Self::Starting { pid, .. } => *pid,
            Self::Ending(exit) => Some(exit.pid),
            Self::Added | Self::Creating | Self::Delayed(_) | Self::Stopped(_) => None,
        }
    }

    /// Returns the word of the Task API. Between two runs that is "stopped", but without a time of exit.
    pub fn status(&self) -> Status {
        match self {
            Self::Added | Self::Creating | Self::Created { .. } => Status::Created,
            Self::Starting { .. } | Self::Running { .. } | Self::Ending(_) => Status::Running,
            Self::Paused { .. } => Status::Paused,
            Self::Delayed(_) | Self::Stopped(_) => Status::Stopped,
        }
    }

    /// Returns how it ended, if it did, for now or for good.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Delayed(exit) | Self::Stopped(exit) => Some(*exit),
            _ => None,
        }
    }

    /// Refuses what makes no sense now.
    pub fn refuse(&self, action: &'static str) -> Error {
        Error::WrongState { action, state: self.word() }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Added | Self::Creating | Self::Created { .. } => "created",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Delayed(_) => "restarting",
            Self::Ending(_) | Self::Stopped(_) => "stopped",
        }
    }

    /// Returns the pid that a signal goes to.
    ///
    /// # Errors
    /// There is no process to signal.
    pub fn signal_target(&self) -> Result<u32, Error> {
        match self {
            Self::Created { pid } | Self::Running { pid } | Self::Paused { pid } => Ok(*pid),
            Self::Starting { pid: Some(pid), ended: None } => Ok(*pid),
            Self::Starting { ended: Some(_), .. } | Self::Ending(_) | Self::Stopped(_) => {
                Err(Error::Finished)
            }
            Self::Added | Self::Creating | Self::Starting { .. } | Self::Delayed(_) => {
                Err(self.refuse("kill"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const EXIT: Exit = Exit { pid: 7, status: 0, at: SystemTime::UNIX_EPOCH };

    #[track_caller]
    fn check(state: State, status: Status, pid: Option<u32>, killable: bool) {
        assert_eq!((state.status(), state.pid()), (status, pid), "{state:?}");
        assert_eq!(state.signal_target().is_ok(), killable, "{state:?}");
    }

    #[test]
    fn a_pid_and_a_signal_need_a_process() {
        check(State::Added, Status::Created, None, false);
        check(State::Created { pid: 7 }, Status::Created, Some(7), true);
        check(State::Starting { pid: None, ended: None }, Status::Running, None, false);
        check(State::Starting { pid: Some(7), ended: Some(EXIT) }, Status::Running, Some(7), false);
        check(State::Running { pid: 7 }, Status::Running, Some(7), true);
        check(State::Paused { pid: 7 }, Status::Paused, Some(7), true);
        check(State::Ending(EXIT), Status::Running, Some(7), false);
        check(State::Delayed(EXIT), Status::Stopped, None, false);
        check(State::Stopped(EXIT), Status::Stopped, None, false);
    }
}
