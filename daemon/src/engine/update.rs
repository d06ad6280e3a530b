//! `docker update`: limits and the restart policy, of a container that runs or not.

use std::sync::Arc;

use cleat_proto::{docker::container::HostConfig, kind::Kind};

use super::{
    Engine, Entry, Error, Result, UpdateRequest, discard::discard, start::restart_orders, validate,
};
use crate::{
    container::{
        State,
        names::ContainerRef,
        state::{Command, Refusal},
    },
    task::Client,
};

impl Engine {
    /// Changes resources and the restart policy; returns warnings.
    ///
    /// # Errors
    /// If a value makes no sense beside the ones that stay, or the kernel refuses it.
    pub async fn update(
        &self,
        reference: &ContainerRef,
        request: UpdateRequest,
    ) -> Result<Vec<String>> {
        let entry = self.entry(reference)?;
        let (engine, updated) = (self.clone(), Arc::clone(&entry));
        entry.queue.run(async move { engine.update_in_turn(&updated, request).await }).await
    }

    async fn update_in_turn(
        &self,
        entry: &Arc<Entry>,
        request: UpdateRequest,
    ) -> Result<Vec<String>> {
        let cannot = |error: Error| {
            let text = format!("Cannot update container {}", entry.id);
            Error::with_source(error.kind(), text, error)
        };
        let view = entry.view();
        if view.state.decide(Command::Start) == Err(Refusal::BeingRemoved) {
            let text = "container is marked for removal and cannot be \"update\"";
            return Err(cannot(Error::new(Kind::Internal, text)));
        }
        let before = view.record.host_config.clone();
        validate::check_restart_policy(&request.restart_policy, false)?;
        let mut request = request;
        let warnings = discard(&mut request.resources, self.0.host.limits);
        crate::spec::check_resources(&request.resources, true)?;
        let mut after = before.clone();
        merge(&mut after, &request).map_err(cannot)?;
        crate::spec::check_resources(&after, true)?;
        let stored = after.clone();
        self.commit(entry, |record| record.host_config = stored).await.map_err(cannot)?;
        if let Err(error) = self.apply(entry, &before, &after).await {
            self.commit(entry, |record| record.host_config = before).await?;
            return Err(cannot(error));
        }
        self.publish(&entry.view(), "update", Default::default());
        Ok(warnings)
    }

    /// Tells a shim, if there is one.
    async fn apply(
        &self,
        entry: &Arc<Entry>,
        before: &HostConfig,
        after: &HostConfig,
    ) -> Result<()> {
        let state = entry.view().state;
        if !state.is_running() {
            return Ok(());
        }
        let mut client = Client::connect(&self.task_dir(&entry.id)).await?;
        if before.restart_policy != after.restart_policy {
            client.set_restart_policy(restart_orders(&after.restart_policy)).await?;
        }
        if state == State::Restarting {
            // No process: the next start reads the bundle, and the record is right for the start after that.
            return Ok(());
        }
        let mut resources = crate::spec::resources(after)?;
        // The device rules do not change.
        resources.set_devices(None);
        let resources = serde_json::to_vec(&resources)
            .map_err(|error| Error::with_source(Kind::Internal, "cannot render limits", error))?;
        Ok(client.update(resources).await?)
    }
}

/// Puts what was asked for over what is there; zero leaves a value as it is.
///
/// # Errors
/// Combinations that Docker refuses, in its words.
fn merge(host: &mut HostConfig, request: &UpdateRequest) -> Result<()> {
    let new = &request.resources;
    let conflict = |text: &str| Err(Error::new(Kind::Conflict, text));
    if new.nano_cpus > 0 && host.cpu_period > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if new.nano_cpus > 0 && host.cpu_quota > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if new.cpu_period > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if new.cpu_quota > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if new.memory != 0
        && new.memory > host.memory_swap
        && new.memory_swap == 0
        && host.memory_swap >= 0
    {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    if !request.restart_policy.name.is_empty() {
        if host.auto_remove && request.restart_policy.name != "no" {
            return conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            );
        }
        host.restart_policy = request.restart_policy.clone();
    }
    let set = |old: &mut i64, new: i64| {
        if new != 0 {
            *old = new;
        }
    };
    set(&mut host.cpu_shares, new.cpu_shares);
    set(&mut host.nano_cpus, new.nano_cpus);
    set(&mut host.cpu_period, new.cpu_period);
    set(&mut host.cpu_quota, new.cpu_quota);
    set(&mut host.cpu_realtime_period, new.cpu_realtime_period);
    set(&mut host.cpu_realtime_runtime, new.cpu_realtime_runtime);
    set(&mut host.memory, new.memory);
    set(&mut host.memory_swap, new.memory_swap);
    set(&mut host.memory_reservation, new.memory_reservation);
    set(&mut host.kernel_memory, new.kernel_memory);
    if new.blkio_weight != 0 {
        host.blkio_weight = new.blkio_weight;
    }
    if !new.cpuset_cpus.is_empty() {
        host.cpuset_cpus.clone_from(&new.cpuset_cpus);
    }
    if !new.cpuset_mems.is_empty() {
        host.cpuset_mems.clone_from(&new.cpuset_mems);
    }
    if new.pids_limit.is_some() {
        host.pids_limit = new.pids_limit;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(resources: HostConfig) -> UpdateRequest {
        UpdateRequest { resources, ..UpdateRequest::default() }
    }

    #[test]
    fn what_is_zero_stays() {
        let mut host = HostConfig { memory: 5, cpu_shares: 7, ..HostConfig::default() };
        merge(&mut host, &request(HostConfig { cpu_shares: 9, ..HostConfig::default() })).unwrap();
        assert_eq!((host.memory, host.cpu_shares), (5, 9));
    }

    #[test]
    fn memory_does_not_outgrow_swap() {
        let mut host = HostConfig { memory: 5, memory_swap: 10, ..HostConfig::default() };
        let new = request(HostConfig { memory: 11, ..HostConfig::default() });
        assert_eq!(merge(&mut host, &new).unwrap_err().kind(), Kind::Conflict);
    }

    #[test]
    fn what_removes_itself_gets_no_restart_policy() {
        let mut host = HostConfig { auto_remove: true, ..HostConfig::default() };
        let mut new = UpdateRequest::default();
        new.restart_policy.name = "always".into();
        assert!(merge(&mut host, &new).is_err());
    }
}
