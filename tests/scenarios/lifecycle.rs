//! create, start, stop, restart, kill, rename, wait, top, logs, events, ps.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    process::Stdio,
};

use cleat_tests::TestDaemon;

#[test]
fn who_hears_of_a_container_may_signal_it_though_its_start_is_not_over() {
    let daemon = TestDaemon::with_busybox();
    let script = "trap 'exit 11' HUP; echo ready; while :; do sleep 0.01; done";
    for round in 0..20 {
        let name = format!("early{round}");
        let mut client = daemon.docker_command();
        client.args(["run", "--rm", "--name", &name, "busybox", "sh", "-c", script]);
        let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
        // Connected beforehand, so that nothing comes between the word and the signal.
        let mut api = UnixStream::connect(daemon.path("cleat.sock")).unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        write!(api, "POST /containers/{name}/kill?signal=HUP HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        let mut answer = String::new();
        BufReader::new(api).read_line(&mut answer).unwrap();
        if !answer.contains("204") {
            client.kill().unwrap();
        }
        assert_eq!(answer.trim(), "HTTP/1.1 204 No Content");
        assert_eq!(client.wait().unwrap().code(), Some(11));
    }
}

#[test]
fn a_container_lives_its_life() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon
        .docker([
            "create",
            "--name",
            "first",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    assert_eq!(daemon.inspect("first", ".State.Status"), "created");
    daemon.docker(["start", "first"]).ok();
    cleat_tests::wait_for("its first line", || {
        (daemon.docker(["logs", "first"]).ok() == "up").then_some(())
    });
    daemon.docker(["start", "first"]).ok();
    daemon
        .docker(["rm", "first"])
        .expect(1)
        .says("container is running: stop the container before removing or force remove");
    daemon.docker(["rename", "first", "second"]).ok();
    assert!(daemon.docker(["top", "second"]).ok().contains("sh -c trap"));
    daemon.docker(["stop", "second"]).ok();
    assert_eq!(daemon.inspect("second", ".State.ExitCode"), "3");
    daemon.docker(["restart", "second"]).ok();
    assert_eq!(daemon.inspect("second", ".State.Running"), "true");
    daemon.docker(["kill", "second"]).ok();
    assert_eq!(daemon.docker(["wait", "second"]).ok(), "137");
    daemon.docker(["kill", "second"]).expect(1).says("is not running");
    daemon.docker(["rm", "second"]).ok();
}

#[test]
fn the_short_and_the_long_id_and_the_name_are_one() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["create", "--name", "first", "busybox"]).ok();
    for reference in ["first", &id, &id[..12], &id[..4]] {
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
    assert!(
        daemon
            .docker(["ps", "-a", "--format", "{{.Status}}", "-f", "name=done"])
            .ok()
            .starts_with("Exited (4) ")
    );
}

#[test]
fn events_tell_the_story_in_order() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--rm", "--name", "story", "busybox", "true"]).ok();
    let told = daemon.events("type=container", "{{.Action}}");
    let actions: Vec<&str> = told.lines().collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
}

#[test]
fn logs_can_be_cut() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "--name",
            "logged",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do echo $i; done; printf tail",
        ])
        .ok();
    assert_eq!(daemon.docker(["logs", "logged"]).ok(), "1\n2\n3\n4\n5\ntail");
    assert_eq!(daemon.docker(["logs", "--tail", "2", "logged"]).ok(), "5\ntail");
    assert_eq!(daemon.docker(["logs", "--since", "1h", "--until", "1h", "logged"]).ok(), "");
    let stamped = daemon.docker(["logs", "-t", "logged"]).ok();
    assert!(stamped.starts_with("20") && stamped.contains("Z 1\n"), "{stamped}");
    daemon.docker(["run", "--name", "loud", "busybox", "sh", "-c", "echo e >&2"]).ok();
    assert_eq!(daemon.docker(["logs", "loud"]).stderr, "e\n");
}

#[test]
fn a_log_is_rotated() {
    let daemon = TestDaemon::with_busybox();
    let flags = [
        "run",
        "--name",
        "logged",
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=3",
        "busybox",
    ];
    daemon
        .docker(flags.into_iter().chain([
            "sh",
            "-c",
            "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i; done",
        ]))
        .ok();
    let path = daemon.inspect("logged", ".LogPath");
    for suffix in ["", ".1", ".2"] {
        let size = std::fs::metadata(format!("{path}{suffix}")).unwrap().len();
        assert!(size <= 12 << 10, "{path}{suffix} has {size} bytes");
    }
    assert!(!std::path::Path::new(&format!("{path}.3")).exists());
    let log = daemon.docker(["logs", "logged"]).ok();
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

/// A log that is followed comes from the shim, so its end may be seen before the daemon knows of it; nobody can tell.
#[test]
fn who_followed_a_log_to_its_end_finds_the_container_ended() {
    let daemon = TestDaemon::with_busybox();
    for round in 0..10 {
        let talk = format!("echo one; sleep 0.0{round}; exit 3");
        daemon.docker(["run", "-d", "--name", "talker", "busybox", "sh", "-c", &talk]).ok();
        daemon.docker(["logs", "-f", "talker"]).ok();
        assert_eq!(daemon.inspect("talker", ".State.ExitCode"), "3");
        daemon.docker(["start", "talker"]).ok();
        daemon.docker(["logs", "-f", "talker"]).ok();
        daemon.docker(["start", "talker"]).ok();
        assert_eq!(daemon.docker(["logs", "-f", "talker"]).ok().lines().count(), 3);
        daemon.docker(["rm", "talker"]).ok();
    }
}
