//! What registries are asked: pull, push, login, search, and what a name stands for there.

use std::{collections::BTreeMap, sync::Arc};

use cleat_proto::{digest::Digest, kind};

use super::{Engine, Error, Result};
use crate::{
    archive::chunks::Received,
    event::{Event, Kind},
    image::{
        Image, ImageConfig, Import, Pull, PullStep, Pulled, PushStep, Reference, pull,
        reference::is_tag,
    },
    registry::{
        Credentials, Purpose, SearchResult,
        manifest::{self, Document, Platform},
    },
};

/// What a name stands for in its registry.
pub struct RemoteImage {
    /// Of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// What machines it is for.
    pub platforms: Vec<Platform>,
}

impl Engine {
    /// Pulls an image, or all tags of a repository if the reference has neither tag nor digest; `tell` hears of each step, with
    /// the reference that it is about. Returns whether anything is new.
    ///
    /// # Errors
    /// What the registry says, or what is wrong with what it sends.
    pub async fn pull_image(
        &self,
        request: Pull,
        tell: impl Fn(&Reference, PullStep) + Send + Sync + 'static,
    ) -> Result<bool> {
        let tell = Arc::new(tell);
        let whole = request.reference.clone();
        let tags = if whole.tag.is_none() && whole.digest.is_none() {
            self.remote_tags(&request).await?
        } else {
            vec![whole.clone()]
        };
        let mut any: Option<Pulled> = None;
        for reference in tags {
            let pull = Pull { reference: reference.clone(), ..request.clone() };
            let tell = Arc::clone(&tell);
            let told = Arc::new(move |step| tell(&reference, step));
            let pulled = self.images().pull(&self.registries(), pull, told).await?;
            let newer = pulled.newer || any.as_ref().is_some_and(|before| before.newer);
            any = Some(Pulled { newer, ..pulled });
        }
        let Some(pulled) = any else { return Ok(false) };
        // Of a whole repository dockerd looks for the labels of `latest`.
        let labelled = match whole.tag.is_some() || whole.digest.is_some() {
            true => Some(pulled.image),
            false => self.images().resolve(&whole.clone().or_latest().familiar()).ok(),
        };
        self.publish_transfer("pull", &whole, labelled.as_deref());
        Ok(pulled.newer)
    }

    async fn remote_tags(&self, request: &Pull) -> Result<Vec<Reference>> {
        let name = &request.reference.name;
        let refused = |error| Error::from(pull::refused(error, &request.reference));
        let credentials = request.credentials.clone();
        let registries = self.registries();
        let session = registries.session(name.domain(), name.path(), credentials, Purpose::Pull);
        let tags = session.await.map_err(refused)?.tags().await.map_err(refused)?;
        let one = |tag| Reference { tag: Some(tag), ..request.reference.clone() };
        Ok(tags.into_iter().filter(|tag| is_tag(tag)).map(one).collect())
    }

    /// Pushes an image, or all tags of its repository if the reference has none; without a platform all platforms of it, if they are
    /// here.
    ///
    /// # Errors
    /// If there is no such tag, and what the registry says.
    pub async fn push_image(
        &self,
        reference: Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        tell: impl Fn(PushStep) + Send + Sync + 'static,
    ) -> Result<()> {
        let images = self.local_tags(&reference);
        if images.is_empty() {
            let all = self.local_tags(&Reference { tag: None, ..reference.clone() });
            let why = match all.is_empty() {
                false => format!("tag does not exist: {}", reference.familiar()),
                true => {
                    let name = reference.name.familiar();
                    format!("An image does not exist locally with the tag: {name}")
                }
            };
            return Err(Error::new(kind::Kind::NotFound, why));
        }
        let (domain, path) = (reference.name.domain(), reference.name.path());
        let registries = self.registries();
        let session = registries.session(domain, path, credentials, Purpose::Push);
        let session = session.await.map_err(crate::image::Error::from)?;
        let tell: crate::image::push::Tell = Arc::new(tell);
        for (reference, image) in &images {
            let images = self.images();
            let (image, index) = match &platform {
                Some(wanted) => (images.resolve_for(&reference.to_string(), Some(wanted))?, None),
                None => images.pushed(reference, image)?,
            };
            match index {
                Some(index) => {
                    images.push_index(&session, &index, &image, reference, &tell).await?;
                }
                None => images.push(&session, &image, reference, &tell).await?,
            }
        }
        let image = images.last().map(|(_, image)| image.as_ref());
        self.publish_transfer("push", &reference, image);
        Ok(())
    }

