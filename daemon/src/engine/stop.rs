//! `docker stop`, `kill` and `restart`. None of them waits in the container's queue: the shim has the order, and the deadline.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cleat_proto::kind::Kind;

use super::{Engine, Entry, Error, Result, StopOptions, Timeout, fault};
use crate::{
    container::{State, names::ContainerRef, signal, state::Command},
    task::{Client, cgroup},
};

/// Docker's.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a killed process may take to be gone, before its cgroup is emptied by hand.
const GRACE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container; it returns when the end is on disk.
    ///
    /// # Errors
    /// `AlreadySo` if it does not run.
    pub async fn stop(&self, reference: &ContainerRef, options: StopOptions) -> Result<()> {
        let entry = self.entry(reference)?;
        if entry.settled().await.state.decide(Command::Stop).is_err() {
            return Err(Error::new(Kind::AlreadySo, "container is already stopped"));
        }
        let (engine, name) = (self.clone(), reference.0.clone());
        let stopping = tokio::spawn(async move { engine.stop_and_tell(&entry, options).await });
        stopping.await.map_err(Error::lost)?.map_err(|error| {
            Error::with_source(Kind::Internal, format!("cannot stop container: {name}"), error)
        })
    }

    pub(super) async fn stop_and_tell(
        &self,
        entry: &Arc<Entry>,
        options: StopOptions,
    ) -> Result<()> {
        self.stop_task(entry, options).await?;
        self.publish(&entry.view(), "stop", Default::default());
        Ok(())
    }

    /// Asks the shim, and waits until the end is committed.
    pub(super) async fn stop_task(&self, entry: &Arc<Entry>, options: StopOptions) -> Result<()> {
        let view = entry.view();
        let config = &view.record.config;
        let own_signal = signal::parse(&config.stop_signal).unwrap_or(signal::TERM);
        let signal = options.signal.unwrap_or(own_signal);
        let timeout = options.timeout.unwrap_or_else(|| {
            config.stop_timeout.map_or(Timeout::After(DEFAULT_TIMEOUT), Timeout::from_seconds)
        });
        let timeout = match timeout {
            Timeout::After(time) => Some(time),
            Timeout::Never => None,
        };
        // With the daemon's own end the user's wish stands: a policy starts the container again with the daemon.
        let by_daemon = self.0.shutting_down.load(Ordering::Acquire);
        entry.change(|container| container.run.wanted &= by_daemon);
        fault::point("stop.before-signal");
        if view.state != State::Restarting {
            self.publish(&view, "kill", [("signal".to_owned(), signal.to_string())].into());
        }
        let asked = async {
            let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
            client.stop(signal, timeout, by_daemon).await
        };
        if let Err(error) = self.tell_of_force(entry, signal, timeout, asked).await
            && entry.view().state.is_running()
        {
            tracing::warn!(container = %entry.id, %error, "a shim does not stop its container");
            self.kill_by_hand(entry).await;
        }
        fault::point("stop.after-signal");
        self.until_stopped(entry).await
    }

    /// Says that the container is killed when its time is up; the shim does it.
    async fn tell_of_force<T>(
        &self,
        entry: &Entry,
        signal: i32,
        timeout: Option<Duration>,
        asked: impl Future<Output = T>,
    ) -> T {
        let Some(timeout) = timeout.filter(|_| signal != signal::KILL) else { return asked.await };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => return answer,
            () = tokio::time::sleep(timeout) => {}
        }
        let view = entry.view();
        if view.state.is_running() {
            self.publish(&view, "kill", [("signal".to_owned(), signal::KILL.to_string())].into());
        }
        asked.await
    }

    /// Waits until the end is known and committed.
    async fn until_stopped(&self, entry: &Entry) -> Result<()> {
        let mut view = entry.subscribe();
        let stopped = view.wait_for(|container| container.gone || !container.state.is_running());
        match tokio::time::timeout(GRACE, stopped).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                Kind::Internal,
                format!("container {} was killed, and is not gone", entry.id),
            )),
        }
    }

    /// Empties the cgroup and ends the shim, which does not answer. Whoever follows it records the end.
    async fn kill_by_hand(&self, entry: &Entry) {
        let (engine, record) = (self.clone(), Arc::clone(&entry.view().record));
        let killed = tokio::task::spawn_blocking(move || {
            engine.0.shims.kill(&record.id);
            cgroup::destroy(&engine.cgroup_path(&record))
        });
        if let Ok(Err(error)) = killed.await {
            tracing::error!(container = %entry.id, %error, "cannot empty a cgroup");
        }
    }

    /// Sends a signal to the first process; SIGKILL is waited for.
    ///
    /// # Errors
    /// If the container does not run.
    pub async fn kill(&self, reference: &ContainerRef, signal: i32) -> Result<()> {
        let entry = self.entry(reference)?;
        let engine = self.clone();
        entry.settled().await;
        let killing = tokio::spawn(async move { engine.kill_task(&entry, signal).await });
        killing.await.map_err(Error::lost)?
    }

    async fn kill_task(&self, entry: &Arc<Entry>, signal: i32) -> Result<()> {
        let view = entry.view();
        if view.state.decide(Command::Kill).is_err() {
            let text = format!("container {} is not running", entry.id);
            return Err(Error::new(Kind::Conflict, text));
        }
        let own = signal::parse(&view.record.config.stop_signal);
        let final_one = signal == signal::KILL || own.is_none_or(|own| own == signal);
        if final_one {
            entry.change(|container| container.run.wanted = false);
        }
        if view.state == State::Restarting {
            // There is no process; that it shall not come again is what can be done.
            return if final_one { self.stop_task(entry, NOW).await } else { Ok(()) };
        }
        self.publish(&view, "kill", [("signal".to_owned(), signal.to_string())].into());
        let asked = async {
            let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
            client.kill(signal).await?;
            if final_one && matches!(entry.view().state, State::Paused { .. }) {
                client.resume().await?;
            }
            Ok::<_, crate::task::Error>(())
        };
        match asked.await {
            Ok(()) if signal == signal::KILL => self.until_killed(entry).await,
            Ok(()) => Ok(()),
            Err(_) if !entry.view().state.is_running() => Ok(()),
            Err(error) if signal == signal::KILL => {
                tracing::warn!(container = %entry.id, %error, "a shim does not kill its container");
                self.kill_by_hand(entry).await;
                self.until_stopped(entry).await
            }
            Err(error) => {
                let text = format!("Cannot kill container {}", entry.id);
                Err(Error::with_source(error.kind(), text, error))
            }
        }
    }

    async fn until_killed(&self, entry: &Arc<Entry>) -> Result<()> {
        if self.until_stopped(entry).await.is_ok() {
            return Ok(());
        }
        self.kill_by_hand(entry).await;
        self.until_stopped(entry).await
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// If it cannot be stopped, or cannot be started.
    pub async fn restart(&self, reference: &ContainerRef, options: StopOptions) -> Result<()> {
        let entry = self.entry(reference)?;
        let (engine, name) = (self.clone(), reference.0.clone());
        let restarting = tokio::spawn(async move { engine.restart_entry(&entry, options).await });
        restarting.await.map_err(Error::lost)?.map_err(|error| {
            let text = format!("Cannot restart container {name}");
            Error::with_source(error.kind(), text, error)
        })
    }

    async fn restart_entry(&self, entry: &Arc<Entry>, options: StopOptions) -> Result<()> {
        if entry.view().state.is_running() {
            entry.set_restarting_by_hand(true);
            let stopped = self.stop_and_tell(entry, options).await;
            entry.set_restarting_by_hand(false);
            stopped?;
        }
        let (engine, started) = (self.clone(), Arc::clone(entry));
        let answer = entry.queue.run(async move { engine.start_in_turn(&started).await }).await;
        match answer {
            Err(error) if error.kind() != Kind::AlreadySo => return Err(error),
            _ => {}
        }
        self.publish(&entry.view(), "restart", Default::default());
        Ok(())
    }
}

/// At once.
pub(super) const NOW: StopOptions =
    StopOptions { signal: Some(signal::KILL), timeout: Some(Timeout::After(Duration::ZERO)) };
