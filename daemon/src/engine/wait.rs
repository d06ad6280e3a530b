//! Waiting for a container's end. A wait counts from the moment it is armed: nothing that happens after that is missed.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Engine, Result, WaitCondition, WaitOutcome};
use crate::container::{Container, names::ContainerRef};

/// A wait that is armed: whatever happens from now on counts.
pub struct Waiting {
    view: watch::Receiver<Arc<Container>>,
    condition: WaitCondition,
    /// How many exits there were when the wait began.
    exits: u64,
}

impl Waiting {
    /// Waits for the end.
    pub async fn outcome(mut self) -> WaitOutcome {
        let (condition, exits) = (self.condition, self.exits);
        let over = |container: &Arc<Container>| is_over(container, condition, exits);
        // An error is that the entry has gone, and with it the container: the last that was seen stands.
        let _ = self.view.wait_for(over).await;
        outcome_of(&self.view.borrow())
    }
}

fn is_over(container: &Container, condition: WaitCondition, exits: u64) -> bool {
    if container.gone {
        return true;
    }
    match condition {
        WaitCondition::NotRunning => !container.state.is_running() || container.exits > exits,
        WaitCondition::NextExit => container.exits > exits,
        WaitCondition::Removed => false,
    }
}

fn outcome_of(container: &Container) -> WaitOutcome {
    // What went wrong with a container that is gone was told to whoever started it; that it is gone is no error.
    let error = &container.run.error;
    let error = Some(error.clone()).filter(|error| !error.is_empty() && !container.gone);
    WaitOutcome { status: container.run.exit_code, error }
}

impl Engine {
    /// Arms a wait: the response head may be sent as soon as this returns.
    ///
    /// # Errors
    /// If there is no such container.
    pub fn wait(&self, reference: &ContainerRef, condition: WaitCondition) -> Result<Waiting> {
        let view = self.entry(reference)?.subscribe();
        let exits = view.borrow().exits;
        Ok(Waiting { view, condition, exits })
    }
}
