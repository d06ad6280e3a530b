//! import, save, load, tag, history, commit, rmi.

use cleat_tests::TestDaemon;

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
