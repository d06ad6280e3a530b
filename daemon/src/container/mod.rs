//! A container's record (what was asked for), its state (what is), and the names.

pub mod health;
pub mod history;
mod mount_plan;
pub mod mount_point;
pub mod names;
pub mod record;
pub mod signal;
pub mod state;

use std::sync::Arc;

use cleat_proto::id::ExecId;

pub use health::Health;
pub use record::{Phase, Record, Run};
pub use state::State;

/// A container as readers see it: one consistent moment, shared, never changed.
#[derive(Clone, Debug)]
pub struct Container {
    /// What was asked for, as the database has it.
    pub record: Arc<Record>,
    /// Where it stands.
    pub state: State,
    /// The present or last run; ahead of the record's while a restart policy is at work.
    pub run: Run,
    /// Its execs that are still known.
    pub exec_ids: Vec<ExecId>,
    /// How often the first process ended for good or before a restart; waiters compare it.
    pub exits: u64,
    /// It was removed; whoever still holds this holds the last that was known.
    pub gone: bool,
}
