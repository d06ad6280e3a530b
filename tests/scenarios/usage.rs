//! `docker system df`: exact by what is on disk, and without a walk over layers.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use cleat_tests::{TestDaemon, run};
use serde_json::Value;

fn usage(daemon: &TestDaemon, query: &str) -> Value {
    let socket = daemon.host().trim_start_matches("unix://").to_owned();
    let url = format!("http://d/v1.51/system/df{query}");
    let got = run(Command::new("curl").args(["-sg", "--unix-socket", &socket, &url]));
    serde_json::from_slice(&got.expect(0).stdout).unwrap()
}

/// The lengths of all that is no directory, each inode once. Source: moby, pkg/directory, Size.
fn lengths(dir: &Path) -> u64 {
    fn walk(dir: &Path, seen: &mut BTreeSet<u64>) -> u64 {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let length = |path: &Path, seen: &mut BTreeSet<u64>| {
            let meta = path.symlink_metadata().unwrap();
            match meta.is_dir() {
                true => walk(path, seen),
                false if seen.insert(meta.ino()) => meta.len(),
                false => 0,
            }
        };
        entries.map(|entry| length(&entry.path(), seen)).sum()
    }
    walk(dir, &mut BTreeSet::new())
}

/// The files of all layers.
fn layers(daemon: &TestDaemon) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(daemon.path("root/snapshots")).unwrap().flatten();
    let is_layer = |name: &str| name.parse::<u64>().is_ok();
    let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_layer));
    found.map(|entry| entry.path()).collect()
}

#[test]
fn what_is_taken_is_exact_and_costs_no_walk() {
    let daemon = TestDaemon::with_busybox();
    // A second image of one more layer, which a container of the first made.
    let write = "echo 12345 >/six; head -c 5000 /dev/zero >/v/file; head -c 3000 /dev/zero >/more";
    let make = ["run", "--name", "maker", "-v", "data:/v", "busybox", "sh", "-c", write];
    daemon.docker(make).ok();
    daemon.docker(["commit", "maker", "made:1"]).ok();

    let all = usage(&daemon, "");
    let on_disk: u64 = layers(&daemon).iter().map(|dir| lengths(&dir.join("fs"))).sum();
    assert_eq!(all["LayersSize"], on_disk);
    let image = |name: &str| {
        let images = all["Images"].as_array().unwrap().iter();
        let mut found = images.filter(|image| image["RepoTags"][0] == name);
        found.next().unwrap().clone()
    };
    let (base, made) = (image("busybox:latest"), image("made:1"));
    assert_eq!(made["Size"], on_disk);
    assert_eq!(made["SharedSize"], base["Size"]);
    assert_eq!(base["SharedSize"], base["Size"]);
    assert_eq!(made["Size"].as_u64().unwrap() - base["Size"].as_u64().unwrap(), 3006);
    assert_eq!((&base["Containers"], &made["Containers"]), (&1.into(), &0.into()));
    assert_eq!(all["Containers"][0]["SizeRw"], 3006);
    assert_eq!(all["Containers"][0]["SizeRootFs"], base["Size"].as_u64().unwrap() + 3006);
    assert_eq!(all["Volumes"][0]["UsageData"]["Size"], 5000);
    assert_eq!(all["Volumes"][0]["UsageData"]["RefCount"], 1);
    assert_eq!(all["BuildCache"], Value::Array(Vec::new()));

    // What can be had back, as the client counts it: what an image in use shares is none of its own; of containers, those that do
    // not run.
    let format = "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}";
    let table = daemon.docker(["system", "df", "--format", format]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("Images 2 1 ") && lines[0].ends_with("(100%)"), "{table}");
    assert!(lines[1].starts_with("Containers 1 0 3.006kB (100%)"), "{table}");
    assert!(lines[2].starts_with("Local Volumes 1 1 0B"), "{table}");

    // Images are counted when they come: where their files are away, the answer is the same.
    let images = usage(&daemon, "?type=image");
    let dirs = layers(&daemon);
    let away = daemon.path("away");
    fs::create_dir(&away).unwrap();
    for dir in &dirs {
        fs::rename(dir, away.join(dir.file_name().unwrap())).unwrap();
    }
    let without = usage(&daemon, "?type=image");
    for dir in &dirs {
        fs::rename(away.join(dir.file_name().unwrap()), dir).unwrap();
    }
    assert_eq!(without, images);
    assert_eq!(images["LayersSize"], on_disk);
}
