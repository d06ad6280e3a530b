//! A container's commands, one after the other, each to its end.
//!
//! A command runs in a task of its own, not in the future of whoever asked: a client that hangs up cannot leave half a
//! container. Nothing exists per container while no command is there. Kill and stop of a running container do not queue:
//! they are requests to its shim, which has an order of its own. (While a start is on its way they wait for it: a client may
//! have heard of the process before we have.)

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cleat_proto::kind::Kind;
use tokio::sync::Mutex;

use super::{Error, Result};

/// How many commands may wait for one container.
const CAPACITY: usize = 64;

/// The queue of one container.
#[derive(Debug, Default)]
pub struct CommandQueue {
    turn: Arc<Mutex<()>>,
    waiting: Arc<AtomicUsize>,
}

/// Counts a command for as long as it waits or runs.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CommandQueue {
    /// Runs `command` when its turn comes, in the order of the calls, and to its end even if the caller goes away.
    ///
    /// # Errors
    /// `Unavailable` if too many wait already; otherwise what the command returns.
    pub async fn run<T, F>(&self, command: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let place = self.place()?;
        let turn = Arc::clone(&self.turn);
        let task = tokio::spawn(async move {
            let _place = place;
            let _turn = turn.lock().await;
            command.await
        });
        match task.await {
            Ok(answer) => answer,
            Err(error) => Err(Error::with_source(
                Kind::Internal,
                "the command did not come to its end",
                error,
            )),
        }
    }

    /// Waits until every command has ended that is there now.
    pub async fn settled(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            drop(self.turn.lock().await);
        }
    }

    fn place(&self) -> Result<Place> {
        let place = Place(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= CAPACITY {
            return Err(Error::new(
                Kind::Unavailable,
                "too many commands wait for this container, try again later",
            ));
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// Begins a future, and says whether it is not done yet.
    async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn commands_run_in_turn() {
        let queue = Arc::new(CommandQueue::default());
        let (go, wait) = oneshot::channel::<()>();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (o1, o2) = (Arc::clone(&order), Arc::clone(&order));
        let first = queue.run(async move {
            let _ = wait.await;
            o1.lock().unwrap().push(1);
            Ok(())
        });
        let second = queue.run(async move {
            o2.lock().unwrap().push(2);
            Ok(())
        });
        let (a, b, _) = tokio::join!(first, second, async { go.send(()) });
        a.unwrap();
        b.unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn it_has_settled_when_the_command_has_ended() {
        let queue = CommandQueue::default();
        queue.settled().await;
        let (go, wait) = oneshot::channel::<()>();
        let mut asked = Box::pin(queue.run(async move {
            let _ = wait.await;
            Ok(())
        }));
        assert!(is_pending(&mut asked).await);
        tokio::task::yield_now().await;
        let mut settled = Box::pin(queue.settled());
        assert!(is_pending(&mut settled).await);
        go.send(()).unwrap();
        asked.await.unwrap();
        settled.await;
    }

    #[tokio::test]
    async fn a_command_ends_though_nobody_waits_for_it() {
        let queue = CommandQueue::default();
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        {
            let mut asked = Box::pin(queue.run(async move {
                let _ = wait.await;
                let _ = done.send(());
                Ok(())
            }));
            assert!(is_pending(&mut asked).await);
        }
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_says_so() {
        let queue = CommandQueue::default();
        let mut waiting = Vec::new();
        for _ in 0..CAPACITY {
            let mut command = Box::pin(queue.run(std::future::pending::<Result<()>>()));
            assert!(is_pending(&mut command).await);
            waiting.push(command);
        }
        let error = queue.run(async { Ok(()) }).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}
