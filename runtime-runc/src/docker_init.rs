//! The init of `docker run --init`: the first process of a container that only starts the command, hands signals on and reaps.
//!
//! It is this binary under the name `docker-init` (the daemon binds a copy of it at `/sbin/docker-init`), so that an engine of four
//! programs needs no fifth. Called as `docker-init -- COMMAND [ARG…]`.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, tcsetpgrp},
};

/// The name that makes this binary an init.
pub const NAME: &str = "docker-init";

/// Runs the command and becomes its shadow: answers its exit code, or 128 + the signal that ended it.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut command = args.skip_while(|arg| arg == "--");
    let Some(program) = command.next() else {
        eprintln!("{NAME}: a command is needed: {NAME} -- COMMAND [ARG...]");
        return ExitCode::from(1);
    };
    // Blocked signals wait for `SigSet::wait`. The command must not inherit that.
    let all = SigSet::all();
    if let Err(error) = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None) {
        eprintln!("{NAME}: cannot block signals: {error}");
        return ExitCode::from(1);
    }
    let mut shadowed = Command::new(&program);
    shadowed.args(command).process_group(0);
    match cleat_sys::process::with_default_signals(&mut shadowed).spawn() {
        Ok(child) => watch(Pid::from_raw(child.id() as i32), &all),
        Err(error) => {
            eprintln!("{NAME}: exec {} failed: {error}", program.to_string_lossy());
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

fn watch(child: Pid, all: &SigSet) -> ExitCode {
    // The command, not its init, gets the terminal's keys; without a terminal this fails, and nothing is lost.
    let _ = tcsetpgrp(io::stdin(), child);
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return ExitCode::from(code);
                }
            }
            // Stopping the init because of its terminal would stop the container.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) | Err(_) => {}
            Ok(signal) => {
                // A child that has just ended is found by the SIGCHLD that follows.
                let _ = kill(child, signal);
            }
        }
    }
}

/// Reaps whoever has ended; answers the command's exit code when it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(128 + signal as u8)
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(_) => {}
        }
    }
}
