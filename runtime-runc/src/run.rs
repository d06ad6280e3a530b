//! `run`: `create` and `start` in one; in the foreground also the wait, and `delete`.

use crate::cli::{Arguments, Syntax};
use crate::create::{self, Request};
use crate::error::Result;
use crate::foreground::{self, Signals};
use crate::spec::Spec;
use crate::{Global, console, delete, hook, selfexe};

pub const SYNTAX: Syntax = Syntax {
    values: create::SYNTAX.values,
    switches: &["no-pivot", "no-new-keyring", "detach,d", "keep", "no-subreaper"],
    least: 1,
    most: 1,
};

/// Runs the verb; returns the exit code for this process.
///
/// # Errors
/// [`crate::error::Error`]; nothing of the container is left then.
pub fn run(global: &Global, words: &[String]) -> Result<i32> {
    selfexe::protect(&global.root)?;
    let arguments = Arguments::parse_verb("run", words, &SYNTAX)?;
    let detach = arguments.has("detach");
    let mut request = Request::new(&arguments)?;
    request.fifo = false;
    request.keep = arguments.has("keep");
    let spec = Spec::load(&request.bundle)?;
    create::check_terminal(&spec, &request, detach)?;
    let mut terminal = None;
    if spec.process()?.terminal && request.console_socket.is_none() {
        let (taker, ours) = console::Taker::worker()?;
        request.own_console = Some(taker);
        terminal = Some(ours);
    }
    let keep = request.keep;
    let launched = create::launch(global, request, &spec)?;
    let signals = if detach { None } else { Some(Signals::block()?) };
    let (container, pid, pidfd) = launched.release()?;
    if !spec.hooks.poststart.is_empty() {
        let state = container.document("running", pid.as_raw());
        if let Err(error) = hook::run("poststart", &spec.hooks.poststart, &state, &[]) {
            delete::kill_and_destroy(&container)?;
            return Err(error);
        }
    }
    let Some(signals) = signals else { return Ok(0) };
    let terminal = terminal.as_ref().map(foreground::receive_terminal).transpose()?;
    let code = foreground::wait(pid, &pidfd, &signals, terminal)?;
    if !keep {
        delete::destroy(&container)?;
    }
    Ok(code)
}
