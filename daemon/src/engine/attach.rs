//! `docker attach`: the client's connection goes to the shim, and no byte of it through the daemon.

use std::{os::fd::OwnedFd, sync::Arc};

use cleat_proto::{kind::Kind, shim::Attach};

use super::{AttachOptions, Engine, Entry, Error, Result, entry::EarlyClient};
use crate::{
    container::{
        names::ContainerRef,
        state::{Action, Command, Refusal},
    },
    task::client,
};

/// What detaches a client that has not said otherwise: ctrl-p, ctrl-q.
const DEFAULT_KEYS: [u8; 2] = [16, 17];

/// A client that may be joined to a container's streams: everything was checked, the response head can be sent.
pub struct Attachment {
    engine: Engine,
    entry: Arc<Entry>,
    attach: Attach,
    /// Held until the client has joined: a start asked for meanwhile waits, or a short program's output could be missed.
    _arming: Option<tokio::sync::OwnedRwLockReadGuard<()>>,
    /// With a terminal the stream is raw, without one it is framed.
    pub tty: bool,
}

impl Engine {
    /// Checks that a client may attach.
    ///
    /// # Errors
    /// If there is no such container, if it is paused or between two runs, or if the detach keys make no sense.
    pub fn attach(&self, reference: &ContainerRef, options: AttachOptions) -> Result<Attachment> {
        let detach_keys = keys(options.detach_keys.as_deref()).ok_or_else(|| {
            let typed = options.detach_keys.unwrap_or_default();
            Error::new(Kind::InvalidArgument, format!("Invalid detach keys ({typed}) provided"))
        })?;
        let entry = self.entry(reference)?;
        let name = &reference.0;
        let view = entry.view();
        view.state.decide(Command::Attach).map_err(|why| {
            let text = match why {
                Refusal::Paused => {
                    format!("container {name} is paused, unpause the container before attach")
                }
                Refusal::Restarting => {
                    format!("container {name} is restarting, wait until the container is running")
                }
                _ => format!("container {name} is marked for removal"),
            };
            Error::new(Kind::Conflict, text)
        })?;
        let attach = Attach {
            exec_id: String::new(),
            stdin: options.stdin && view.record.config.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            logs: options.logs,
            stream: options.stream,
            detach_keys,
            early_stdin: Vec::new(),
        };
        let arming = Arc::clone(&entry.arming).try_read_owned().ok();
        Ok(Attachment {
            engine: self.clone(),
            tty: view.record.config.tty,
            entry,
            attach,
            _arming: arming,
        })
    }
}

impl Attachment {
    /// Hands the client's connection, after the response head, to the shim, or keeps it until the container is started. `early` is
    /// what the client sent behind its request.
    ///
    /// # Errors
    /// If the shim does not take it.
    pub async fn join(self, client: OwnedFd, early: Vec<u8>) -> Result<()> {
        let Self { engine, entry, mut attach, _arming, .. } = self;
        attach.early_stdin = early;
        // In turn: a start that is on its way takes the clients it finds, and this one must not come between.
        let (worker, joined) = (engine.clone(), Arc::clone(&entry));
        entry
            .queue
            .run(async move {
                let view = joined.view();
                worker.publish(&view, "attach", Default::default());
                match view.state.decide(Command::Attach) {
                    Ok(Action::AskTask) => {
                        let task = worker.task_dir(&joined.id);
                        Ok(client::attach(&task, attach, client).await?)
                    }
                    Ok(_) if attach.stream => {
                        joined.keep(EarlyClient { attach, client }).map_err(|_| too_many())
                    }
                    // Nothing more will come, and what the log holds is `docker logs`' to tell.
                    _ => Ok(()),
                }
            })
            .await
    }
}

fn too_many() -> Error {
    Error::new(Kind::Unavailable, "too many clients wait for the start of this container")
}

/// Reads detach keys: single characters and `ctrl-X`, with commas between. `None` if they make no sense.
///
/// Source: docker/cli, `--detach-keys`.
pub(super) fn keys(typed: Option<&str>) -> Option<Vec<u8>> {
    let Some(typed) = typed.filter(|typed| !typed.is_empty()) else {
        return Some(DEFAULT_KEYS.to_vec());
    };
    typed.split(',').map(key).collect()
}

fn key(text: &str) -> Option<u8> {
    if let [byte] = text.as_bytes() {
        return Some(*byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read() {
        for (typed, expected) in [
            (None, Some(vec![16, 17])),
            (Some(""), Some(vec![16, 17])),
            (Some("ctrl-a,b"), Some(vec![1, b'b'])),
            (Some("ctrl-@,ctrl-_"), Some(vec![0, 31])),
            (Some("ctrl-"), None),
            (Some("ab"), None),
            (Some("ctrl-A"), None),
        ] {
            assert_eq!(keys(typed), expected, "{typed:?}");
        }
    }
}
