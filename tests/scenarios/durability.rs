//! The daemon's last step of the disk may be any: pull, commit and rmi, each cut off at each step by SIGKILL. Whatever is listed
//! afterwards is whole, nothing else is left, and what was not done can be done. (Load is in `store.rs`, what a policy removes in
//! `image_gc.rs`; what a power cut takes is tried below the store's seam, in the daemon's own tests.)

use std::{fs, os::unix::fs::symlink};

use cleat_tests::{Options, Ran, Registry, TestDaemon, run, wait_for};

use super::{
    registry::{noise, stored, tar},
    store::{SmallDisk, layers_with},
};

/// Goes through all steps: `act` with a daemon that dies at the step, then `after` with one that has started again and hears whether
/// the act was done.
#[track_caller]
fn at_each_step(
    daemon: &mut TestDaemon,
    act: impl Fn(&TestDaemon) -> Ran,
    mut after: impl FnMut(&mut TestDaemon, bool, &str),
) {
    for step in 1.. {
        daemon.kill();
        daemon.spawn_with(&[("CLEAT_FAULT", &format!("disk {step}"))]);
        let is_done = daemon.wait_ready_or_ended() && act(daemon).code == 0;
        let is_over = is_done && !daemon.has_ended();
        match is_done {
            true => daemon.kill(),
            false => daemon.wait_dead(),
        }
        daemon.spawn();
        daemon.cleat(["image", "check"]).ok();
        let when = format!("step {step}");
        after(daemon, is_done, &when);
        daemon.cleat(["image", "check"]).ok();
        if is_over {
            assert!(step > 3, "only {step} steps were counted");
            return;
        }
    }
}

fn names(daemon: &TestDaemon) -> Vec<String> {
    let names = daemon.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    names.lines().map(str::to_owned).collect()
}

/// What has come of layers so far.
fn kept(daemon: &TestDaemon) -> u64 {
    let partials = fs::read_dir(daemon.path("root/content/ingest")).unwrap().flatten();
    partials.map(|partial| partial.metadata().unwrap().len()).sum()
}

#[test]
fn a_pull_cut_off_at_any_step_is_gone_on_with_and_fetches_only_what_is_missing() {
    let mut daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/pulled:1");
    // Two layers: one that takes several writes, and a small one.
    daemon
        .docker_with_stdin(["import", "-", "base:1"], tar(&daemon, "large", &noise(200_000)))
        .ok();
    let small = daemon.path("small");
    fs::write(&small, "small").unwrap();
    daemon.docker(["create", "--name", "maker", "base:1", "/none"]).ok();
    daemon.docker(["cp", &small.to_string_lossy(), "maker:/small"]).ok();
    daemon.docker(["commit", "maker", &name]).ok();
    daemon.docker(["rm", "maker"]).ok();
    daemon.docker(["push", &name]).ok();
    daemon.docker(["rmi", &name, "base:1"]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());
    daemon.docker(["pull", &name]).ok();
    let layers = ["large", "small"];
    let all = || registry.sent("/blobs/");
    let whole = wait_for("all bytes of the pull", || Some(all()).filter(|sent| *sent > 200_000));
    daemon.docker(["rmi", &name]).ok();
    drop(registry);
    let registry = std::cell::RefCell::new(None);
    let anew = |daemon: &TestDaemon| {
        // What the last one still writes down of a pull that is over does not count.
        registry.take();
        registry.replace(Some(Registry::start(daemon, 5000)));
    };
    anew(&daemon);
    let mut most = 0;
    at_each_step(
        &mut daemon,
        |daemon| daemon.docker(["pull", &name]),
        |daemon, is_done, when| {
            let listed = names(daemon);
            let is_listed = listed == [name.as_str()];
            assert!(is_listed || (listed.is_empty() && !is_done), "{when}: {listed:?}");
            let count = usize::from(is_listed);
            for layer in layers {
                assert_eq!(layers_with(daemon, layer).len(), count, "{when}: {layer}");
            }
            if !is_listed {
                let kept = kept(daemon);
                most = most.max(kept);
                anew(daemon);
                daemon.docker(["pull", &name]).ok();
                // The configuration comes once more, whatever is there.
                let missing = whole.saturating_sub(kept);
                let sent = || registry.borrow().as_ref().unwrap().sent("/blobs/");
                let sent = wait_for("what is missing", || {
                    Some(sent()).filter(|sent| *sent + 2000 > missing)
                });
                assert!(
                    sent < missing + 2000,
                    "{when}: {sent} bytes, {kept} of {whole} were there"
                );
            }
            daemon.docker(["rmi", &name]).ok();
            daemon.docker(["image", "prune", "-f"]).ok();
            assert_eq!(stored(daemon), Vec::<String>::new(), "{when}");
            anew(daemon);
        },
    );
    assert!(most > 200_000, "at some step all of the large layer was there, and not its image");
}

