//! What a shim tells, while it happens; and the end of a run: commit, answer whoever waits, then take away what is left.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cleat_proto::{
    containerd::v1::types::Status as TaskStatus,
    docker::container::RestartPolicy,
    journal::{Entry as Told, What},
};

use super::{Engine, Entry, Result, fault};
use crate::{
    container::{Container, Phase, Record, Run, State, history::Consequence, names::ContainerRef},
    event::now_nanos,
    task::{Client, TaskDir, Watch, cgroup},
};

/// Between two tries to reach a shim that does not answer, but is not dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// What nobody saw the end of: as if killed.
const KILLED: u32 = 137;

impl Engine {
    /// Follows what becomes of a task, in a task of its own, to its end.
    pub(super) fn follow(&self, entry: Arc<Entry>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let task = engine.task_dir(&entry.id);
            while !engine.follow_connection(&entry, &task).await {}
        });
    }

    /// Follows one connection; returns whether the task has ended.
    async fn follow_connection(&self, entry: &Arc<Entry>, task: &TaskDir) -> bool {
        let after = entry.view().run.journal_seq;
        let mut watch = match Watch::open(task, after).await {
            Ok(watch) => watch,
            Err(error) if error.is_dead() => {
                if self.shim_is_dead(entry, task).await
                    && !self.0.shutting_down.load(Ordering::Acquire)
                {
                    self.start_again_if_wanted(entry).await;
                }
                return true;
            }
            Err(error) => {
                tracing::warn!(container = %entry.id, %error, "cannot follow a container");
                tokio::time::sleep(PATIENCE).await;
                return false;
            }
        };
        while let Ok(Some(told)) = watch.next().await {
            if self.take(entry, &told).await {
                return true;
            }
        }
        false
    }

    /// Takes in one journal entry; returns whether it was the last.
    pub(super) async fn take(&self, entry: &Arc<Entry>, told: &Told) -> bool {
        if told.seq <= entry.view().run.journal_seq {
            return false;
        }
        if let What::Exited { .. } = told.what {
            self.ended(entry, told).await;
            return true;
        }
        let (events, consequence) = entry.change(|container| container.follow(told));
        let record = Arc::clone(&entry.view().record);
        if let Consequence::ExecEnded { exec_id, status } = &consequence {
            self.exec_ended(entry, exec_id, *status);
        }
        for event in events {
            self.publish_at(&record, &event.action, event.attributes, event.at_nanos);
        }
        false
    }

    /// The run is over: commit, tell, answer waiters, and then take away what is left, in turn with other commands.
    async fn ended(&self, entry: &Arc<Entry>, told: &Told) {
        let mut after = (*entry.view()).clone();
        let (events, _) = after.follow(told);
        let removes = self.removes_itself(entry);
        fault::point("exit.before-commit");
        let run = after.run.clone();
        let committed = self
            .commit(entry, |record| {
                record.run = run;
                if removes {
                    record.phase = Phase::Removing { volumes: true };
                }
            })
            .await;
        if let Err(error) = committed {
            // The shim's exit file still says it; the next start of the daemon reads it.
            tracing::error!(container = %entry.id, error = error.whole(), "cannot record an exit");
        }
        fault::point("exit.after-commit");
        let record = Arc::clone(&entry.view().record);
        for event in events {
            self.publish_at(&record, &event.action, event.attributes, event.at_nanos);
        }
        // Who hears of the end may want the ports for another container.
        let publishes = after.run.ports.values().any(Option::is_some);
        if publishes && let Err(error) = self.0.networks.withdraw(&entry.id).await {
            tracing::error!(container = %entry.id, %error, "cannot withdraw the container's ports");
        }
        entry.leave_remains();
        let status = after.run.exit_code;
        entry.change(|container| {
            container.follow(told);
            if removes {
                container.state = State::Removing;
            }
        });
        tracing::info!(container = %entry.id, status, "container ended");
        self.end_execs(entry);
        let (engine, cleaned) = (self.clone(), Arc::clone(entry));
        let in_turn = async move {
            if cleaned.take_remains() {
                engine.tear_down(&cleaned).await;
            }
            if removes { engine.remove_whole(&cleaned, true).await } else { Ok(()) }
        };
        if let Err(error) = entry.queue.run(in_turn).await {
            tracing::error!(container = %entry.id, error = error.whole(), "cannot clean up after a container");
        }
    }

    /// Returns a container as it stands, its end included if the shim knows of one; see [`Self::hear_of_end`].
    ///
    /// # Errors
    /// `No such container: …`
    pub async fn container_settled(&self, reference: &ContainerRef) -> Result<Arc<Container>> {
        let entry = self.entry(reference)?;
        self.hear_of_end(&entry).await;
        Ok(entry.view())
    }

    /// Waits for an end that the shim knows of and we do not yet: who has followed the log to its end has seen it.
    pub(super) async fn hear_of_end(&self, entry: &Entry) {
        let State::Running { pid } = entry.view().state else { return };
        // Most times nothing has ended, and the kernel says so at once.
        let first = nix::unistd::Pid::from_raw(pid.cast_signed());
        if nix::sys::signal::kill(first, None) != Err(nix::errno::Errno::ESRCH) {
            return;
        }
        let mut changes = entry.subscribe();
        let heard = async {
            let mut client = Client::connect(&self.task_dir(&entry.id)).await.ok()?;
            if client.status("").await.ok()? == TaskStatus::Stopped {
                changes.wait_for(|now| now.state != State::Running { pid }).await.ok()?;
            }
            Some(())
        };
        // It is on its way; should it get lost, what we know has to do.
        let _ = tokio::time::timeout(PATIENCE, heard).await;
    }

    fn removes_itself(&self, entry: &Entry) -> bool {
        entry.view().record.host_config.auto_remove && !entry.is_restarting_by_hand()
    }

    /// Gives back what a task that ended had: its network, its shim, its directory.
    pub(super) async fn tear_down(&self, entry: &Entry) {
        let task = self.task_dir(&entry.id);
        let record = Arc::clone(&entry.view().record);
        let shim = async {
            match Client::connect(&task).await {
                Ok(mut client) => {
                    if let Err(error) = client.delete("").await {
                        tracing::debug!(container = %entry.id, %error, "cannot delete a task");
                    }
                    fault::point("exit.after-delete");
                    client.shutdown().await;
                }
                Err(error) => self.sweep_processes(&record, !error.is_dead()).await,
            }
        };
        let network = async {
            if record.host_config.network_mode.starts_with("container:") {
                return;
            }
            match self.0.networks.detach(&entry.id).await {
                Ok(true) => {
                    self.publish_networks(&record, "disconnect");
                    self.publish_unmounts(&record);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(container = %entry.id, %error, "cannot give the network back");
                }
            }
            fault::point("exit.after-network");
        };
        tokio::join!(shim, network);
        self.unshare_shm(&entry.id);
        if let Err(error) = task.remove() {
            tracing::error!(container = %entry.id, %error, "cannot remove a task's directory");
        }
        fault::point("exit.after-directory");
    }

    /// Takes away what a shim leaves that died: the shim itself if it only hangs (looking for it costs a walk through /proc), the
    /// container's processes, its cgroup, and what the runtime keeps of it.
    pub(super) async fn sweep_processes(&self, record: &Arc<Record>, hangs: bool) {
        let (engine, swept) = (self.clone(), Arc::clone(record));
        let done = tokio::task::spawn_blocking(move || {
            if hangs {
                engine.0.shims.kill(&swept.id);
            }
            engine.0.shims.wait_dead(&swept.id);
            cgroup::destroy(&engine.cgroup_path(&swept))?;
            engine.forget_in_runtime(&swept)
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(container = %record.id, %error, "cannot take a dead task away");
        }
    }

    /// Has the runtime forget a container, which it does not mind not knowing. Blocks.
    pub(super) fn forget_in_runtime(&self, record: &Record) -> std::io::Result<()> {
        let own = record.host_config.runtime.as_str();
        let config = self.config();
        let name = if own.is_empty() { config.default_runtime.as_str() } else { own };
        let root = self.runtime_root(name);
        let Some(runtime) = config.runtimes.get(name) else { return Ok(()) };
        if !root.join(record.id.as_str()).exists() {
            return Ok(());
        }
        let deleted = std::process::Command::new(&runtime.path)
            .args(&runtime.args)
            .arg("--root")
            .arg(&root)
            .args(["delete", "--force", record.id.as_str()])
            .stdin(std::process::Stdio::null())
            .output()?;
        match deleted.status.success() {
            true => Ok(()),
            false => Err(std::io::Error::other(
                String::from_utf8_lossy(&deleted.stderr).trim_end().to_owned(),
            )),
        }
    }

    /// Where a runtime keeps what it knows: `--root`.
    pub(super) fn runtime_root(&self, name: &str) -> PathBuf {
        self.config().state.join("runtime").join(name)
    }

    /// Nobody listens on the socket any more: what the shim has written is the truth, and if it wrote no end, the
    /// container's processes are killed now. Returns whether it was so.
    pub(super) async fn shim_is_dead(&self, entry: &Arc<Entry>, task: &TaskDir) -> bool {
        let record = Arc::clone(&entry.view().record);
        self.sweep_processes(&record, false).await;
        let after = entry.view().run.journal_seq;
        for told in task.journal(after) {
            if self.take(entry, &told).await {
                return false;
            }
        }
        let seq = entry.view().run.journal_seq + 1;
        let (at_nanos, what) = match task.exit() {
            Some(exit) => (
                exit.exited_at_nanos,
                What::Exited {
                    status: exit.status,
                    oom_killed: exit.oom_killed,
                    error: exit.error,
                    by_hand: exit.by_hand,
                },
            ),
            None => {
                tracing::warn!(container = %entry.id, "a shim has died, and its container with it");
                (
                    now_nanos(),
                    What::Exited { status: KILLED, oom_killed: false, error: None, by_hand: false },
                )
            }
        };
        let killed = task.exit().is_none();
        self.ended(entry, &Told { seq, at_nanos, what }).await;
        killed
    }

    /// Does what a restart policy wants where no shim can: after the shim's death, and when the daemon starts.
    pub(super) async fn start_again_if_wanted(&self, entry: &Arc<Entry>) {
        let view = entry.view();
        if !wants_start(&view.record.host_config.restart_policy, &view.run) {
            return;
        }
        if let Err(error) = self.start(&(&entry.id).into()).await {
            tracing::warn!(container = %entry.id, error = error.whole(), "cannot start a container again");
        }
    }
}

