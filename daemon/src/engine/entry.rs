//! One container in the engine's memory: what readers see of it, and the queue of those who change it.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cleat_proto::{id::ContainerId, shim::Attach};
use tokio::sync::watch;

use super::command_queue::CommandQueue;
use crate::container::Container;

/// How many clients may wait for one container's start.
const MAX_EARLY_CLIENTS: usize = 64;

/// A client that attached before the start.
pub(crate) struct EarlyClient {
    /// What it wants.
    pub attach: Attach,
    /// Its connection.
    pub client: OwnedFd,
}

/// One container.
pub(crate) struct Entry {
    /// Which.
    pub id: ContainerId,
    /// Its commands.
    pub queue: CommandQueue,
    /// Held while a change of the record is on its way to the disk, so that no change is lost to another.
    pub commit: tokio::sync::Mutex<()>,
    view: watch::Sender<Arc<Container>>,
    /// Read-held by a client between the answer to its attach and its joining; a start waits for it.
    pub arming: Arc<tokio::sync::RwLock<()>>,
    early: Mutex<Vec<EarlyClient>>,
    /// A task has ended, and something of it may still be on the host.
    remains: AtomicBool,
    /// `restart` stops it: the end is no reason for auto-remove.
    restarting_by_hand: AtomicBool,
}

impl Entry {
    pub fn new(container: Container) -> Self {
        Self {
            id: container.record.id.clone(),
            queue: CommandQueue::default(),
            commit: tokio::sync::Mutex::default(),
            view: watch::Sender::new(Arc::new(container)),
            early: Mutex::default(),
            arming: Arc::default(),
            remains: AtomicBool::new(false),
            restarting_by_hand: AtomicBool::new(false),
        }
    }

    /// Returns the container as it stands.
    pub fn view(&self) -> Arc<Container> {
        Arc::clone(&self.view.borrow())
    }

    /// Returns the container as it stands, once a start that is on its way is done: its process may be known to clients already.
    pub async fn settled(&self) -> Arc<Container> {
        if !self.view().state.is_running() {
            self.queue.settled().await;
        }
        self.view()
    }

    /// Returns a receiver that sees every later change (or the last of several).
    pub fn subscribe(&self) -> watch::Receiver<Arc<Container>> {
        self.view.subscribe()
    }

    /// Changes what readers see, in one step, and tells those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut Container) -> T) -> T {
        let mut answer = None;
        self.view.send_modify(|view| {
            let mut next = Container::clone(view);
            answer = Some(change(&mut next));
            *view = Arc::new(next);
        });
        answer.expect("send_modify calls its closure")
    }

    /// Keeps a client until the start; gives it back if there are too many.
    pub fn keep(&self, client: EarlyClient) -> Result<(), EarlyClient> {
        let mut early = lock(&self.early);
        early.retain(|kept| !has_hung_up(&kept.client));
        if early.len() >= MAX_EARLY_CLIENTS {
            return Err(client);
        }
        early.push(client);
        Ok(())
    }

    /// Takes the clients that wait for the start; dropping them hangs up.
    pub fn take_early(&self) -> Vec<EarlyClient> {
        std::mem::take(&mut lock(&self.early))
    }

    /// Notes that a task has ended and its remains must be taken away.
    pub fn leave_remains(&self) {
        self.remains.store(true, Ordering::Release);
    }

    /// Returns whether there were remains; from now on they are the caller's.
    pub fn take_remains(&self) -> bool {
        self.remains.swap(false, Ordering::AcqRel)
    }

    pub fn set_restarting_by_hand(&self, by_hand: bool) {
        self.restarting_by_hand.store(by_hand, Ordering::Release);
    }

    pub fn is_restarting_by_hand(&self) -> bool {
        self.restarting_by_hand.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_hung_up(client: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(client.as_fd(), PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::ZERO);
    ready.is_ok_and(|count| count > 0)
}
