//! Signals passed on to the container instead of ending us.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Client, Query};
use crate::error::Outcome;

/// What an interrupt or a termination of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The command ends, with the signal's exit code.
    End,
    /// The command ends as if nothing had happened, as docker's `exec` does.
    EndQuietly,
    /// The container's end counts; only the third signal ends the command.
    GoOn,
}

static MODE: AtomicU8 = AtomicU8::new(OnInterrupt::End as u8);

/// What a signal does now.
pub fn on_interrupt() -> OnInterrupt {
    match MODE.load(Ordering::Relaxed) {
        mode if mode == OnInterrupt::End as u8 => OnInterrupt::End,
        mode if mode == OnInterrupt::EndQuietly as u8 => OnInterrupt::EndQuietly,
        _ => OnInterrupt::GoOn,
    }
}

/// Changes what a signal does.
pub fn set_on_interrupt(mode: OnInterrupt) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// Every signal that can be passed on. Left out: those that cannot be caught, that report our own faults or children, and the
/// ones terminals send for job control of ourselves.
const NAMES: [(i32, &str); 19] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGTSTP, "TSTP"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGWINCH, "WINCH"),
    (libc::SIGIO, "IO"),
    (libc::SIGPWR, "PWR"),
];

/// The signals, caught from now on.
pub struct Proxy(Vec<(&'static str, Signal)>);

impl Proxy {
    /// Catches the signals.
    pub fn new() -> Self {
        set_on_interrupt(OnInterrupt::GoOn);
        let catch = |(number, name): &(i32, &'static str)| {
            signal(SignalKind::from_raw(*number)).ok().map(|signal| (*name, signal))
        };
        Self(NAMES.iter().filter_map(catch).collect())
    }

    /// Sends each signal to `container` as it comes. Never ends.
    pub async fn forward(mut self, client: &Client, container: &str) -> Infallible {
        loop {
            let name = {
                let mut next: FuturesUnordered<_> = self
                    .0
                    .iter_mut()
                    .map(|(name, signal)| {
                        let name = *name;
                        async move { signal.recv().await.map(|()| name) }
                    })
                    .collect();
                next.next().await.flatten()
            };
            match name {
                Some(name) => {
                    let path = format!("/containers/{container}/kill");
                    let _ = client.post(&path, &Query::of("signal", name)).await;
                }
                None => std::future::pending::<()>().await,
            }
        }
    }
}

/// Runs `flow`, and passes signals on to `container` meanwhile if there is a proxy.
pub async fn forwarded(
    proxy: Option<Proxy>,
    client: &Client,
    container: &str,
    flow: impl Future<Output = Outcome>,
) -> Outcome {
    let Some(proxy) = proxy else { return flow.await };
    tokio::select! {
        biased;
        outcome = flow => outcome,
        never = proxy.forward(client, container) => match never {},
    }
}

/// Keeps the size of a container's terminal that of ours. Never ends. `path` is the object's, such as `/exec/ID`.
pub async fn follow_size(client: &Client, path: &str) -> Infallible {
    let changes = signal(SignalKind::window_change());
    if resize(client, path).await.is_err() {
        let mut done = false;
        for attempt in 1..=10 {
            tokio::time::sleep(std::time::Duration::from_millis(10 * attempt)).await;
            if resize(client, path).await.is_ok() {
                done = true;
                break;
            }
        }
        if !done {
            crate::print::err("failed to resize tty, using default size\n");
        }
    }
    if let Ok(mut changes) = changes {
        while changes.recv().await.is_some() {
            let _ = resize(client, path).await;
        }
    }
    std::future::pending().await
}

async fn resize(client: &Client, path: &str) -> Result<(), crate::client::Error> {
    let Some((columns, rows)) = crate::terminal::size(std::io::stdout()) else { return Ok(()) };
    resize_to(client, path, columns, rows).await
}

/// Sets the size of a container's terminal.
///
/// # Errors
/// It is not running yet.
pub async fn resize_to(
    client: &Client,
    path: &str,
    columns: u16,
    rows: u16,
) -> Result<(), crate::client::Error> {
    let query = Query::of("h", rows.to_string()).with("w", columns.to_string());
    client.post(&format!("{path}/resize"), &query).await.map(drop)
}
