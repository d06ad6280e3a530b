//! Images that go by themselves: `image-gc-disk-percent` and `image-gc-days` in `daemon.json`.

use std::{fs, os::unix::fs::symlink, path::Path};

use cleat_tests::{Options, TestDaemon, wait_for};

use super::{
    registry::{noise, stored, tar},
    registry_options::reload,
    store::{SmallDisk, layers_with},
};

/// Where the options are, and what they are at first.
fn options(file: &Path, text: &str) -> Options {
    fs::write(file, text).unwrap();
    let flags = vec!["--config-file".to_owned(), file.display().to_string()];
    Options { flags, ..Options::default() }
}

fn import(daemon: &TestDaemon, file: &str, name: &str, bytes: usize) {
    daemon.docker_with_stdin(["import", "-", name], tar(daemon, file, &noise(bytes))).ok();
}

fn names(daemon: &TestDaemon) -> String {
    let names = daemon.docker(["images", "--format", "{{.Repository}}"]).ok();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn a_disk_that_is_too_full_gets_room_from_what_was_unused_for_the_longest() {
    let disk = SmallDisk::new(96);
    let etc = tempfile::tempdir().unwrap();
    let file = etc.path().join("daemon.json");
    let daemon = TestDaemon::at(disk.path().to_owned(), options(&file, "{}"));
    symlink(disk.path(), daemon.path("root")).unwrap();
    for name in ["used", "again", "oldest", "mounted"] {
        import(&daemon, name, &format!("{name}:1"), 12 << 20);
    }
    daemon.docker(["create", "--name", "user", "used:1", "/none"]).ok();
    let mount = "type=image,source=mounted:1,target=/mnt";
    daemon.docker(["create", "--name", "mounter", "--mount", mount, "used:1", "/none"]).ok();
    daemon.docker(["tag", "again:1", "again:2"]).ok();
    let id = daemon.inspect("oldest:1", ".Id");
    let percent = |percent: u64| {
        fs::write(&file, format!(r#"{{"image-gc-disk-percent": {percent}}}"#)).unwrap();
        reload(&daemon);
    };
    // An image is 12 or 13 of a hundred.
    percent(disk.taken_percent() - 6);
    wait_for("room", || (names(&daemon) == "again again mounted used").then_some(()));
    let format = "{{.Action}} {{.Actor.ID}}";
    let range = ["events", "--filter", "type=image", "--since", "1h", "--until", "0s"];
    let event = |action: &str| {
        let filter = format!("event={action}");
        let more = ["--filter", &filter, "--format", format];
        daemon.docker(range.into_iter().chain(more)).ok()
    };
    wait_for("the events", || (event("delete") == format!("delete {id}")).then_some(()));
    assert_eq!(event("untag"), format!("untag {id}"));
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("an image that nobody uses was removed"));
    let line = line.unwrap_or_else(|| panic!("no line in the log: {log}"));
    assert!(line.contains(&id) && line.contains("oldest:1") && line.contains("% of the disk"));
    // Whatever the policy: what containers stand on and mount stays.
    percent(1);
    wait_for("more room", || (names(&daemon) == "mounted used").then_some(()));
    daemon.docker(["rm", "user", "mounter"]).ok();
    percent(2);
    wait_for("all room", || names(&daemon).is_empty().then_some(()));
    wait_for("the layers' end", || stored(&daemon).is_empty().then_some(()));
}

/// Whatever step of the disk is the daemon's last while it makes room, the next one has whole images only, and goes on.
#[test]
fn a_daemon_killed_at_any_step_of_making_room_leaves_no_image_half() {
    let etc = tempfile::tempdir().unwrap();
    let file = etc.path().join("daemon.json");
    let (off, on) = ("{}", r#"{"image-gc-disk-percent": 1}"#);
    // However empty the disk of the host is.
    let disk = SmallDisk::new(32);
    let mut daemon = TestDaemon::at(disk.path().to_owned(), options(&file, off));
    symlink(disk.path(), daemon.path("root")).unwrap();
    import(&daemon, "kept-file", "kept:1", 1);
    daemon.docker(["create", "--name", "user", "kept:1", "/none"]).ok();
    for step in 1.. {
        import(&daemon, "one-file", "one:1", 1000);
        import(&daemon, "other-file", "other:1", 1000);
        daemon.docker(["tag", "other:1", "another:1"]).ok();
        daemon.kill();
        fs::write(&file, on).unwrap();
        daemon.spawn_with(&[("CLEAT_FAULT", &format!("disk {step}"))]);
        let survived = wait_for("the end of the daemon or of the images", || {
            let listed = daemon.docker(["images", "--format", "{{.Repository}}"]);
            if daemon.has_ended() {
                return Some(false);
            }
            // Not only out of sight: the blob of each is what goes last.
            let is_done = listed.stdout == b"kept\n" && stored(&daemon).len() == 2;
            is_done.then_some(true)
        });
        match survived {
            true => daemon.kill(),
            false => daemon.wait_dead(),
        }
        fs::write(&file, off).unwrap();
        daemon.spawn();
        daemon.cleat(["image", "check"]).ok();
        let left = names(&daemon);
        assert!(left.contains("kept"), "step {step}: {left}");
        for (file, name) in [("one-file", "one"), ("other-file", "other")] {
            let count = usize::from(left.contains(name));
            assert_eq!(layers_with(&daemon, file).len(), count, "step {step}: {left}");
        }
        // And it can be done to its end.
        fs::write(&file, on).unwrap();
        reload(&daemon);
        wait_for("the rest", || (names(&daemon) == "kept").then_some(()));
        wait_for("its layers", || (stored(&daemon).len() == 2).then_some(()));
        fs::write(&file, off).unwrap();
        reload(&daemon);
        if survived {
            assert!(step > 4, "only {step} steps were counted");
            break;
        }
    }
    daemon.docker(["rm", "user"]).ok();
}