/// Whether a container that does not run is to be started by the daemon, as the policy and its last run say.
pub(super) fn wants_start(policy: &RestartPolicy, run: &Run) -> bool {
    if run.started_at_nanos == 0 {
        return false;
    }
    let retries_left = policy.maximum_retry_count == 0
        || i64::from(run.restart_count) < policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => run.wanted,
        "on-failure" => run.wanted && run.exit_code != 0 && retries_left,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: &str, retries: i64, run: Run, expected: bool) {
        let policy = RestartPolicy { name: policy.into(), maximum_retry_count: retries };
        assert_eq!(wants_start(&policy, &run), expected, "{policy:?} {run:?}");
    }

    fn run(wanted: bool, exit_code: u32) -> Run {
        Run { wanted, exit_code, started_at_nanos: 1, ..Run::default() }
    }

    #[test]
    fn always_starts_even_what_was_stopped() {
        check("always", 0, run(false, 0), true);
        check("always", 0, Run::default(), false);
    }

    #[test]
    fn unless_stopped_remembers_the_stop() {
        check("unless-stopped", 0, run(true, 0), true);
        check("unless-stopped", 0, run(false, 137), false);
    }

    #[test]
    fn on_failure_needs_a_failure_and_retries() {
        check("on-failure", 0, run(true, 1), true);
        check("on-failure", 0, run(true, 0), false);
        check("on-failure", 2, Run { restart_count: 2, ..run(true, 1) }, false);
        check("no", 0, run(true, 1), false);
    }
}
