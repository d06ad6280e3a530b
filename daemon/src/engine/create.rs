//! `docker create`: validate, find the image, one commit; then the directories, whose names derive from the id.

use std::{collections::BTreeMap, sync::Arc};

use cleat_proto::{docker::container::EndpointSettings, id::ContainerId, kind::Kind};

use super::{
    CONTAINERS, CREATING, CreateRequest, Created, Engine, Entry, Error, Result, defaults, fault,
    paths, validate,
};
use crate::{
    container::{Container, Phase, Record, Run, State, mount_point, names::ContainerRef},
    event::now_nanos,
    image::{Image, Images},
    metadata, network,
    registry::manifest,
};

impl Engine {
    /// Makes a container.
    ///
    /// # Errors
    /// `No such image: …` (clients pull then), a name in use, or what makes no sense in the request.
    pub async fn create(&self, request: CreateRequest) -> Result<Created> {
        // Not in the caller's future: a client that hangs up leaves no half container.
        let engine = self.clone();
        let made = tokio::spawn(async move { engine.create_to_the_end(request).await });
        made.await.map_err(Error::lost)?
    }

    async fn create_to_the_end(&self, mut request: CreateRequest) -> Result<Created> {
        self.fill(&mut request);
        let (config, host) = (&request.config, &mut request.host_config);
        let kernel = self.0.host.limits;
        let mut warnings = validate::check(config, host, &self.config(), kernel)?;
        let image = self.image_for(&request)?;
        let _lease = image.as_deref().map(|image| self.0.images.lease(image)).transpose()?;
        if request.host_config.mounts.iter().flatten().any(|mount| mount.kind == "image") {
            warnings.push("Image mount is an experimental feature".to_owned());
        }
        warnings.extend(platform_warning(&request, image.as_deref()));
        if let Some(image) = &image {
            defaults::merge_image(&mut request.config, &image.config);
        }
        let (path, args) = command_of(&mut request)?;
        let networks = self.networks_for(&request)?;
        self.pin_namespaces(&mut request)?;

        let id = ContainerId::from_bytes(random());
        let name = self.reserve_name(request.name.as_deref(), &id)?;
        let record = Record {
            id: id.clone(),
            name: name.clone(),
            created_at_nanos: now_nanos(),
            image_id: image.as_ref().map(|image| image.id.to_string()).unwrap_or_default(),
            top_layer: image.as_ref().and_then(|i| Some(i.top_layer()?.to_string())),
            platform: image.as_ref().map_or_else(|| "linux".to_owned(), |image| image.os.clone()),
            path,
            args,
            config: request.config,
            host_config: request.host_config,
            networks,
            mounts: Vec::new(),
            phase: Phase::Present,
            run: Run::default(),
        };
        let made = self.make(record).await;
        if made.is_err() {
            self.index().names.release(&name, &id);
            self.0.volumes.release(&id);
        }
        made?;
        Ok(Created { id, warnings })
    }

    fn fill(&self, request: &mut CreateRequest) {
        let config = self.config();
        let known = defaults::Defaults {
            runtime: &config.default_runtime,
            log_driver: &config.log_driver,
            log_opts: &config.log_opts,
            shm_size_bytes: config.shm_size_bytes,
            ulimits: &config.ulimits,
            unified_cgroups: self.0.host.unified_cgroups,
        };
        defaults::fill_host_config(&mut request.host_config, &known);
    }

    fn image_for(&self, request: &CreateRequest) -> Result<Option<Arc<Image>>> {
        if request.config.image.is_empty() {
            return Ok(None);
        }
        // An image of another platform is none: the client pulls the right one.
        Ok(Some(self.0.images.resolve_for(&request.config.image, request.platform.as_ref())?))
    }

    /// Which networks the container joins, by name.
    fn networks_for(&self, request: &CreateRequest) -> Result<BTreeMap<String, EndpointSettings>> {
        let mode = request.host_config.network_mode.as_str();
        let asked = request.networking.endpoints_config.clone().unwrap_or_default();
        if mode.starts_with("container:") {
            return Ok(BTreeMap::new());
        }
        // Whether there is such a network is asked at start, as Docker does.
        let mut networks = BTreeMap::new();
        for (name, endpoint) in asked {
            let name = if name == "default" { "bridge".to_owned() } else { name };
            let endpoint = endpoint.ok_or_else(|| {
                let text = format!("invalid config for network {name}: EndpointsConfig is nil");
                Error::new(Kind::InvalidArgument, text)
            })?;
            networks.insert(name, endpoint);
        }
        networks.entry(mode.to_owned()).or_default();
        network::check_endpoints(&networks, &request.config.mac_address)?;
        Ok(networks)
    }

