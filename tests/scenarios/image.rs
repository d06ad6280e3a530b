//! import, save, load, tag, history, commit, rmi.

use std::process::Command;

use cleat_tests::{TestDaemon, run, run_with_stdin, umoci};

#[test]
fn an_image_goes_out_and_comes_back_the_same() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["inspect", "-f", "{{.Id}}", "busybox"]).ok();
    let archive = daemon.path("saved.tar");
    let archive = archive.to_string_lossy();
    daemon.docker(["save", "-o", &archive, "busybox"]).ok();
    assert!(daemon.docker(["rmi", "busybox"]).ok().contains(&format!("Deleted: {id}")));
    assert_eq!(daemon.docker(["images", "-q"]).ok(), "");
    assert_eq!(daemon.docker(["load", "-i", &archive]).ok(), "Loaded image: busybox:latest");
    assert_eq!(daemon.docker(["inspect", "-f", "{{.Id}}", "busybox"]).ok(), id);
    assert_eq!(daemon.docker(["run", "--rm", "busybox", "echo", "back"]).ok(), "back");
}

#[test]
fn an_image_in_use_is_not_removed() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["create", "--name", "user", "busybox"]).ok();
    daemon
        .docker(["rmi", "busybox"])
        .expect(1)
        .says("conflict: unable to remove repository reference");
    daemon.docker(["tag", "busybox", "other:1"]).ok();
    assert_eq!(daemon.docker(["rmi", "other:1"]).ok(), "Untagged: other:1");
    daemon.docker(["rm", "user"]).ok();
    daemon.docker(["rmi", "busybox"]).ok();
}

#[test]
fn a_commit_keeps_what_changed() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "--name",
            "changed",
            "busybox",
            "sh",
            "-c",
            "echo new > /new; rm /etc/group; echo changed > /etc/passwd",
        ])
        .ok();
    let mut changes: Vec<String> =
        daemon.docker(["diff", "changed"]).ok().lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /new", "C /etc", "C /etc/passwd", "D /etc/group"]);
    daemon
        .docker(["commit", "-m", "why", "-c", "CMD [\"cat\", \"/new\"]", "changed", "made:1"])
        .ok();
    assert_eq!(daemon.docker(["run", "--rm", "made:1"]).ok(), "new");
    daemon.docker(["run", "--rm", "made:1", "test", "-e", "/etc/group"]).expect(1);
    assert!(
        daemon.docker(["history", "--format", "{{.Comment}}", "made:1"]).ok().starts_with("why")
    );
    daemon.docker(["rm", "changed"]).ok();
}

#[test]
fn an_export_is_the_whole_filesystem() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--name", "changed", "busybox", "sh", "-c", "echo new > /new"]).ok();
    let archive = daemon.docker(["export", "changed"]).expect(0).stdout;
    daemon.docker_with_stdin(["import", "-", "flat"], archive).ok();
    assert_eq!(daemon.docker(["run", "--rm", "flat", "/bin/cat", "/new"]).ok(), "new");
    daemon.docker(["rm", "changed"]).ok();
}

#[test]
fn an_image_is_mounted_read_only_with_its_layers_merged() {
    let daemon = TestDaemon::with_busybox();
    // Three layers: a directory that is in two of them, a file that goes, and a link to a directory.
    let change = |from: &str, to: &str, script: &str| {
        daemon.docker(["run", "--name", "maker", from, "sh", "-c", script]).ok();
        daemon.docker(["commit", "maker", to]).ok();
        daemon.docker(["rm", "maker"]).ok();
    };
    change(
        "busybox",
        "half:1",
        "mkdir -p /data/dir; echo 1 > /data/dir/one; echo x > /data/gone; ln -s data/dir /link",
    );
    change("half:1", "whole:1", "echo 2 > /data/dir/two; rm /data/gone");
    let show = |options: &str, command: &str| {
        let mount = format!("type=image,source=whole:1,target=/mnt{options}");
        daemon.docker(["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", command])
    };
    assert_eq!(
        show("", "ls /mnt/data /mnt/data/dir").ok(),
        "/mnt/data:\ndir\n\n/mnt/data/dir:\none\ntwo"
    );
    assert_eq!(
        show(",image-subpath=data", "ls /mnt /mnt/dir").ok(),
        "/mnt:\ndir\n\n/mnt/dir:\none\ntwo"
    );
    assert_eq!(show(",image-subpath=link", "ls /mnt").ok(), "one\ntwo");
    assert_eq!(show(",image-subpath=data/dir/two", "cat /mnt").ok(), "2");
    show("", "touch /mnt/x").expect(1).says("Read-only file system");
    show(",image-subpath=data/gone", "true").expect(127).says("cannot access path \"data/gone\"");
    show(",image-subpath=data/dir/two", "echo 3 > /mnt").expect(1).says("Read-only file system");
    // Of one layer there is nothing to merge.
    let mount = "type=image,source=busybox,target=/mnt,image-subpath=etc";
    daemon.docker(["run", "--rm", "--mount", mount, "busybox", "cat", "/mnt/passwd"]).ok();
    daemon.docker(["run", "--rm", "--mount", mount, "busybox", "touch", "/mnt/x"]).expect(1);
    // Whoever mounts an image uses it.
    let mount = "type=image,source=whole:1,target=/mnt";
    daemon
        .docker(["run", "-d", "--name", "user", "--mount", mount, "busybox", "sleep", "1000"])
        .ok();
    assert_eq!(daemon.inspect("user", "(index .Mounts 0).Name"), "whole:1");
    assert_eq!(daemon.inspect("user", "(index .Mounts 0).RW"), "false");
    daemon.docker(["rmi", "whole:1"]).expect(1).says("is using its referenced image");
    daemon.docker(["rm", "-f", "user"]).ok();
    daemon.docker(["rmi", "whole:1"]).ok();
    daemon
        .docker(["create", "--mount", "type=image,source=Bad::name,target=/x", "busybox"])
        .expect(1);
}

