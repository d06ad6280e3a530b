//! create, start, stop, restart, kill, rename, wait, top, logs, events, ps.

use cleat_tests::TestDaemon;

#[test]
fn a_container_lives_its_life() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["create", "--name", "a", "busybox", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done"]).ok();
    assert_eq!(id.len(), 64);
    assert_eq!(daemon.inspect("a", ".State.Status"), "created");
    daemon.docker(["start", "a"]).ok();
    cleat_tests::wait_for("its first line", || (daemon.docker(["logs", "a"]).ok() == "up").then_some(()));
    daemon.docker(["start", "a"]).ok();
    daemon.docker(["rm", "a"]).expect(1).says("container is running: stop the container before removing or force remove");
    daemon.docker(["rename", "a", "b"]).ok();
    assert!(daemon.docker(["top", "b"]).ok().contains("sh -c trap"));
    daemon.docker(["stop", "b"]).ok();
    assert_eq!(daemon.inspect("b", ".State.ExitCode"), "3");
    daemon.docker(["restart", "b"]).ok();
    assert_eq!(daemon.inspect("b", ".State.Running"), "true");
    daemon.docker(["kill", "b"]).ok();
    assert_eq!(daemon.docker(["wait", "b"]).ok(), "137");
    daemon.docker(["kill", "b"]).expect(1).says("is not running");
    daemon.docker(["rm", "b"]).ok();
}

#[test]
fn the_short_and_the_long_id_and_the_name_are_one() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["create", "--name", "a", "busybox"]).ok();
    for reference in ["a", &id, &id[..12], &id[..4]] {
        assert_eq!(daemon.inspect(reference, ".Id"), id);
    }
}

#[test]
fn ps_shows_what_docker_shows() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "up", "-l", "k=v", "busybox", "sleep", "1000"]).ok();
    daemon.docker(["run", "--name", "done", "busybox", "sh", "-c", "exit 4"]).expect(4);
    daemon.docker(["create", "--name", "new", "busybox"]).ok();
    let names = |args: &[&str]| {
        let all = ["ps", "--format", "{{.Names}}"].into_iter().chain(args.iter().copied());
        daemon.docker(all).ok().replace('\n', " ")
    };
    assert_eq!(names(&[]), "up");
    assert_eq!(names(&["-a"]), "new done up");
    assert_eq!(names(&["-a", "-f", "status=exited"]), "done");
    assert_eq!(names(&["-a", "-f", "exited=4"]), "done");
    assert_eq!(names(&["-a", "-f", "label=k=v"]), "up");
    assert_eq!(names(&["-a", "-f", "name=e"]), "new done");
    assert_eq!(names(&["-a", "-f", "ancestor=busybox", "-n", "1"]), "new");
    assert!(daemon.docker(["ps", "-a", "--format", "{{.Status}}", "-f", "name=done"]).ok().starts_with("Exited (4) "));
}

#[test]
fn events_tell_the_story_in_order() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--rm", "--name", "story", "busybox", "true"]).ok();
    let now = daemon.docker(["events", "--since", "1h", "--until", "0s", "-f", "type=container", "--format", "{{.Action}}"]);
    let actions: Vec<String> = now.ok().lines().map(str::to_owned).collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
}

#[test]
fn logs_can_be_cut() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--name", "l", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; done; echo e >&2; printf tail"]).ok();
    assert_eq!(daemon.docker(["logs", "l"]).ok(), "1\n2\n3\n4\n5\ntail");
    assert_eq!(daemon.docker(["logs", "--tail", "2", "l"]).stderr, "e\n");
    assert_eq!(daemon.docker(["logs", "--since", "1h", "--until", "1h", "l"]).ok(), "");
    let stamped = daemon.docker(["logs", "-t", "l"]).ok();
    assert!(stamped.starts_with("20") && stamped.contains("Z 1\n"), "{stamped}");
}

#[test]
fn a_log_is_rotated() {
    let daemon = TestDaemon::with_busybox();
    let flags = ["run", "--name", "l", "--log-opt", "max-size=10k", "--log-opt", "max-file=3", "busybox"];
    daemon.docker(flags.into_iter().chain(["sh", "-c", "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i; done"])).ok();
    let path = daemon.inspect("l", ".LogPath");
    for suffix in ["", ".1", ".2"] {
        let size = std::fs::metadata(format!("{path}{suffix}")).unwrap().len();
        assert!(size <= 12 << 10, "{path}{suffix} has {size} bytes");
    }
    assert!(!std::path::Path::new(&format!("{path}.3")).exists());
    let log = daemon.docker(["logs", "l"]).ok();
    assert!(log.ends_with("\n999\n1000"), "{log}");
}

#[test]
fn two_engines_live_side_by_side() {
    let (one, two) = (TestDaemon::with_busybox(), TestDaemon::with_busybox());
    one.docker(["run", "-d", "--name", "same", "busybox", "sleep", "1000"]).ok();
    two.docker(["run", "-d", "--name", "same", "busybox", "sleep", "1000"]).ok();
    assert_ne!(one.inspect("same", ".Id"), two.inspect("same", ".Id"));
    one.docker(["rm", "-f", "same"]).ok();
    assert_eq!(two.inspect("same", ".State.Running"), "true");
}

#[test]
fn prune_removes_what_is_stopped() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--name", "done", "busybox", "true"]).ok();
    daemon.docker(["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    assert!(daemon.docker(["container", "prune", "-f"]).ok().contains("Deleted Containers:"));
    assert_eq!(daemon.docker(["ps", "-a", "--format", "{{.Names}}"]).ok(), "up");
}