#[test]
fn a_commit_cut_off_at_any_step_is_an_image_or_nothing() {
    let mut daemon = TestDaemon::with_busybox();
    daemon.docker(["create", "--name", "maker", "busybox", "true"]).ok();
    let file = daemon.path("new-file");
    fs::write(&file, "new").unwrap();
    daemon.docker(["cp", &file.to_string_lossy(), "maker:/new-file"]).ok();
    let before = stored(&daemon).len();
    at_each_step(
        &mut daemon,
        |daemon| daemon.docker(["commit", "maker", "made:1"]),
        |daemon, is_done, when| {
            let is_listed = names(daemon).contains(&"made:1".to_owned());
            assert!(is_listed || !is_done, "{when}");
            assert_eq!(layers_with(daemon, "new-file").len(), usize::from(is_listed), "{when}");
            if !is_listed {
                daemon.docker(["commit", "maker", "made:1"]).ok();
            }
            daemon.docker(["rmi", "made:1"]).ok();
            assert_eq!(stored(daemon).len(), before, "{when}");
        },
    );
    daemon.docker(["rm", "maker"]).ok();
}

#[test]
fn an_rmi_cut_off_at_any_step_leaves_an_image_or_nothing() {
    let mut daemon = TestDaemon::with_busybox();
    let before = stored(&daemon).len();
    let make = |daemon: &TestDaemon| {
        let tar = tar(daemon, "gone-file", b"gone");
        daemon.docker_with_stdin(["import", "-", "gone:1"], tar).ok();
    };
    make(&daemon);
    at_each_step(
        &mut daemon,
        |daemon| daemon.docker(["rmi", "gone:1"]),
        |daemon, is_done, when| {
            let ids = daemon.docker(["images", "-aq", "--no-trunc"]).ok();
            let rest = ids.lines().count() - 1;
            assert!(rest == 0 || !is_done, "{when}: {ids}");
            assert_eq!(layers_with(daemon, "gone-file").len(), rest, "{when}");
            // Its name may have gone without it.
            if names(daemon).contains(&"gone:1".to_owned()) {
                daemon.docker(["rmi", "gone:1"]).ok();
            }
            daemon.docker(["image", "prune", "-f"]).ok();
            assert_eq!(stored(daemon).len(), before, "{when}");
            make(daemon);
        },
    );
}

/// What is done on a disk that has too little room for it.
struct Act<'a> {
    name: &'a str,
    /// What it makes, if it is done.
    image: &'a str,
    run: &'a dyn Fn(&TestDaemon) -> Ran,
}

#[test]
fn a_full_disk_ends_whatever_makes_an_image_with_a_clear_error_and_gets_all_its_space_back() {
    fill_up(&SmallDisk::new(64));
}

#[test]
fn so_does_a_full_ext4() {
    if let Some(disk) = SmallDisk::ext4(64) {
        fill_up(&disk);
    }
}