    /// Turns `container:<name>` into `container:<id>`: names change.
    fn pin_namespaces(&self, request: &mut CreateRequest) -> Result<()> {
        let host = &mut request.host_config;
        let find = |mode: &str| {
            let other = mode.strip_prefix("container:").filter(|other| !other.is_empty())?;
            let found = self.container(&ContainerRef(other.to_owned()));
            Some(found.map(|other| format!("container:{}", other.record.id)))
        };
        for mode in [&mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(found) = find(mode) {
                *mode = found.map_err(|error| Error::new(Kind::InvalidArgument, error.whole()))?;
            }
        }
        // Whether there is such a container is asked at start, as Docker does.
        if let Some(Ok(found)) = find(&host.network_mode) {
            host.network_mode = found;
        }
        Ok(())
    }

    fn reserve_name(&self, typed: Option<&str>, id: &ContainerId) -> Result<String> {
        let mut index = self.index();
        match typed.filter(|typed| !typed.is_empty()) {
            Some(typed) => Ok(index.names.reserve(typed, id)?),
            None => Ok(index.names.generate(id, || u32::from_ne_bytes(random()))),
        }
    }

    /// The commit, and what follows from it.
    async fn make(&self, mut record: Record) -> Result<()> {
        let id = record.id.clone();
        if record.config.hostname.is_empty() && !joins_network(&record) {
            record.config.hostname = match record.host_config.network_mode.as_str() {
                "host" => host_name(),
                _ => id.short().to_owned(),
            };
        }
        // Until the record says that these images are used.
        let (plan, _leases) = self.plan_mounts(&record)?;
        record.mounts = plan.mounts;
        fault::point("create.before-volumes");
        let noted = !plan.volumes.is_empty();
        self.acquire(&id, plan.volumes).await?;
        fault::point("create.before-commit");
        let record = Arc::new(record);
        let stored = Arc::clone(&record);
        let committed = self.0.database.write(move |tx| {
            tx.put(CONTAINERS, stored.id.as_str(), &stored)?;
            note_image_uses(tx, &stored)?;
            if noted {
                tx.delete(CREATING, stored.id.as_str());
            }
            Ok::<_, metadata::Error>(())
        });
        committed.await?;
        fault::point("create.after-commit");
        let run = record.run.clone();
        let container = Container {
            record: Arc::clone(&record),
            state: State::Created,
            run,
            exec_ids: Vec::new(),
            exits: 0,
            gone: false,
        };
        let entry = Arc::new(Entry::new(container));
        let engine = self.clone();
        let prepared = tokio::task::spawn_blocking(move || engine.prepare(&record))
            .await
            .map_err(Error::lost)
            .flatten();
        if let Err(error) = prepared {
            self.remove_whole(&entry, true).await?;
            return Err(error);
        }
        fault::point("create.after-snapshot");
        self.publish(&entry.view(), "create", Default::default());
        self.index().add(entry);
        Ok(())
    }

    /// Makes the volumes that are not there, after a note that they are for a container to come.
    async fn acquire(&self, id: &ContainerId, wanted: Vec<crate::volume::New>) -> Result<()> {
        let missing = |volume: &&crate::volume::New| self.0.volumes.get(&volume.name).is_err();
        let new: Vec<String> = wanted.iter().filter(missing).map(|v| v.name.clone()).collect();
        if !new.is_empty() {
            let key = id.clone();
            let noted = self.0.database.write(move |tx| tx.put(CREATING, key.as_str(), &new));
            noted.await.map_err(|error: metadata::Error| error)?;
        }
        match self.0.volumes.acquire(id, wanted).await {
            Ok(new) => {
                new.iter().for_each(|volume| self.publish_volume(volume, "create"));
                Ok(())
            }
            Err(error) => {
                // Nothing was made; a volume that gets such a name later is not ours to remove.
                let key = id.clone();
                let done = self.0.database.write(move |tx| {
                    tx.delete(CREATING, key.as_str());
                    Ok::<_, metadata::Error>(())
                });
                done.await?;
                Err(error.into())
            }
        }
    }

