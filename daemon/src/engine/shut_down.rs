//! The daemon's graceful end: containers stay, unless it was told otherwise or the host ends as well.

use std::{
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use futures_util::future::join_all;

use super::{Engine, StopOptions};
use crate::task::cgroup;

/// What a container gets beyond its own timeout, as with Docker.
const MARGIN: Duration = Duration::from_secs(5);

impl Engine {
    /// `--shutdown-timeout`, or longer where a container's own timeout is.
    fn stop_bound(&self) -> Duration {
        let entries = self.entries();
        let own = entries.iter().filter_map(|entry| entry.view().record.config.stop_timeout);
        let longest = own.filter_map(|seconds| u64::try_from(seconds).ok()).max().unwrap_or(0);
        self.config().shutdown_timeout.max(Duration::from_secs(longest) + MARGIN)
    }

    /// Leaves (or with `--stop-containers`, and where the host goes down, stops) the containers and ends what listens: SIGTERM.
    pub async fn shut_down(&self) {
        self.0.shutting_down.store(true, Ordering::Release);
        if self.config().stop_containers || host_goes_down() {
            let running = self.entries().into_iter().filter(|e| e.view().state.is_running());
            let stops = running.map(|entry| {
                let engine = self.clone();
                async move {
                    let stopped = engine.stop_and_tell(&entry, StopOptions::default()).await;
                    if let Err(error) = stopped {
                        tracing::warn!(container = %entry.id, error = error.whole(), "not stopped");
                    }
                }
            });
            let bound = self.stop_bound();
            if tokio::time::timeout(bound, join_all(stops)).await.is_err() {
                tracing::warn!(seconds = bound.as_secs(), "not every container could be stopped");
            }
        }
        self.0.events.close();
        if self.entries().iter().all(|entry| !entry.view().state.is_running()) {
            self.0.networks.close().await;
            if let Some(parent) = self.config().cgroups.own_parent() {
                cgroup::remove_if_empty(parent);
            }
        }
    }
}

/// Whether systemd is taking the host down. What it started last hears of it first: then there still is a network, and containers
/// can end in their own way; those that are left until the end hold up the host and are killed.
///
/// Source: `systemctl(1)`, "is-system-running".
fn host_goes_down() -> bool {
    // `systemd.exec(5)`, "Environment Variables Set": there for its services only.
    std::env::var_os("INVOCATION_ID").is_some()
        && Command::new("systemctl")
            .arg("is-system-running")
            .stderr(Stdio::null())
            .output()
            .is_ok_and(|output| output.stdout.trim_ascii() == b"stopping")
}
