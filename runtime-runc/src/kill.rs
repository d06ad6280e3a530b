//! `kill`: sends a signal to a container's init, or to all of its processes.

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::state::Container;
use cleat_sys::Errno;
use cleat_sys::pidfd::PidFd;
use nix::sys::signal::Signal;

pub const SYNTAX: Syntax = Syntax { values: &[], switches: &["all,a"], least: 1, most: 2 };

/// Runs the verb.
///
/// # Errors
/// Where the container does not run, and for a signal that is none.
pub fn run(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("kill", words, &SYNTAX)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    let signal = parse(arguments.rest.get(1).map_or("SIGTERM", String::as_str))?;
    // Without a PID namespace of its own, the end of init does not end the others.
    let shares_pids = container.state.cleat.namespaces & libc::CLONE_NEWPID == 0;
    if arguments.has("all") || (shares_pids && signal == libc::SIGKILL) {
        return kill_all(&container, signal);
    }
    let init = container.open_init()?.ok_or_else(not_running)?;
    match init.send_signal(signal) {
        Err(Errno::ESRCH) => Err(not_running()),
        other => other.context(|| "unable to signal init".to_owned()),
    }?;
    thaw_the_dying(&container, signal)
}

fn kill_all(container: &Container, signal: i32) -> Result<()> {
    let Some(cgroup) = container.cgroup().transpose()? else {
        // Nobody knows of others; gone already is as good.
        let sent = container.open_init()?.map_or(Ok(()), |init| init.send_signal(signal));
        return match sent {
            Err(Errno::ESRCH) => Ok(()),
            sent => sent.context(|| "unable to signal init".to_owned()),
        };
    };
    if signal == libc::SIGKILL {
        return Ok(cgroup.kill()?);
    }
    for pid in cgroup.pids()? {
        match PidFd::open(pid).and_then(|pidfd| pidfd.send_signal(signal)) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(Error::Kernel {
                    what: format!("unable to signal process {pid}"),
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// A frozen process dies only when it is thawed (v1).
fn thaw_the_dying(container: &Container, signal: i32) -> Result<()> {
    if signal != libc::SIGKILL {
        return Ok(());
    }
    match container.cgroup() {
        Some(Ok(cgroup)) if cgroup.is_frozen().unwrap_or(false) => Ok(cgroup.thaw()?),
        _ => Ok(()),
    }
}

fn not_running() -> Error {
    Error::State("container not running".to_owned())
}

/// Reads a number, or a name with or without `SIG`.
///
/// # Errors
/// [`Error::Usage`].
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(real_time) = name.strip_prefix("RTMIN") {
        let offset =
            real_time.strip_prefix('+').unwrap_or("0").parse::<i32>().map_err(|_| unknown())?;
        return if (0..=30).contains(&offset) { Ok(34 + offset) } else { Err(unknown()) };
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigusr1", 10), ("RTMIN+3", 37), ("64", 64)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        assert!(["65", "-1", "NOPE", "RTMIN+99", ""].iter().all(|text| parse(text).is_err()));
    }
}
