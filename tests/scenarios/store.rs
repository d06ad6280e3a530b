//! Images through damage, a killed daemon and a full disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cleat_tests::{Options, Registry, TestDaemon, run, wait_for};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The directories of layers that have this file.
pub(super) fn layers_with(daemon: &TestDaemon, file: &str) -> Vec<PathBuf> {
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
        let loaded = daemon.wait_ready_or_ended()
            && daemon.docker_with_stdin(["load"], archive.clone()).code == 0;
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

/// A small filesystem of a test's own.
pub(super) struct SmallDisk {
    mounted: tempfile::TempDir,
    /// What it is in, if it is not in memory.
    _image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    /// A tmpfs.
    pub(super) fn new(mebibytes: u32) -> Self {
        let mounted = tempfile::Builder::new().prefix("small-").tempdir().unwrap();
        let options = format!("size={mebibytes}m");
        let (none, options) = (None::<&str>, Some(options.as_str()));
        mount(none, mounted.path(), Some("tmpfs"), MsFlags::empty(), options).unwrap();
        Self { mounted, _image: None }
    }

    /// An ext4 in a file; `None` where the host has no loop devices or no program that makes one.
    pub(super) fn ext4(mebibytes: u32) -> Option<Self> {
        let image = tempfile::Builder::new().prefix("small-").tempfile().unwrap();
        image.as_file().set_len(u64::from(mebibytes) << 20).unwrap();
        // Root has nothing of its own here.
        let made = Command::new("mkfs.ext4").args(["-qFm0"]).arg(image.path()).status().ok()?;
        let mounted = tempfile::Builder::new().prefix("small-").tempdir().unwrap();
        let is_made = made.success();
        let loopback = Command::new("mount")
            .args(["-o", "loop"])
            .arg(image.path())
            .arg(mounted.path())
            .output()
            .ok()?;
        (is_made && loopback.status.success()).then_some(Self { mounted, _image: Some(image) })
    }

    pub(super) fn path(&self) -> &Path {
        self.mounted.path()
    }

    pub(super) fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(self.mounted.path()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    }

    pub(super) fn taken_percent(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(self.mounted.path()).unwrap();
        (stat.blocks() - stat.blocks_available()) * 100 / stat.blocks()
    }

    /// Takes all but so many bytes, or a little more: a file needs room for its map as well.
    pub(super) fn fill(&self, but: u64) {
        let bytes = vec![0; usize::try_from(self.free().saturating_sub(but)).unwrap()];
        match fs::write(self.path().join("filler"), bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
            other => other.unwrap(),
        }
    }

    pub(super) fn empty(&self) {
        fs::remove_file(self.mounted.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.mounted.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_no_damage_and_its_space_comes_back() {
    let disk = SmallDisk::new(96);
    let root = disk.path().to_owned();
    let mut daemon = TestDaemon::at(root, Options::default());
    let elsewhere = TestDaemon::start();
    import(&daemon, "kept-file", "kept:1");
    let whole = |daemon: &TestDaemon| {
        let checked = daemon.cleat(["image", "check"]).ok();
        assert!(checked.contains("whole  kept:1"), "{checked}");
    };
    // More than there is.
    let large = elsewhere.path("large");
    fs::create_dir(&large).unwrap();
    fs::write(large.join("large-file"), super::registry::noise(120 << 20)).unwrap();
    let tar =
        run(Command::new("tar").arg("-C").arg(&large).args(["-cf", "-", "."])).expect(0).stdout;
    elsewhere.docker_with_stdin(["import", "-", "large:1"], tar.clone()).ok();
    let archive = run(elsewhere.docker_command().args(["save", "large:1"])).expect(0).stdout;
    let free = disk.free();
    let given_back = |what: &str| {
        wait_for(&format!("the space after {what}"), || {
            (disk.free() + (1 << 20) > free).then_some(())
        });
    };
    let said = daemon.docker_with_stdin(["load"], archive);
    said.expect(1).says("no space left on device");
    given_back("a load");
    daemon
        .docker_with_stdin(["import", "-", "large:1"], tar)
        .expect(1)
        .says("no space left on device");
    given_back("an import");
    drop(elsewhere);
    whole(&daemon);
    // Almost full, and full: what does not fit leaves nothing, and what is there can be removed.
    for but in [0, 16 << 10, 64 << 10, 256 << 10, 4 << 20] {
        import(&daemon, "gone-file", "gone:1");
        disk.fill(but);
        let dir = daemon.path("import");
        fs::write(dir.join("medium"), super::registry::noise(1 << 20)).unwrap();
        let tar = run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", "-", "medium"]))
            .expect(0)
            .stdout;
        let imported = daemon.docker_with_stdin(["import", "-", "medium:1"], tar);
        if imported.code != 0 {
            let said = imported.stderr.to_lowercase();
            assert!(said.contains("no space left on device"), "{said}");
            daemon.docker(["image", "inspect", "medium:1"]).expect(1);
        } else {
            daemon.docker(["rmi", "medium:1"]).ok();
        }
        daemon.docker(["rmi", "gone:1"]).ok();
        whole(&daemon);
        daemon.kill();
        daemon.spawn();
        whole(&daemon);
        disk.empty();
        given_back("a full disk");
    }
    import(&daemon, "new-file", "new:1");
}