#[test]
fn others_read_what_we_save_and_we_load_what_they_write() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "--name",
            "maker",
            "busybox",
            "sh",
            "-c",
            "echo new > /etc/new; rm /etc/group",
        ])
        .ok();
    daemon.docker(["commit", "maker", "made:1"]).ok();
    let (layout, bundle) = (daemon.path("layout"), daemon.path("bundle"));
    std::fs::create_dir(&layout).unwrap();
    let archive = run(daemon.docker_command().args(["save", "made:1"])).expect(0).stdout;
    run_with_stdin(Command::new("tar").arg("-C").arg(&layout).args(["-xf", "-"]), archive).ok();
    let umoci = |args: &[&str]| run(Command::new(umoci()).args(args));
    let image = format!("{}:1", layout.display());
    let path = layout.to_string_lossy();
    assert_eq!(umoci(&["list", "--layout", &path]).ok(), "1");
    umoci(&["unpack", "--image", &image, &bundle.to_string_lossy()]).ok();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/new")).unwrap(), "new\n");
    assert!(!bundle.join("rootfs/etc/group").exists());
    assert!(bundle.join("rootfs/etc/passwd").exists());
    // What umoci makes of it: a layer more, compressed, under another name.
    std::fs::write(bundle.join("rootfs/etc/theirs"), "theirs\n").unwrap();
    let next = format!("{}:2", layout.display());
    umoci(&["repack", "--image", &next, &bundle.to_string_lossy()]).ok();
    umoci(&["config", "--image", &next, "--config.env", "THEIRS=yes"]).ok();
    for ours in ["manifest.json", "repositories"] {
        std::fs::remove_file(layout.join(ours)).unwrap();
    }
    let archive =
        run(Command::new("tar").arg("-C").arg(&layout).args(["-cf", "-", "."])).expect(0).stdout;
    let loaded = daemon.docker_with_stdin(["load"], archive).ok();
    // umoci takes our name along.
    assert!(loaded.ends_with("Loaded image: made:1"), "{loaded}");
    let ran = daemon
        .docker(["run", "--rm", "made:1", "sh", "-c", "cat /etc/new /etc/theirs; echo $THEIRS"])
        .ok();
    assert_eq!(ran, "new\ntheirs\nyes");
    daemon.docker(["rm", "maker"]).ok();
}

/// What happens to images is told as dockerd tells it: recorded there, command by command.
#[test]
fn events_tell_what_happens_to_images() {
    let daemon = TestDaemon::with_busybox();
    let archive = daemon.path("saved.tar");
    let archive = archive.to_string_lossy();
    daemon.docker(["create", "--name", "source", "busybox"]).ok();
    daemon.docker(["commit", "-c", "LABEL a=b", "source", "made:1"]).ok();
    let id = daemon.inspect("made:1", ".Id");
    daemon.docker(["tag", "made:1", "made:2"]).ok();
    daemon.docker(["save", "-o", &archive, "made:1"]).ok();
    daemon.docker(["rmi", "made:1", "made:2"]).ok();
    daemon.docker(["load", "-i", &archive]).ok();
    daemon.docker(["image", "prune", "-a", "-f", "--filter", "label=a=b"]).ok();
    let all = daemon.events("type=image", "{{.Action}} {{json .Actor.Attributes}}");
    let of_it = all.lines().skip_while(|line| !line.starts_with("create"));
    let (labelled, bare) =
        (|name| format!(r#"{{"a":"b","name":"{name}"}}"#), format!(r#"{{"name":"{id}"}}"#));
    let expected = [
        format!("create {}", labelled(id.as_str())),
        format!("tag {}", labelled("made:1")),
        format!("tag {}", labelled("made:2")),
        format!("save {}", labelled(id.as_str())),
        format!("untag {}", labelled(id.as_str())),
        format!("untag {}", labelled(id.as_str())),
        format!("delete {bare}"),
        format!("load {}", labelled(id.as_str())),
        format!("untag {}", labelled(id.as_str())),
        format!("delete {bare}"),
    ];
    let told: Vec<&str> = of_it.collect();
    assert_eq!(told[..expected.len()], expected, "{all}");
    assert!(told[expected.len()].starts_with("prune "), "{all}");
}
