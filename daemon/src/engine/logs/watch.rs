//! Waking those who follow a log when its directory changes: one inotify instance for the whole daemon, since a user may only
//! have 128 of them (`inotify(7)`, max_user_instances).

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::{io::unix::AsyncFd, sync::watch};

use crate::engine::Engine;

/// All watches. Made with the first one.
#[derive(Default)]
pub struct Watches(Mutex<Option<Arc<Hub>>>);

struct Hub {
    inotify: Fd,
    watched: Mutex<HashMap<WatchDescriptor, Weak<Directory>>>,
}

/// One directory, and whoever waits for it.
struct Directory {
    descriptor: WatchDescriptor,
    hub: Weak<Hub>,
    changes: watch::Sender<()>,
}

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// One who waits. The watch ends with the last of them.
pub struct Watched {
    changes: watch::Receiver<()>,
    _directory: Arc<Directory>,
}

impl Watched {
    /// Waits for a change since the last call, or since the watch began.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The directory keeps its sender, so this does not happen; waiting is then the caller's other branch's business.
            std::future::pending::<()>().await;
        }
    }
}

impl Engine {
    /// Watches a container's directory.
    ///
    /// # Errors
    /// If the directory is gone, or the limit on watches is reached.
    pub(super) fn watch_logs(&self, directory: &Path) -> io::Result<Watched> {
        let hub = {
            let mut hub = lock(&self.0.log_watches.0);
            match &*hub {
                Some(hub) => Arc::clone(hub),
                None => Arc::clone(hub.insert(Hub::start()?)),
            }
        };
        hub.watch(directory)
    }
}

impl Hub {
    fn start() -> io::Result<Arc<Self>> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let hub = Arc::new(Self { inotify: Fd(inotify), watched: Mutex::default() });
        // Deprecated since a type may change its descriptor; an `OwnedFd` does not, and we write no `unsafe` here.
        #[allow(deprecated)]
        let events = AsyncFd::new(hub.inotify.0.as_fd().try_clone_to_owned()?)?;
        let weak = Arc::downgrade(&hub);
        tokio::spawn(async move {
            loop {
                let Ok(mut ready) = events.readable().await else { return };
                let Some(hub) = weak.upgrade() else { return };
                ready.clear_ready();
                hub.wake();
            }
        });
        Ok(hub)
    }

    /// Reads what happened until there is nothing more.
    fn wake(&self) {
        while let Ok(events) = self.inotify.0.read_events() {
            // Told without the lock: ours may be the last reference, and its end takes the lock too.
            let directories: Vec<Arc<Directory>> = {
                let watched = lock(&self.watched);
                events.iter().filter_map(|event| watched.get(&event.wd)?.upgrade()).collect()
            };
            for directory in directories {
                directory.changes.send_replace(());
            }
        }
    }

    fn watch(self: &Arc<Self>, path: &Path) -> io::Result<Watched> {
        let mut watched = lock(&self.watched);
        let changes =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        // The same directory gets the same descriptor again.
        let descriptor = self.inotify.0.add_watch(path, changes)?;
        let known = watched.get(&descriptor).and_then(Weak::upgrade);
        let directory = known.unwrap_or_else(|| {
            let directory = Arc::new(Directory {
                descriptor,
                hub: Arc::downgrade(self),
                changes: watch::Sender::new(()),
            });
            watched.insert(descriptor, Arc::downgrade(&directory));
            directory
        });
        Ok(Watched { changes: directory.changes.subscribe(), _directory: directory })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut watched = lock(&hub.watched);
        // Somebody may have begun to watch it anew in the meantime.
        if watched.get(&self.descriptor).is_some_and(|directory| directory.strong_count() == 0) {
            watched.remove(&self.descriptor);
            // An error means that the directory is gone, and the watch with it.
            let _ = hub.inotify.0.rm_watch(self.descriptor);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
