//! Limits that this kernel cannot hold: they are discarded, and the client is told. Pure but for [`Kernel::look`].
//!
//! Texts and order are dockerd's: its checks of a container's resources, as observed with 28.5.

use std::path::Path;

use cleat_proto::docker::container::HostConfig;

/// Where the controllers of cgroup v1 are.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What the kernel can limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// A weight of a cgroup's I/O.
    pub io_weight: bool,
    /// The same by device.
    pub io_weight_device: bool,
    /// A limit on the kernel's own memory: gone with cgroup v2.
    pub kernel_memory: bool,
    /// A cgroup that is out of memory can be made to wait: gone with cgroup v2.
    pub oom_kill_disable: bool,
}

impl Kernel {
    /// Looks at the files of the controllers.
    pub fn look(unified: bool) -> Self {
        let has = |file: &str| Path::new(CGROUP_ROOT).join(file).exists();
        Self {
            io_weight: unified || has("blkio/blkio.weight"),
            io_weight_device: unified || has("blkio/blkio.weight_device"),
            kernel_memory: !unified && has("memory/memory.kmem.limit_in_bytes"),
            oom_kill_disable: !unified && has("memory/memory.oom_control"),
        }
    }
}

/// Takes out what cannot be had; returns what to tell the client.
pub(super) fn discard(host: &mut HostConfig, kernel: Kernel) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if host.kernel_memory > 0 && !kernel.kernel_memory {
        warn(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        host.kernel_memory = 0;
    }
    if let Some(disabled) = host.oom_kill_disable.filter(|_| !kernel.oom_kill_disable) {
        if disabled {
            warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
        host.oom_kill_disable = None;
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        );
    }
    if host.cpu_percent > 0 {
        warn("linux does not support CPU percent. Percent discarded.");
        host.cpu_percent = 0;
    }
    if host.blkio_weight > 0 && !kernel.io_weight {
        warn(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        );
        host.blkio_weight = 0;
    }
    let by_device = host.blkio_weight_device.as_mut().filter(|list| !list.is_empty());
    if let Some(list) = by_device.filter(|_| !kernel.io_weight_device) {
        warn(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        );
        list.clear();
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Kernel = Kernel {
        io_weight: true,
        io_weight_device: true,
        kernel_memory: true,
        oom_kill_disable: true,
    };
    const NONE: Kernel = Kernel {
        io_weight: false,
        io_weight_device: false,
        kernel_memory: false,
        oom_kill_disable: false,
    };

    fn host() -> HostConfig {
        HostConfig {
            kernel_memory: 1 << 30,
            oom_kill_disable: Some(true),
            cpu_percent: 5,
            blkio_weight: 5,
            blkio_weight_device: Some(vec![Default::default()]),
            ..HostConfig::default()
        }
    }

    #[test]
    fn what_the_kernel_has_not_is_discarded_with_a_warning_each() {
        let mut host = host();
        let warnings = discard(&mut host, NONE);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert_eq!((host.kernel_memory, host.oom_kill_disable, host.blkio_weight), (0, None, 0));
        assert_eq!((host.cpu_percent, host.blkio_weight_device.as_deref()), (0, Some(&[][..])));
        assert_eq!(discard(&mut host, NONE), [""; 0]);
    }

    #[test]
    fn what_it_has_stays() {
        let mut host = host();
        let warnings = discard(&mut host, ALL);
        assert_eq!((host.blkio_weight, host.oom_kill_disable), (5, Some(true)));
        assert!(warnings[0].starts_with("OOM killer is disabled"), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
    }
}
