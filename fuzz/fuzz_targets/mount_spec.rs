//! Mounts as users write them: `-v` and `--mount` of the command line, and what the daemon makes of `Binds`, `Tmpfs`,
//! `VolumesFrom` and of `Mounts`, those of the command line among them.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use cleat_proto::docker::container::{Config, Empty, HostConfig, Mount};

#[allow(dead_code)]
#[path = "../../cli/src/go.rs"]
mod go;
#[allow(dead_code)]
#[path = "."]
mod opts {
    #[path = "../../cli/src/opts/csv.rs"]
    pub mod csv;
    #[path = "../../cli/src/opts/mount.rs"]
    pub mod mount;
    #[path = "../../cli/src/opts/size.rs"]
    pub mod size;
    #[path = "../../cli/src/opts/volume.rs"]
    pub mod volume;
}
#[allow(dead_code)]
#[path = "../../daemon/src/container/mount_plan.rs"]
mod mount_plan;
#[allow(dead_code, unused_imports)]
#[path = "../../daemon/src/container/mount_point.rs"]
mod mount_point;

/// What a plan knows of `daemon/src/volume`.
mod volume {
    use std::collections::BTreeMap;

    pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct New {
        pub name: String,
        pub driver: String,
        pub options: Option<BTreeMap<String, String>>,
        pub labels: Option<BTreeMap<String, String>>,
    }
}

/// Plans a container on a host that has everything the text names; every place is taken once, and is an absolute path.
fn plan(host_config: &HostConfig, image: &Config) {
    let host = mount_plan::Host {
        mounts_of: &|name| (name != "nobody").then(Vec::new),
        exists: &|_| true,
        image: &|name| match name.starts_with('i') {
            true => Ok(("sha256:1".to_owned(), Some("sha256:2".to_owned()))),
            false => Err(mount_plan::Error::NoSuchImage(name.to_owned())),
        },
        volume_driver: &|name| name.starts_with('v').then(|| "local".to_owned()),
        new_name: &|| "0".repeat(64),
        data_root: Path::new("/var/lib/cleat"),
    };
    let Ok(plan) = mount_plan::plan(image, host_config, &host) else { return };
    let mut places: Vec<_> = plan.mounts.iter().map(|mount| &mount.destination).collect();
    assert!(places.iter().all(|place| place.starts_with("/")), "{places:?}");
    let count = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), count, "{:?}", plan.mounts);
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let _ = opts::volume::parse(&lines);
    let mounts: Vec<Mount> =
        lines.iter().filter_map(|line| opts::mount::parse(line).ok()).collect();
    plan(&HostConfig { mounts: Some(mounts), ..HostConfig::default() }, &Config::default());
    plan(&HostConfig { binds: Some(lines.clone()), ..HostConfig::default() }, &Config::default());
    plan(
        &HostConfig { volumes_from: Some(lines.clone()), ..HostConfig::default() },
        &Config::default(),
    );
    let tmpfs: BTreeMap<String, String> = lines
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(place, options)| (place.to_owned(), options.to_owned()))
        .collect();
    plan(&HostConfig { tmpfs: Some(tmpfs), ..HostConfig::default() }, &Config::default());
    let volumes = lines.into_iter().map(|line| (line, Empty {})).collect();
    plan(&HostConfig::default(), &Config { volumes: Some(volumes), ..Config::default() });
    if let Ok(mounts) = serde_json::from_str(text) {
        plan(&HostConfig { mounts, ..HostConfig::default() }, &Config::default());
    }
});
