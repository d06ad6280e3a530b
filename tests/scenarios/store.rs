//! Images through damage, a killed daemon and a full disk.

use std::{fs, path::PathBuf, process::Command};

use cleat_tests::{Registry, TestDaemon, run};

/// The directories of layers that have this file.
fn layers_with(daemon: &TestDaemon, file: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.path("root/snapshots")).unwrap().flatten();
    let is_layer = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok())
    };
    let layers = entries.map(|entry| entry.path()).filter(is_layer);
    layers.map(|path| path.join("fs").join(file)).filter(|path| path.exists()).collect()
}

/// Makes an image of one file, straight from its tar.
fn import(daemon: &TestDaemon, file: &str, name: &str) {
    let dir = daemon.path("import");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), "what it should be").unwrap();
    let tar = run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", "-", file])).expect(0);
    daemon.docker_with_stdin(["import", "-", name], tar.stdout).ok();
}

#[test]
fn a_damaged_image_is_found_and_fetched_again_or_given_up() {
    let mut daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/remote:1");
    import(&daemon, "remote-file", &name);
    daemon.docker(["push", &name]).ok();
    daemon.docker(["rmi", &name]).ok();
    daemon.docker(["pull", &name]).ok();
    daemon.docker(["tag", &name, "another:name"]).ok();
    import(&daemon, "local-file", "local:1");
    import(&daemon, "whole-file", "whole:1");
    let id = daemon.inspect(&name, ".Id");
    daemon.cleat(["image", "check"]).ok();
    for file in ["remote-file", "local-file"] {
        let path = layers_with(&daemon, file).pop().unwrap();
        fs::write(path, "what it SHOULD be").unwrap();
    }
    let found = daemon.cleat(["image", "check"]).expect(1);
    assert_eq!(found.text().matches("  damaged  ").count(), 2, "{}", found.text());
    assert!(found.text().contains("its files make a tar of digest"), "{}", found.text());
    let repaired = daemon.cleat(["image", "check", "--repair"]).ok();
    let says = |text: &str| assert!(repaired.contains(text), "{text} in {repaired}");
    says(&format!("repaired  {name}, "));
    says(&format!("fetched again from {}@sha256:", registry.name("a/remote")));
    says("dropped  local:1");
    says("whole  whole:1");
    assert_eq!(
        fs::read(layers_with(&daemon, "remote-file").pop().unwrap()).unwrap(),
        b"what it should be"
    );
    assert_eq!(daemon.inspect("another:name", ".Id"), id);
    daemon.docker(["image", "inspect", "local:1"]).expect(1).says("No such image");
    assert_eq!(layers_with(&daemon, "local-file"), Vec::<PathBuf>::new());
    daemon.cleat(["image", "check"]).ok();
    // What a start finds damaged is not listed, and comes back the same way.
    let config = daemon.path("root/content/blobs/sha256").join(id.trim_start_matches("sha256:"));
    daemon.kill();
    fs::write(&config, "").unwrap();
    daemon.spawn();
    daemon.docker(["image", "inspect", &name]).expect(1);
    daemon.cleat(["image", "check"]).expect(1).says("");
    daemon.cleat(["image", "check", "--repair"]).ok();
    assert_eq!(daemon.inspect("another:name", ".Id"), id);
    // Without its registry it is kept, in case that comes back.
    fs::write(layers_with(&daemon, "remote-file").pop().unwrap(), "something else").unwrap();
    drop(registry);
    let kept = daemon.cleat(["image", "check", "--repair"]).expect(1).text();
    assert!(kept.contains("  kept  ") && kept.contains("connection refused"), "{kept}");
    let _registry = Registry::start(&daemon, 5000);
    daemon.cleat(["image", "check", "--repair"]).ok();
    assert_eq!(daemon.inspect("another:name", ".Id"), id);
}

#[test]
fn a_layer_below_a_running_container_is_not_repaired_away() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let passwd = layers_with(&daemon, "etc/passwd").pop().unwrap();
    let before = fs::read(&passwd).unwrap();
    fs::write(&passwd, "damage").unwrap();
    let said = daemon.cleat(["image", "check", "--repair"]).expect(1).text();
    assert!(said.contains("the running container") && said.contains("stop it first"), "{said}");
    daemon.docker(["exec", "cc", "true"]).ok();
    fs::write(&passwd, before).unwrap();
    daemon.cleat(["image", "check"]).ok();
}

/// Whatever step of the disk is the daemon's last, the next one has whole images only, and goes on.
#[test]
fn a_daemon_killed_at_any_step_of_a_load_has_whole_images_only() {
    let mut daemon = TestDaemon::start();
    import(&daemon, "kept-file", "kept:1");
    import(&daemon, "file", "loaded:1");
    let archive = run(daemon.docker_command().args(["save", "loaded:1"])).expect(0).stdout;
    daemon.docker(["rmi", "loaded:1"]).ok();
    daemon.kill();
    for step in 1.. {
        daemon.spawn_with(&[("CLEAT_FAULT", &format!("disk {step}"))]);
        daemon.wait_ready();
        let loaded = daemon.docker_with_stdin(["load"], archive.clone()).code == 0;
        match loaded {
            true => daemon.kill(),
            false => daemon.wait_dead(),
        }
        daemon.spawn();
        daemon.cleat(["image", "check"]).ok();
        let names = daemon.docker(["images", "--format", "{{.Repository}}"]).ok();
        assert!(names.contains("kept"), "step {step}: {names}");
        if names.contains("loaded") {
            daemon.docker(["rmi", "loaded:1"]).ok();
        } else {
            assert!(!loaded, "step {step}: {names}");
        }
        assert_eq!(layers_with(&daemon, "file").len(), 0, "step {step}");
        daemon.kill();
        if loaded {
            assert!(step > 8, "only {step} steps were counted");
            break;
        }
    }
    daemon.spawn();
}