    fn plan_mounts(
        &self,
        record: &Record,
    ) -> Result<(mount_point::Plan, Vec<crate::snapshot::Lease>)> {
        let config = self.config();
        let leases = std::cell::RefCell::new(Vec::new());
        let host = mount_point::Host {
            mounts_of: &|reference| {
                let other = self.container(&ContainerRef(reference.to_owned())).ok()?;
                Some(other.record.mounts.clone())
            },
            exists: &|path| path.exists(),
            image: &|name| {
                let image = self.images().resolve(name).map_err(|error| match error {
                    crate::image::Error::NotFound(_) => {
                        mount_point::Error::NoSuchImage(error.to_string())
                    }
                    other => mount_point::Error::Invalid(other.to_string()),
                })?;
                let lease = self.images().lease(&image);
                let lease =
                    lease.map_err(|error| mount_point::Error::NoSuchImage(error.to_string()))?;
                leases.borrow_mut().extend(lease);
                Ok((image.id.to_string(), image.top_layer().map(ToString::to_string)))
            },
            volume_driver: &|name| Some(self.0.volumes.get(name).ok()?.driver),
            new_name: &|| ContainerId::from_bytes(random()).into(),
            data_root: &config.root,
        };
        let plan = mount_point::plan(&record.config, &record.host_config, &host)?;
        Ok((plan, leases.into_inner()))
    }

    /// Makes the directories of a container whose record is there. Idempotent: recovery does it again.
    pub(super) fn prepare(&self, record: &Record) -> Result<()> {
        let top = top_layer(record)?;
        paths::make_private(&self.container_dir(&record.id))?;
        self.snapshots().prepare(&record.id, top.as_ref())?;
        // What an earlier run emptied stays empty.
        if record.run.started_at_nanos == 0 { self.fill_volumes(record) } else { Ok(()) }
    }
}

/// Notes that the images of a container are used now: that it was made of, and those that it mounts.
pub(super) fn note_image_uses(
    tx: &mut metadata::Transaction,
    record: &Record,
) -> Result<(), metadata::Error> {
    let mounted = record.mounts.iter().filter_map(|mount| match &mount.source {
        mount_point::Source::Image { id, .. } => Some(id),
        _ => None,
    });
    let mut images = mounted.chain([&record.image_id]).filter(|id| !id.is_empty());
    images.try_for_each(|id| Images::note_use(tx, id))
}

/// Reads the chain id of a record's topmost layer.
pub(super) fn top_layer(record: &Record) -> Result<Option<cleat_proto::digest::ChainId>> {
    let parse = |text: &String| text.parse::<cleat_proto::digest::ChainId>();
    record.top_layer.as_ref().map(parse).transpose().map_err(|error| {
        let text = format!("the record of container {} is damaged", record.id);
        Error::with_source(Kind::Internal, text, error)
    })
}

fn joins_network(record: &Record) -> bool {
    record.host_config.network_mode.starts_with("container:")
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Puts entrypoint and command together.
fn command_of(request: &mut CreateRequest) -> Result<(String, Vec<String>)> {
    let config = &mut request.config;
    if config.entrypoint.as_ref().is_some_and(|words| words.0 == [""]) {
        config.entrypoint = None;
    }
    defaults::command(config)
        .ok_or_else(|| Error::new(Kind::InvalidArgument, "no command specified"))
}

/// Source: Engine API, ContainerCreate: `Warnings`.
fn platform_warning(request: &CreateRequest, image: Option<&Image>) -> Option<String> {
    let has = image?.platform();
    let host = crate::image::machine();
    let is_other =
        request.platform.is_none() && !has.architecture.is_empty() && !manifest::runs(&has, &host);
    is_other.then(|| {
        format!(
            "The requested image's platform ({has}) does not match the detected host platform ({host}) and no specific platform was requested"
        )
    })
}

/// Returns random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes");
    bytes
}