    /// Refuses to push what is not here for a platform.
    ///
    /// # Errors
    /// If it is, or if there is no such image.
    pub fn check_push_platform(&self, reference: &Reference, wanted: &Platform) -> Result<()> {
        let name = reference.familiar();
        let images = self.local_tags(reference);
        if images.is_empty() {
            return Err(Error::new(kind::Kind::NotFound, format!("No such image: {name}")));
        }
        Ok(images.iter().try_for_each(|(reference, _)| {
            self.images().resolve_for(&reference.to_string(), Some(wanted)).map(drop)
        })?)
    }

    fn local_tags(&self, wanted: &Reference) -> Vec<(Reference, Arc<Image>)> {
        let mut found: Vec<(Reference, Arc<Image>)> = Vec::new();
        for image in self.images().list() {
            let mine = image.references.iter().filter(|reference| {
                reference.name == wanted.name
                    && reference.tag.is_some()
                    && (wanted.tag.is_none() || reference.tag == wanted.tag)
            });
            found.extend(mine.map(|reference| (reference.clone(), Arc::clone(&image))));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    fn publish_transfer(&self, action: &str, reference: &Reference, image: Option<&Image>) {
        let labels = image.and_then(|image| image.config.labels.clone());
        let mut attributes: BTreeMap<String, String> = labels.unwrap_or_default();
        attributes.insert("name".into(), reference.name.familiar());
        self.events().publish(Event::now(Kind::Image, action, reference.familiar(), attributes));
    }

    /// Tries credentials; returns a refresh token if the registry gives one.
    ///
    /// # Errors
    /// If the registry does not take them.
    pub async fn log_in(&self, domain: &str, credentials: Credentials) -> Result<String> {
        Ok(self.registries().log_in(domain, credentials).await?)
    }

    /// Asks an index for repositories.
    ///
    /// # Errors
    /// If there is no such index.
    pub async fn search_images(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
    ) -> Result<Vec<SearchResult>> {
        Ok(self.registries().search(domain, term, limit).await?)
    }

    /// Returns what a name stands for in its registry, without pulling it.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn remote_image(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<RemoteImage> {
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        };
        let (domain, path) = (reference.name.domain(), reference.name.path());
        let (session, found) = self.registries().find(domain, path, credentials, &name).await?;
        let platforms = match manifest::parse(&found.bytes, &found.media_type)? {
            Document::Index(entries) => {
                entries.into_iter().filter_map(|entry| entry.platform).collect()
            }
            Document::Manifest(manifest) => {
                let bytes = session.config(&manifest.config).await?;
                let config = ImageConfig::parse(&bytes)?;
                vec![Platform {
                    architecture: config.architecture,
                    os: config.os,
                    os_version: config.os_version,
                    variant: config.variant,
                }]
            }
        };
        let size = found.bytes.len() as u64;
        Ok(RemoteImage { media_type: found.media_type, digest: found.digest, size, platforms })
    }

    /// Makes an image of a tar that is somewhere on the web; `tell` hears how much has come, first of nothing, and of how much.
    ///
    /// # Errors
    /// If it cannot be fetched, and those of an import.
    pub async fn import_url(
        &self,
        url: &str,
        import: Import,
        tell: impl Fn(u64, Option<u64>) + Send + Sync,
    ) -> Result<Arc<Image>> {
        let mut body = self.registries().get(url).await?;
        let (length, mut current) = (body.length(), 0);
        tell(current, length);
        let (sender, received) = Received::channel();
        let feeding = async move {
            loop {
                let next = match body.next().await {
                    Ok(Some(bytes)) => {
                        current += bytes.len() as u64;
                        tell(current, length);
                        Ok(bytes)
                    }
                    Ok(None) => return,
                    Err(error) => Err(std::io::Error::other(kind::whole(&error))),
                };
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    return;
                }
            }
        };
        let (image, ()) = tokio::join!(self.import_image(received, import), feeding);
        image
    }
}
