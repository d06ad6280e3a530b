//! Named points between two steps, where a test has the daemon killed.
//!
//! A debug build raises SIGKILL on itself at the point that `CLEAT_FAULT` names; a release build has nothing of this.

/// Every point, in the order of the use cases: `cleatd --list-fault-points` prints them.
#[cfg(debug_assertions)]
pub const POINTS: &[&str] = &[
    "create.before-volumes",
    "create.before-commit",
    "create.after-commit",
    "create.amid-copy",
    "create.after-snapshot",
    "start.before-directory",
    "start.after-directory",
    "start.after-network",
    "start.after-shim",
    "start.after-bundle",
    "start.after-create",
    "start.beside-start",
    "start.after-start",
    "start.after-commit",
    "stop.before-signal",
    "stop.after-signal",
    "exit.before-commit",
    "exit.after-commit",
    "exit.after-delete",
    "exit.after-network",
    "exit.after-directory",
    "remove.before-intent",
    "remove.after-intent",
    "remove.after-snapshot",
    "remove.after-directory",
    "remove.after-volumes",
    "remove.after-commit",
];

/// Ends the daemon, as SIGKILL does, if a test asked for it here.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in the list of fault points");
    if wanted().is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}

/// Kills a container's shim, if a test asked for it here: `shim` and the name in `CLEAT_FAULT`.
#[cfg(debug_assertions)]
pub fn shim_point(name: &str, shim: u32) {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    debug_assert!(POINTS.contains(&name), "{name} is not in the list of fault points");
    if wanted().and_then(|wanted| wanted.strip_prefix("shim ")) == Some(name) {
        let _ = kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL);
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub fn shim_point(_name: &str, _shim: u32) {}

#[cfg(debug_assertions)]
fn wanted() -> Option<&'static str> {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    WANTED.get_or_init(|| std::env::var("CLEAT_FAULT").ok()).as_deref()
}
