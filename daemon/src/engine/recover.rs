//! After a restart of the daemon: records say what was wanted, shims and their files what is. Every unfinished intent goes
//! forward or back, and what carries our mark and no record is swept.
//!
//! ```text
//!  record         task directory      shim     what is done
//!  run open       there               lives    journal read, then followed
//!  run open       there               dead     journal and exit file read; without an end: 137, the cgroup emptied
//!  run open       none (reboot)       -        ended, 255
//!  run open       never started       any      a start cut short: taken away, as if it had not been asked for
//!  run not open   there               any      a start or an end cut short: taken away
//!  removing       any                 any      taken away, and the removal goes on
//!  none           there               any      taken away
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use cleat_proto::{id::ContainerId, journal::Entry as Told, journal::What};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{CONTAINERS, CREATING, Engine, Entry, Error, Result, paths};
use crate::{
    container::{Container, Phase, Record, Run, State, mount_point::Source},
    event::now_nanos,
    metadata::Table,
    network::Live,
    task::{TaskDir, launch},
};

/// As much of a container's record as keeps its layers.
const REMAINS: Table<Remains> = Table::new("containers");

#[derive(Serialize, Deserialize)]
struct Remains {
    top_layer: Option<String>,
}

/// How a run ended that a reboot of the host cut short; Docker's.
const REBOOTED: u32 = 255;

