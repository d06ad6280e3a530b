//! Named points between two steps, where a test has the worker killed, or its parent, the shim.
//!
//! A debug build reads the file `fault` below `--root`: a point's name has the worker killed there, `shim` and a point's name
//! its parent. A release build has nothing of this.

#[cfg(debug_assertions)]
use std::{path::Path, sync::OnceLock};

#[cfg(debug_assertions)]
static WANTED: OnceLock<String> = OnceLock::new();

/// Learns what a test wants.
#[cfg(debug_assertions)]
pub fn arm(root: &Path) {
    if let Ok(wanted) = std::fs::read_to_string(root.join("fault")) {
        // Once per process.
        let _ = WANTED.set(wanted.trim().to_owned());
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub fn arm(_root: &std::path::Path) {}

/// Kills, if a test asked for it here.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getpid, getppid};
    let Some(wanted) = WANTED.get() else { return };
    let end = |pid: Pid| {
        let _ = kill(pid, Signal::SIGKILL);
    };
    match wanted.split_once(' ') {
        None if wanted == name => end(getpid()),
        Some(("shim", wanted)) if wanted == name => end(getppid()),
        _ => {}
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}
