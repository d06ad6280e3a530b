//! `cleat image check`: every image against its digests; with repair, what is damaged is fetched again or given up.

use std::sync::Arc;

use cleat_proto::kind::Kind;

use super::{Engine, Error, Result};
use crate::{
    image::{Checked, ImageRef, Pull, Reference},
    registry::Credentials,
};

/// What an image turned out to be, or has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong with it.
    Whole,
    /// It is damaged, and nothing has been done about it.
    Damaged,
    /// It is whole again.
    Repaired,
    /// Its record is gone.
    Dropped,
    /// It could not be repaired now, and is not listed until it is.
    Kept,
}

/// One image, looked at and perhaps repaired.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was found.
    pub checked: Checked,
    /// What it is now.
    pub outcome: Outcome,
    /// What has been done, or why nothing could be; empty if there is nothing to say.
    pub message: String,
}

/// Who asks, by registry.
pub type Logins = Arc<dyn Fn(&str) -> Credentials + Send + Sync>;

impl Engine {
    /// Verifies all images; `tell` hears of each. With logins, damaged ones are repaired.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub async fn check_images(
        &self,
        repair: Option<Logins>,
        tell: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<()> {
        let tell = Arc::new(tell);
        let (told, is_repair) = (Arc::clone(&tell), repair.is_some());
        let damaged = self.blocking(move |engine| {
            let mut damaged = Vec::new();
            engine.images().check(&mut |checked| {
                let is_whole = checked.problems.is_empty();
                let outcome = if is_whole { Outcome::Whole } else { Outcome::Damaged };
                if !is_whole && is_repair {
                    return damaged.push(checked);
                }
                told(Report { checked, outcome, message: String::new() });
            })?;
            Ok(damaged)
        });
        let damaged = damaged.await?;
        let Some(logins) = repair else { return Ok(()) };
        let mut aside = Vec::new();
        for checked in damaged {
            match self.set_image_aside(&checked).await {
                Ok(()) => aside.push(checked),
                Err(error) => {
                    let (outcome, message) = (Outcome::Damaged, error.whole());
                    tell(Report { checked, outcome, message });
                }
            }
        }
        // First those that a registry has: what they bring may be what others lack.
        aside.sort_by_key(|checked| remote(checked).is_empty());
        for checked in aside {
            let (outcome, message) = self.repair_image(&checked, &logins).await?;
            tracing::info!(image = %checked.id, ?outcome, "a damaged image was dealt with");
            tell(Report { checked, outcome, message });
        }
        Ok(())
    }

    async fn set_image_aside(&self, checked: &Checked) -> Result<()> {
        let checked = checked.clone();
        self.blocking(move |engine| {
            Ok(engine.images().set_aside(&checked, &|| engine.image_uses())?)
        })
        .await
    }

    async fn repair_image(&self, checked: &Checked, logins: &Logins) -> Result<(Outcome, String)> {
        let mut reason = "no registry is known to have it".to_owned();
        for reference in remote(checked) {
            match self.fetch_again(checked, &reference, logins).await {
                Ok(()) => {
                    let message = format!("fetched again from {}", reference.familiar());
                    return Ok((Outcome::Repaired, message));
                }
                Err(error) => reason = error.whole(),
            }
        }
        let (key, is_remote) = (checked.id.clone(), !remote(checked).is_empty());
        self.blocking(move |engine| {
            let uses = engine.image_uses();
            let user = uses.iter().find(|user| user.image == key);
            if engine.images().revive(&key).is_ok() {
                return Ok((Outcome::Repaired, "another image brought what it lacked".to_owned()));
            }
            if let Some(user) = user {
                let name = user.container.get(..12).unwrap_or(&user.container);
                return Ok((Outcome::Kept, format!("{reason}; container {name} uses it")));
            }
            if is_remote {
                return Ok((Outcome::Kept, format!("{reason}; try again, or pull it")));
            }
            engine.images().give_up(&key, &|| engine.image_uses())?;
            Ok((Outcome::Dropped, format!("{reason}: load, import or build it again")))
        })
        .await
    }

    async fn fetch_again(
        &self,
        checked: &Checked,
        reference: &Reference,
        logins: &Logins,
    ) -> Result<()> {
        let key = checked.id.clone();
        let platform = self.blocking(move |engine| Ok(engine.images().platform_of(&key))).await?;
        let credentials = logins(reference.name.domain());
        let pull =
            Pull { reference: reference.clone(), platform, all_platforms: false, credentials };
        let pulled = self.images().pull(&self.registries(), pull, Arc::new(|_| {})).await?;
        if pulled.image.id.as_str() == checked.id {
            return Ok(());
        }
        let name = reference.familiar();
        let found = &pulled.image.id;
        let message = format!("{name} is {found} now, not {}", checked.id);
        Err(Error::new(Kind::NotFound, message))
    }
}

/// The names that a registry must know by their digest.
fn remote(checked: &Checked) -> Vec<Reference> {
    let parsed = checked.references.iter().filter_map(|name| match ImageRef::parse(name) {
        Ok(ImageRef::Named(reference)) => Some(reference),
        _ => None,
    });
    parsed.filter(|reference| reference.digest.is_some()).collect()
}
