//! Images that go by themselves, where `daemon.json` says so: at the start of the daemon, after a reload, and every few minutes.

use std::time::Duration;

use super::{Engine, Result};
use crate::{
    event::now_nanos,
    gc::{Policy, Reason},
    image::{Collected, Reference},
};

const EVERY: Duration = Duration::from_secs(300);

impl Engine {
    /// Removes what the policy wants gone, again and again. Ends with the daemon.
    pub async fn collect_images(self) {
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.0.collect.notified() => {}
            }
            let policy = self.config().image_gc;
            if policy == Policy::default() {
                continue;
            }
            if let Err(error) = self.collect_images_once(policy).await {
                tracing::warn!(error = error.whole(), "unused images could not be removed");
            }
        }
    }

    async fn collect_images_once(&self, policy: Policy) -> Result<()> {
        self.blocking(move |engine| {
            let uses = || engine.image_uses();
            let mut tell = |collected: Collected| engine.tell_collected(&collected);
            Ok(engine.images().collect(policy, now_nanos(), &uses, &mut tell)?)
        })
        .await
    }

    fn tell_collected(&self, collected: &Collected) {
        let reason = match collected.reason {
            Reason::Old(age) => format!("not used for {} days", age.as_secs() / 86400),
            Reason::Full(percent) => format!("{percent}% of the disk are taken"),
        };
        let image = &collected.image;
        let names: Vec<String> = image.references.iter().map(Reference::familiar).collect();
        tracing::info!(
            image = %image.id,
            names = names.join(" "),
            reason,
            "an image that nobody uses was removed"
        );
        self.publish_removed(std::slice::from_ref(image), &collected.removed, false);
    }
}