impl Engine {
    /// Makes what is in memory true.
    pub(super) async fn recover(&self) -> Result<()> {
        let records = self.load()?;
        let tasks = self.tasks()?;
        for record in &records {
            self.remember(record);
        }
        self.0.volumes.restore(records.iter().map(|r| (r.id.clone(), volumes_of(r))));
        let (lost, tasks): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|id| !self.is_open(id) || !self.has_started(id));
        self.replay(&tasks);
        self.0.networks.restore(self.live()).await.unwrap_or_else(|error| {
            tracing::error!(error = Error::from(error).whole(), "cannot restore all networks");
        });
        join_all(lost.into_iter().map(|id| self.take_back(id))).await;
        let entries = self.entries();
        join_all(entries.iter().map(|entry| self.settle(entry, tasks.contains(&entry.id)))).await;
        self.sweep_volumes().await?;
        self.sweep().await;
        for entry in self.entries() {
            let engine = self.clone();
            if !entry.view().state.is_running() {
                tokio::spawn(async move { engine.start_again_if_wanted(&entry).await });
            }
        }
        Ok(())
    }

    /// Reads the records. A damaged one is left out, with a line in the log: it must not take the others with it. Its files and the
    /// layers that it stands on stay, as far as it says.
    fn load(&self) -> Result<Vec<Arc<Record>>> {
        let mut records = Vec::new();
        for (id, record) in self.0.database.list(CONTAINERS)? {
            match record {
                Ok(record) => records.push(Arc::new(record)),
                Err(error) => {
                    tracing::error!(container = id, %error, "a record is left out");
                    let rest = self.0.database.get(REMAINS, &id).ok().flatten();
                    let top = rest.and_then(|rest| rest.top_layer?.parse().ok());
                    if let Some(top) = top {
                        // For as long as we live: nobody can remove this container.
                        std::mem::forget(self.snapshots().lease(&top));
                    }
                }
            }
        }
        Ok(records)
    }

    fn tasks(&self) -> Result<Vec<ContainerId>> {
        TaskDir::list(&self.config().state).map_err(|error| {
            let text = "cannot list the tasks";
            Error::with_source(cleat_proto::kind::Kind::Internal, text, error)
        })
    }

    fn remember(&self, record: &Arc<Record>) {
        let state = match record.phase {
            Phase::Removing { .. } => State::Removing,
            Phase::Present if record.run.started_at_nanos == 0 => State::Created,
            Phase::Present => State::Exited,
        };
        let container = Container {
            record: Arc::clone(record),
            state,
            run: record.run.clone(),
            exec_ids: Vec::new(),
            exits: 0,
            gone: false,
        };
        let mut index = self.index();
        // The name of one that goes away may be another's by now.
        if record.phase == Phase::Present
            && let Err(error) = index.names.reserve(&record.name, &record.id)
        {
            tracing::error!(container = %record.id, %error, "a container lost its name");
        }
        index.add(Arc::new(Entry::new(container)));
    }

    fn is_open(&self, id: &ContainerId) -> bool {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(id).is_some_and(|entry| {
            let view = entry.view();
            view.run.open && view.record.phase == Phase::Present
        })
    }

    /// Whether the first process of a task ever ran, as its shim has it.
    fn has_started(&self, id: &ContainerId) -> bool {
        let task = self.task_dir(id);
        let started = |told: &Told| matches!(told.what, What::Started { .. });
        task.exit().is_some() || task.journal(0).iter().any(started)
    }

    /// Reads what the journals hold already, up to an end: pids and states are true from here on, whether a shim answers or not.
    fn replay(&self, tasks: &[ContainerId]) {
        for id in tasks.iter().filter(|id| self.is_open(id)) {
            let Ok(entry) = self.entry(&id.into()) else { continue };
            let after = entry.view().run.journal_seq;
            for told in self.task_dir(id).journal(after) {
                if let What::Exited { .. } = told.what {
                    break;
                }
                entry.change(|container| container.follow(&told));
            }
        }
    }

    /// Which containers live, and where their network namespaces are.
    fn live(&self) -> Vec<Live> {
        let views = self.containers();
        let live = views.iter().filter(|view| view.state.is_running());
        let mut shims: Option<HashMap<ContainerId, u32>> = None;
        live.filter(|view| !view.run.sandbox_id.is_empty())
            .map(|view| {
                let record = &view.record;
                let netns = match view.state.pid() {
                    // Between two runs the namespace is the shim's alone.
                    0 => {
                        let shims = shims.get_or_insert_with(|| {
                            launch::running().into_iter().map(|(pid, id)| (id, pid)).collect()
                        });
                        let pid = shims.get(&record.id).copied().unwrap_or(0);
                        format!("/proc/{pid}/fd/4")
                    }
                    pid => format!("/proc/{pid}/ns/net"),
                };
                Live {
                    container: record.id.clone(),
                    name: record.name.clone(),
                    endpoints: record.networks.clone(),
                    ports: view.run.ports.clone(),
                    netns: netns.into(),
                }
            })
            .collect()
    }

    /// A task that is no container's, or no longer; where its start was cut short, the container is as if nobody had asked for it.
    async fn take_back(&self, id: ContainerId) {
        self.sweep_task(id.clone()).await;
        if !self.is_open(&id) {
            return;
        }
        let Ok(entry) = self.entry(&(&id).into()) else { return };
        let mut run = entry.view().run.clone();
        if run.finished_at_nanos == 0 {
            // It never ran before either.
            run = Run::default();
        }
        (run.open, run.wanted) = (false, false);
        let stored = run.clone();
        if let Err(error) = self.commit(&entry, |record| record.run = stored).await {
            tracing::error!(container = %id, error = error.whole(), "cannot take a start back");
        }
        entry.change(|container| {
            let never = run.started_at_nanos == 0;
            container.state = if never { State::Created } else { State::Exited };
            container.run = run;
        });
    }

    /// Removes what a task has on the host.
    async fn sweep_task(&self, id: ContainerId) {
        tracing::info!(container = %id, "an unfinished task is taken away");
        let task = self.task_dir(&id);
        let known = self.entry(&(&id).into()).map(|entry| Arc::clone(&entry.view().record));
        let record = known.unwrap_or_else(|_| Arc::new(nobody(id)));
        self.abandon(&record, &task).await;
    }

    /// Brings one container to where it really is.
    async fn settle(&self, entry: &Arc<Entry>, has_task: bool) {
        let view = entry.view();
        if let Phase::Removing { volumes } = view.record.phase {
            if let Err(error) = self.remove_whole(entry, volumes).await {
                tracing::error!(container = %entry.id, error = error.whole(), "a removal does not go on");
            }
            return;
        }
        if let Err(error) = self.prepare(&view.record) {
            tracing::error!(container = %entry.id, error = error.whole(), "a container is not whole");
        }
        if !view.run.open {
            return;
        }
        if has_task {
            let task = self.task_dir(&entry.id);
            if let Err(error) = task.connect().await
                && error.is_dead()
            {
                self.shim_is_dead(entry, &task).await;
                return;
            }
            self.follow(Arc::clone(entry));
            return;
        }
        let seq = view.run.journal_seq + 1;
        let what =
            What::Exited { status: REBOOTED, oom_killed: false, error: None, by_hand: false };
        self.take(entry, &Told { seq, at_nanos: now_nanos(), what }).await;
    }

    /// Removes the volumes of containers that were never made.
    async fn sweep_volumes(&self) -> Result<()> {
        for (id, names) in self.0.database.list(CREATING)? {
            let made = id.parse().is_ok_and(|id: ContainerId| self.entry(&(&id).into()).is_ok());
            for name in names.unwrap_or_default().iter().filter(|_| !made) {
                if let Err(error) = self.0.volumes.remove(name, true).await {
                    tracing::warn!(volume = name, %error, "a volume of nobody's stays");
                }
            }
            let done = self.0.database.write(move |tx| {
                tx.delete(CREATING, &id);
                Ok::<_, crate::metadata::Error>(())
            });
            done.await?;
        }
        Ok(())
    }

    /// Removes what has no record.
    async fn sweep(&self) {
        let engine = self.clone();
        let swept = tokio::task::spawn_blocking(move || {
            // A record that cannot be read is still one.
            let records = engine.0.database.list(CONTAINERS)?.into_iter();
            let damaged = records.filter_map(|(id, record)| record.is_err().then_some(id));
            let damaged: HashSet<String> = damaged.collect();
            let known = |id: &ContainerId| {
                engine.entry(&id.into()).is_ok() || damaged.contains(id.as_str())
            };
            engine.snapshots().sweep(known)?;
            let containers = engine.config().root.join("containers");
            for entry in std::fs::read_dir(&containers).into_iter().flatten().flatten() {
                let id = entry.file_name().to_string_lossy().parse::<ContainerId>();
                if let Ok(id) = id
                    && !known(&id)
                {
                    engine.unshare_shm(&id);
                    paths::remove(&entry.path())?;
                }
            }
            engine.sweep_runtimes();
            engine.0.images.sweep(&|| engine.image_uses())?;
            engine.0.images.sweep_blobs()?;
            Ok::<_, Error>(())
        });
        if let Err(error) = swept.await.map_err(Error::lost).flatten() {
            tracing::error!(error = error.whole(), "cannot sweep everything");
        }
    }
}

