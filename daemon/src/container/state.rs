//! Where a container stands, and what a command means there.

/// Where a container stands, as far as the daemon knows.
///
/// ```text
///              start              exit
///  Created ───────────▶ Running ────────▶ Exited ── remove ─▶ Removing ─▶ (gone)
///                       │  ▲  ▲ │           │                    │
///                 pause ▼  │  │ │ exit      │                    ▼ a step failed
///                      Paused │ ▼           │                   Dead ── remove ─▶ Removing
///                             Restarting    │
///                             └──── start ──┘
/// ```
/// When it started or ended, and how, is in [`super::Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started.
    Created,
    /// The first process runs.
    Running {
        /// Its pid in the host's namespace.
        pid: u32,
    },
    /// The freezer holds it.
    Paused {
        /// Its pid in the host's namespace.
        pid: u32,
    },
    /// It ended, and the shim will start it again.
    Restarting,
    /// It ended for good.
    Exited,
    /// Being removed.
    Removing,
    /// Its removal failed at some step; it can be tried again.
    Dead,
}

/// What somebody wants of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the first process.
    Start,
    /// End it by a signal, then by force.
    Stop,
    /// Send a signal.
    Kill,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Run another process.
    Exec,
    /// Join the streams.
    Attach,
    /// Change the terminal's size.
    Resize,
    /// Look at the processes.
    Inspect,
    /// Take it away.
    Remove {
        /// Even if it runs.
        force: bool,
    },
}

/// What to do about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a task.
    StartTask,
    /// Ask the shim to stop the task.
    StopTask,
    /// Send the signal to the first process.
    KillTask,
    /// Freeze the task.
    PauseTask,
    /// Thaw the task.
    ResumeTask,
    /// Ask the shim, which has a process.
    AskTask,
    /// Keep the client until the container is started.
    WaitForStart,
    /// Remove the record and what belongs to it.
    DeleteRecord,
    /// First stop the task, then remove.
    StopAndDelete,
}

/// Why a command makes no sense now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is so already: no error for who asked.
    AlreadySo,
    /// There is no process.
    NotRunning,
    /// It is paused, and must be unpaused first.
    Paused,
    /// It is not paused.
    NotPaused,
    /// It is paused already.
    AlreadyPaused,
    /// It is between two runs.
    Restarting,
    /// It runs, and removal was not forced.
    Running,
    /// It is going away.
    BeingRemoved,
}

impl State {
    /// Answers whether `command` makes sense now, and with which action. Touches nothing.
    ///
    /// # Errors
    /// [`Refusal`], for the caller to put into Docker's words.
    pub fn decide(self, command: Command) -> Result<Action, Refusal> {
        use {Action as A, Command as C, Refusal as R, State as S};
        match (self, command) {
            (S::Created | S::Exited, C::Start) => Ok(A::StartTask),
            (S::Running { .. } | S::Restarting, C::Start) => Err(R::AlreadySo),
            (S::Paused { .. }, C::Start) => Err(R::Paused),

            (S::Running { .. } | S::Paused { .. } | S::Restarting, C::Stop) => Ok(A::StopTask),
            (S::Created | S::Exited | S::Removing | S::Dead, C::Stop) => Err(R::AlreadySo),

            (S::Running { .. } | S::Paused { .. } | S::Restarting, C::Kill) => Ok(A::KillTask),
            (S::Created | S::Exited | S::Removing | S::Dead, C::Kill) => Err(R::NotRunning),

            (S::Running { .. }, C::Pause) => Ok(A::PauseTask),
            (S::Paused { .. }, C::Pause) => Err(R::AlreadyPaused),
            (S::Paused { .. }, C::Resume) => Ok(A::ResumeTask),
            (S::Running { .. } | S::Restarting, C::Resume) => Err(R::NotPaused),

            (S::Running { .. }, C::Exec | C::Resize | C::Inspect) => Ok(A::AskTask),
            (S::Paused { .. }, C::Resize | C::Inspect) => Ok(A::AskTask),
            (S::Paused { .. }, C::Exec | C::Attach) => Err(R::Paused),
            (S::Running { .. }, C::Attach) => Ok(A::AskTask),
            (S::Created | S::Exited, C::Attach) => Ok(A::WaitForStart),

            (S::Restarting, C::Pause | C::Exec | C::Attach | C::Resize | C::Inspect) => {
                Err(R::Restarting)
            }
            (
                S::Created | S::Exited | S::Removing | S::Dead,
                C::Pause | C::Exec | C::Resize | C::Inspect,
            ) => Err(R::NotRunning),
            (S::Created | S::Exited | S::Removing | S::Dead, C::Resume) => Err(R::NotPaused),
            (S::Removing | S::Dead, C::Start | C::Attach) => Err(R::BeingRemoved),

            (S::Created | S::Exited | S::Dead, C::Remove { .. }) => Ok(A::DeleteRecord),
            (S::Removing, C::Remove { .. }) => Err(R::BeingRemoved),
            (S::Running { .. } | S::Paused { .. } | S::Restarting, C::Remove { force: true }) => {
                Ok(A::StopAndDelete)
            }
            (S::Paused { .. }, C::Remove { force: false }) => Err(R::Paused),
            (S::Running { .. } | S::Restarting, C::Remove { force: false }) => Err(R::Running),
        }
    }

