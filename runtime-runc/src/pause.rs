//! `pause` and `resume`: the freezer.

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Error, Result};
use crate::state::{Container, Status};

pub const SYNTAX: Syntax = Syntax { values: &[], switches: &[], least: 1, most: 1 };

/// `pause`.
///
/// # Errors
/// Where the container does not run.
pub fn pause(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("pause", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    match container.status()? {
        Status::Running | Status::Created => Ok(container.need_cgroup()?.freeze()?),
        Status::Paused | Status::Stopped => Err(Error::State("container not running".to_owned())),
    }
}

/// `resume`.
///
/// # Errors
/// Where the container is not paused.
pub fn resume(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("resume", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    let cgroup = container.need_cgroup()?;
    // A container frozen before its start still counts as created: the freezer is asked, not the status.
    if container.status()? == Status::Stopped || !cgroup.is_frozen()? {
        return Err(Error::State("container not paused".to_owned()));
    }
    Ok(cgroup.thaw()?)
}