impl Engine {
    /// Has the runtimes forget containers that have no task.
    fn sweep_runtimes(&self) {
        for name in self.config().runtimes.keys() {
            let known = std::fs::read_dir(self.runtime_root(name)).into_iter().flatten().flatten();
            for id in known.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
                if self.task_dir(&id).path().exists() {
                    continue;
                }
                let mut record = nobody(id);
                record.host_config.runtime.clone_from(name);
                if let Err(error) = self.forget_in_runtime(&record) {
                    tracing::warn!(container = %record.id, %error, "a runtime does not forget");
                }
            }
        }
    }
}

fn volumes_of(record: &Record) -> Vec<String> {
    let name = |source: &Source| match source {
        Source::Volume { name, .. } => Some(name.clone()),
        Source::Bind { .. } | Source::Image { .. } | Source::Tmpfs { .. } => None,
    };
    record.mounts.iter().filter_map(|mount| name(&mount.source)).collect()
}

/// A stand-in for a record that does not exist (any more): as much of it as taking a task away needs.
fn nobody(id: ContainerId) -> Record {
    Record {
        id,
        name: String::new(),
        created_at_nanos: 0,
        image_id: String::new(),
        top_layer: None,
        platform: String::new(),
        path: String::new(),
        args: Vec::new(),
        config: Default::default(),
        host_config: Default::default(),
        networks: Default::default(),
        mounts: Vec::new(),
        phase: Phase::Present,
        run: Default::default(),
    }
}