fn fill_up(disk: &SmallDisk) {
    let mut daemon = TestDaemon::at(disk.path().to_owned(), Options::default());
    symlink(disk.path(), daemon.path("root")).unwrap();
    let registry = Registry::start(&daemon, 5000);
    let pulled = registry.name("a/pulled:1");
    let size = 3 << 20;
    let layer = tar(&daemon, "medium", &noise(size));
    daemon.docker_with_stdin(["import", "-", &pulled], layer.clone()).ok();
    daemon.docker(["push", &pulled]).ok();
    daemon.docker(["tag", &pulled, "loaded:1"]).ok();
    let archive = run(daemon.docker_command().args(["save", "loaded:1"])).expect(0).stdout;
    daemon.docker(["rmi", &pulled, "loaded:1"]).ok();
    daemon.docker_with_stdin(["import", "-", "kept:1"], tar(&daemon, "kept", b"kept")).ok();
    daemon.docker(["create", "--name", "maker", "kept:1", "/none"]).ok();
    let medium = daemon.path("tar/medium");
    daemon.docker(["cp", &medium.to_string_lossy(), "maker:/medium"]).ok();
    let acts = [
        Act { name: "pull", image: &pulled, run: &|daemon| daemon.docker(["pull", &pulled]) },
        Act {
            name: "load",
            image: "loaded:1",
            run: &|daemon| daemon.docker_with_stdin(["load"], archive.clone()),
        },
        Act {
            name: "import",
            image: "imported:1",
            run: &|daemon| daemon.docker_with_stdin(["import", "-", "imported:1"], layer.clone()),
        },
        Act {
            name: "commit",
            image: "made:1",
            run: &|daemon| daemon.docker(["commit", "maker", "made:1"]),
        },
    ];
    for act in &acts {
        // Once where there is room: what the database grows by is no leak.
        (act.run)(&daemon).ok();
        daemon.docker(["rmi", act.image]).ok();
    }
    let clean = |daemon: &TestDaemon| {
        daemon.docker(["image", "prune", "-f"]).ok();
    };
    clean(&daemon);
    let layers = || layers_with(&daemon, "medium").len();
    wait_for("the layers' end", || (layers() == 0).then_some(()));
    let free = disk.free();
    // From nothing to what all but suffices; a pull takes its bytes twice for a while.
    let sizes = [0, 4 << 10, 64 << 10, 1 << 20, size - (64 << 10), size + (1 << 20), 2 * size];
    for act in &acts {
        let mut refusals = 0;
        for but in sizes {
            let when = format!("{} with {but} bytes left", act.name);
            disk.fill(but as u64);
            let ran = (act.run)(&daemon);
            let listed = names(&daemon).contains(&act.image.to_owned());
            assert_eq!(ran.code == 0, listed, "{when}: {}", ran.stderr);
            if !listed {
                refusals += 1;
                let said = ran.stderr.to_lowercase();
                assert!(said.contains("no space left on device"), "{when}: {said}");
            }
            // What is there is whole, now and after a start, and can be removed though there is no room.
            daemon.cleat(["image", "check"]).ok();
            if but == 0 || listed {
                daemon.kill();
                daemon.spawn();
                daemon.cleat(["image", "check"]).ok();
            }
            assert_eq!(names(&daemon).contains(&act.image.to_owned()), listed, "{when}");
            if listed {
                daemon.docker(["rmi", act.image]).ok();
            }
            disk.empty();
            clean(&daemon);
            wait_for(&format!("the space after a {when}"), || {
                (disk.free() + (256 << 10) > free).then_some(())
            });
        }
        assert!(refusals >= 4, "{}: {refusals} of {} were refused", act.name, sizes.len());
    }
    daemon.docker(["rm", "maker"]).ok();
}

#[test]
fn a_container_on_a_full_disk_is_there_or_not_and_can_be_removed() {
    create_until_full(&SmallDisk::new(64));
}

