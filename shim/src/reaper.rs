//! Takes the exit statuses of all our children, born or adopted.
//!
//! Who started a child waits for it by pid ([`Reaper::spawn`]); whoever else ends is an adopted process of the container
//! (we are its subreaper) and goes to the supervisor.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub pid: u32,
    /// The exit code, or 128 + the signal.
    pub status: u32,
    pub at: SystemTime,
}

type Children = Mutex<HashMap<u32, oneshot::Sender<Exit>>>;

/// Starts children and hands out their ends. Cheap to clone.
#[derive(Clone)]
pub struct Reaper {
    children: Arc<Children>,
}

impl Reaper {
    /// Makes one whose task sends the ends of adopted processes to `adopted`. Needs the runtime.
    pub fn start(adopted: mpsc::UnboundedSender<Exit>) -> io::Result<Self> {
        let children = Arc::new(Children::default());
        tokio::spawn(reap(signal(SignalKind::child())?, Arc::clone(&children), adopted));
        Ok(Self { children })
    }

    /// Starts a child and returns its pid, with what will know its end.
    ///
    /// No exit can slip between the two steps: the one thread that reaps is the one that is here.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(u32, oneshot::Receiver<Exit>)> {
        let pid = command.spawn()?.id();
        let (sender, receiver) = oneshot::channel();
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, sender);
        Ok((pid, receiver))
    }
}

async fn reap(mut signals: Signal, children: Arc<Children>, adopted: mpsc::UnboundedSender<Exit>) {
    while signals.recv().await.is_some() {
        while let Some(exit) = reap_one() {
            let child = children.lock().unwrap_or_else(PoisonError::into_inner).remove(&exit.pid);
            // Nobody listens any more: then nobody needs to know.
            let _ = match child {
                Some(sender) => sender.send(exit).is_ok(),
                None => adopted.send(exit).is_ok(),
            };
        }
    }
}

fn reap_one() -> Option<Exit> {
    let at = SystemTime::now();
    let (pid, status) = loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => break (pid, code.cast_unsigned() & 0xff),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                break (pid, 128 + (signal as i32).cast_unsigned());
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return None,
            Ok(_) | Err(_) => {}
        }
    };
    Some(Exit { pid: pid.as_raw().cast_unsigned(), status, at })
}
