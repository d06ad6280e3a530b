//! Handing the listener of a notifying seccomp profile to its agent, OCI runtime-spec, config-linux.md, The Container Process State.

use crate::error::{Context, Error, Result};
use crate::state::State;
use cleat_sys::fdpass;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Sends the descriptor and the state of the process that it speaks for; `exec` is that process's pid, if it is not init.
///
/// # Errors
/// Where the profile names no agent, or it cannot be reached.
pub fn hand_over(state: &State, listener: BorrowedFd<'_>, exec: Option<i32>) -> Result<()> {
    let path = state.cleat.filter_listener.as_ref();
    let path = path.ok_or_else(|| Error::Invalid("seccomp listenerPath is not set".to_owned()))?;
    let what = || {
        format!(
            "failed to connect with seccomp agent specified in the seccomp profile: dial {}",
            path.display()
        )
    };
    let socket = UnixStream::connect(path).context(what)?;
    let status = if exec.is_some() { "running" } else { "creating" };
    let init = state.init_process_pid;
    let document = serde_json::json!({
        "ociVersion": state.cleat.oci_version,
        "fds": ["seccompFd"],
        "pid": exec.unwrap_or(init),
        "metadata": state.cleat.filter_metadata.as_deref().unwrap_or(""),
        "state": crate::state::document(&state.cleat, &state.id, status, init),
    });
    let text = document.to_string();
    let sent = fdpass::send(&socket, text.as_bytes(), &[listener.as_raw_fd()]).context(what)?;
    if sent < text.len() {
        Err(Error::Invalid("the seccomp agent took only a part of the state".to_owned()))
    } else {
        Ok(())
    }
}