#[test]
fn so_is_a_container_on_a_full_ext4() {
    if let Some(disk) = SmallDisk::ext4(64) {
        create_until_full(&disk);
    }
}

fn create_until_full(disk: &SmallDisk) {
    let mut daemon = TestDaemon::at(disk.path().to_owned(), Options::default());
    symlink(disk.path(), daemon.path("root")).unwrap();
    daemon.import_busybox();
    let name = |n: usize| format!("c{n}");
    for n in 0..2 {
        daemon.docker(["create", "--name", &name(n), "busybox", "true"]).ok();
    }
    disk.fill(0);
    let mut made: Vec<String> = (0..2).map(name).collect();
    let mut is_refused = false;
    // What records need is what there is no room for.
    let label = format!("much={}", "x".repeat(100_000));
    for n in 2..200 {
        let ran =
            daemon.docker(["create", "--name", &name(n), "--label", &label, "busybox", "true"]);
        if ran.code == 0 {
            made.push(name(n));
            continue;
        }
        let said = ran.stderr.to_lowercase();
        assert!(said.contains("no space left on device"), "{said}");
        is_refused = true;
        break;
    }
    assert!(is_refused, "a disk without room took {} containers", made.len());
    let listed = |daemon: &TestDaemon| {
        let all = daemon.docker(["ps", "-a", "--format", "{{.Names}}"]).ok();
        let mut all: Vec<String> = all.lines().map(str::to_owned).collect();
        all.sort();
        all
    };
    made.sort();
    assert_eq!(listed(&daemon), made);
    daemon.kill();
    daemon.spawn();
    assert_eq!(listed(&daemon), made);
    for name in &made {
        daemon.docker(["rm", name]).ok();
    }
    disk.empty();
    daemon.docker(["run", "--rm", "busybox", "true"]).ok();
}

/// Puts other bytes into a record of the database, and returns those that were there.
fn replace_record(daemon: &TestDaemon, table: &str, key: &str, bytes: &[u8]) -> Vec<u8> {
    let database = redb::Database::open(daemon.path("root/meta.redb")).unwrap();
    let definition: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new(table);
    let change = database.begin_write().unwrap();
    let before = {
        let mut open = change.open_table(definition).unwrap();
        let before = open.insert(key, bytes).unwrap().unwrap();
        before.value().to_vec()
    };
    change.commit().unwrap();
    before
}

#[test]
fn a_container_whose_record_cannot_be_read_keeps_its_files_and_its_layers() {
    let mut daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["create", "--name", "box", "busybox", "cat", "/own"]).ok();
    let own = daemon.path("own");
    fs::write(&own, "own").unwrap();
    daemon.docker(["cp", &own.to_string_lossy(), "box:/own"]).ok();
    daemon.kill();
    // As if another release had written it: of a shape that we do not know.
    let record = replace_record(&daemon, "containers", &id, b"7");
    let text = String::from_utf8(record.clone()).unwrap();
    let newer = text.replacen("\"name\":", "\"called\":", 1);
    assert_ne!(newer, text);
    replace_record(&daemon, "containers", &id, newer.as_bytes());
    daemon.spawn();
    assert_eq!(daemon.docker(["ps", "-aq"]).ok(), "");
    assert!(daemon.log().contains("a record is left out"));
    daemon.docker(["rmi", "busybox"]).ok();
    daemon.docker(["image", "prune", "-af"]).ok();
    daemon.docker_with_stdin(["import", "-", "other"], tar(&daemon, "other", b"x")).ok();
    daemon.docker(["rmi", "other"]).ok();
    daemon.kill();
    replace_record(&daemon, "containers", &id, &record);
    daemon.spawn();
    assert_eq!(daemon.docker(["start", "-a", "box"]).ok(), "own");
    daemon.docker(["rm", "box"]).ok();
    wait_for("its layers' end", || stored(&daemon).is_empty().then_some(()));
}