    /// Returns `State.Status` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Returns the first process's pid, 0 where there is none.
    pub fn pid(self) -> u32 {
        match self {
            Self::Running { pid } | Self::Paused { pid } => pid,
            Self::Created | Self::Restarting | Self::Exited | Self::Removing | Self::Dead => 0,
        }
    }

    /// Whether `State.Running` of the API is true: it has a task, which may be paused or between two runs.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. } | Self::Restarting)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action as A, Command as C, Refusal as R, State as S, *};

    const RUNNING: State = S::Running { pid: 7 };
    const PAUSED: State = S::Paused { pid: 7 };

    #[track_caller]
    fn check(state: State, command: Command, expected: Result<Action, Refusal>) {
        assert_eq!(state.decide(command), expected, "{state:?} on {command:?}");
    }

    #[test]
    fn a_container_is_started_once() {
        check(S::Created, C::Start, Ok(A::StartTask));
        check(S::Exited, C::Start, Ok(A::StartTask));
        check(RUNNING, C::Start, Err(R::AlreadySo));
        check(S::Restarting, C::Start, Err(R::AlreadySo));
        check(PAUSED, C::Start, Err(R::Paused));
        check(S::Removing, C::Start, Err(R::BeingRemoved));
        check(S::Dead, C::Start, Err(R::BeingRemoved));
    }

    #[test]
    fn a_paused_or_restarting_container_can_be_stopped_and_killed() {
        for state in [RUNNING, PAUSED, S::Restarting] {
            check(state, C::Stop, Ok(A::StopTask));
            check(state, C::Kill, Ok(A::KillTask));
        }
    }

    #[test]
    fn what_does_not_run_is_stopped_already_but_cannot_be_killed() {
        for state in [S::Created, S::Exited, S::Removing, S::Dead] {
            check(state, C::Stop, Err(R::AlreadySo));
            check(state, C::Kill, Err(R::NotRunning));
        }
    }

    #[test]
    fn only_force_removes_what_runs() {
        check(RUNNING, C::Remove { force: false }, Err(R::Running));
        check(PAUSED, C::Remove { force: false }, Err(R::Paused));
        check(S::Restarting, C::Remove { force: true }, Ok(A::StopAndDelete));
        check(S::Exited, C::Remove { force: false }, Ok(A::DeleteRecord));
        check(S::Removing, C::Remove { force: true }, Err(R::BeingRemoved));
    }

    #[test]
    fn a_removal_that_failed_can_be_tried_again() {
        check(S::Dead, C::Remove { force: false }, Ok(A::DeleteRecord));
    }

    #[test]
    fn a_client_may_attach_before_the_start() {
        check(S::Created, C::Attach, Ok(A::WaitForStart));
        check(RUNNING, C::Attach, Ok(A::AskTask));
        check(PAUSED, C::Attach, Err(R::Paused));
        check(S::Restarting, C::Attach, Err(R::Restarting));
    }

    #[test]
    fn an_exec_needs_a_process_that_runs() {
        check(RUNNING, C::Exec, Ok(A::AskTask));
        check(PAUSED, C::Exec, Err(R::Paused));
        check(S::Exited, C::Exec, Err(R::NotRunning));
    }
}
