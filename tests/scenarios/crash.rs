//! The daemon is only the control plane: its death changes nothing for a container.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Child, Stdio},
};

use cleat_tests::{Options, TestDaemon, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Checks that `log` has the numbers from 1 on, each once and in order, and returns the last.
#[track_caller]
fn check_counted(log: &str) -> u64 {
    let numbers = log
        .lines()
        .map(|line| line.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {line:?}")));
    let mut last = 0;
    for number in numbers {
        assert_eq!(number, last + 1, "a gap or a double");
        last = number;
    }
    last
}

fn follow(daemon: &TestDaemon, name: &str) -> Child {
    daemon
        .docker_command()
        .args(["logs", "-f", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_counter_misses_nothing_while_the_daemon_is_killed_twenty_times() {
    let mut daemon = TestDaemon::with_busybox();
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 3000; done";
    daemon.docker(["run", "-d", "--name", "counter", "busybox", "sh", "-c", script]).ok();
    let pid = daemon.inspect("counter", ".State.Pid");
    // One that follows from before the first death on, and one from after the last.
    let mut early = follow(&daemon, "counter");
    let mut early_lines = BufReader::new(early.stdout.take().unwrap());
    let mut early_log = String::new();
    early_lines.read_line(&mut early_log).unwrap();
    let mut last = 0;
    for round in 0..20u64 {
        // Somewhere within the daemon's life: at once, or after some of the counter's lines.
        let goal = last + round * 7 % 23;
        last = wait_for("the counter to go on", || {
            let log = daemon.docker(["logs", "--tail", "1", "counter"]).ok();
            log.parse().ok().filter(|&number: &u64| number >= goal)
        });
        daemon.kill();
        daemon.spawn();
        assert_eq!(daemon.inspect("counter", ".State.Pid"), pid);
    }
    let mut follower = follow(&daemon, "counter");
    daemon.docker(["stop", "-t", "0", "counter"]).ok();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut follower.stdout.take().unwrap(), &mut log).unwrap();
    assert!(follower.wait().unwrap().success());
    assert!(check_counted(&log) >= last, "the follower ended early");
    assert_eq!(check_counted(&daemon.docker(["logs", "counter"]).ok()), check_counted(&log));
    early_lines.read_to_string(&mut early_log).unwrap();
    assert!(early.wait().unwrap().success());
    assert_eq!(check_counted(&early_log), check_counted(&log));
}

#[test]
fn a_follower_outlives_the_daemon_and_leaves_when_it_likes() {
    let mut daemon = TestDaemon::with_busybox();
    let script = "echo one; read line; echo $line >&2; read line; exit 3";
    daemon.docker(["run", "-di", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    let mut followers = ["-ft", "-fn1", "-f"].map(|flags| {
        let mut command = daemon.docker_command();
        command.args(["logs", flags, "talker"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    for follower in &mut followers {
        let mut line = String::new();
        BufReader::new(follower.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.ends_with("one\n"), "{line}");
    }
    daemon.kill();
    let [timed, tail, mut leaver] = followers;
    leaver.kill().and_then(|()| leaver.wait()).unwrap();
    daemon.spawn();
    let mut typist = daemon.docker_command();
    typist.args(["attach", "--no-stdin=false", "talker"]).stdin(Stdio::piped());
    let mut typist = typist.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    typist.stdin.take().unwrap().write_all(b"two\nend\n").unwrap();
    typist.wait().unwrap();
    for (follower, is_timed) in [(timed, true), (tail, false)] {
        let said = follower.wait_with_output().unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        let text = if is_timed { said.split_once("Z ").unwrap().1 } else { &said };
        assert_eq!(text, "two\n");
    }
    assert_eq!(daemon.docker(["wait", "talker"]).ok(), "3");
    daemon.docker(["rm", "talker"]).ok();
}

#[test]
fn an_exit_while_no_daemon_runs_is_known_afterwards() {
    let mut daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "-d",
            "--name",
            "seven",
            "-v",
            "gate:/gate",
            "busybox",
            "sh",
            "-c",
            "until [ -e /gate/open ]; do usleep 5000; done; echo bye; exit 7",
        ])
        .ok();
    let pid: i32 = daemon.inspect("seven", ".State.Pid").parse().unwrap();
    let gate = daemon.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "gate"]).ok();
    daemon.kill();
    std::fs::write(format!("{gate}/open"), "").unwrap();
    wait_for("the container's end", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.spawn();
    assert_eq!(daemon.docker(["wait", "seven"]).ok(), "7");
    assert_eq!(daemon.inspect("seven", ".State.Status"), "exited");
    assert_eq!(daemon.inspect("seven", ".State.ExitCode"), "7");
    assert_eq!(daemon.docker(["logs", "seven"]).ok(), "bye");
    daemon.docker(["volume", "rm", "-f", "gate"]).expect(1);
    daemon.docker(["rm", "seven"]).ok();
    daemon.docker(["volume", "rm", "gate"]).ok();
}

#[test]
fn the_restart_policy_works_while_no_daemon_runs() {
    let mut daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "on-failure:3",
            "-v",
            "gate:/gate",
            "busybox",
            "sh",
            "-c",
            "echo run; until [ -e /gate/open ]; do usleep 5000; done; exit 1",
        ])
        .ok();
    let gate = daemon.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "gate"]).ok();
    let id = daemon.inspect("again", ".Id");
    let log = daemon.inspect("again", ".LogPath");
    daemon.kill();
    std::fs::write(format!("{gate}/open"), "").unwrap();
    // Once by the daemon, three times by the policy.
    wait_for("four runs in the log", || {
        (std::fs::read_to_string(&log).unwrap().lines().count() == 4).then_some(())
    });
    daemon.spawn();
    assert_eq!(daemon.docker(["wait", &id]).ok(), "1");
    assert_eq!(daemon.inspect("again", ".RestartCount"), "3");
    daemon.docker(["rm", "-v", "again"]).ok();
    daemon.docker(["volume", "rm", "gate"]).ok();
}

#[test]
fn an_attached_client_survives_the_daemon() {
    let mut daemon = TestDaemon::with_busybox();
    let script = "read line; echo got $line; read line; echo got $line";
    daemon.docker(["run", "-d", "-i", "--name", "talk", "busybox", "sh", "-c", script]).ok();
    let mut client = daemon
        .docker_command()
        .args(["attach", "talk"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(client.stdout.take().unwrap());
    let mut say = |word: &str| {
        use std::io::{BufRead, Write};
        writeln!(input, "{word}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        answer
    };
    assert_eq!(say("one"), "got one\n");
    daemon.kill();
    assert_eq!(say("two"), "got two\n");
    daemon.spawn();
    assert_eq!(daemon.docker(["wait", "talk"]).ok(), "0");
    // Its wait request went with the daemon; that it ends is all a stock client can do.
    client.wait().unwrap();
    daemon.docker(["rm", "talk"]).ok();
}

#[test]
fn a_killed_shim_takes_its_container_along_and_the_state_says_so() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"]).ok();
    let id = daemon.inspect("orphan", ".Id");
    let pid: i32 = daemon.inspect("orphan", ".State.Pid").parse().unwrap();
    let shim = parent_of(pid);
    assert!(std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap().contains(&id));
    signal(shim, Signal::SIGKILL);
    assert_eq!(daemon.docker(["wait", "orphan"]).ok(), "137");
    assert_eq!(daemon.inspect("orphan", ".State.Status"), "exited");
    wait_for("the container's end", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.docker(["start", "orphan"]).ok();
    daemon.docker(["rm", "-f", "orphan"]).ok();
}

fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// Every fault point the daemon has, by its own word.
fn fault_points() -> Vec<String> {
    let list = cleat_tests::run(
        std::process::Command::new(cleat_tests::binary("cleatd")).arg("--list-fault-points"),
    );
    list.ok().lines().map(str::to_owned).collect()
}

#[test]
fn a_daemon_killed_between_any_two_steps_leaves_nothing_half() {
    let points = fault_points();
    assert!(points.len() >= 12, "too few fault points: {points:?}");
    let mut daemon = TestDaemon::with_busybox();
    for point in &points {
        daemon.terminate();
        daemon.spawn_with(&[("CLEAT_FAULT", point)]);
        daemon.wait_ready();
        // A whole life. Whichever of these meets the point loses its daemon; the others then fail to connect.
        for command in [
            &[
                "create",
                "--name",
                "victim",
                // The image has files there.
                "-v",
                "/etc",
                "-p",
                "127.0.0.1:0:80",
                "busybox",
                "sleep",
                "1000",
            ][..],
            &["start", "victim"],
            &["stop", "-t", "0", "victim"],
            &["rm", "-v", "victim"],
        ] {
            daemon.docker(command.iter().copied());
        }
        daemon.wait_dead();
        daemon.spawn();
        let names = daemon.docker(["ps", "-a", "--format", "{{.Names}}"]).ok();
        if names == "victim" {
            // Whole: it can be started, stopped and removed.
            daemon.docker(["start", "victim"]).ok();
            assert_eq!(daemon.inspect("victim", ".State.Running"), "true", "after {point}");
            daemon.docker(["rm", "-f", "-v", "victim"]).ok();
        }
        // Or gone, and the name is free.
        daemon.docker(["run", "--rm", "--name", "victim", "busybox", "true"]).ok();
        assert_eq!(daemon.docker(["ps", "-aq"]).ok(), "", "after {point}");
        assert_eq!(
            daemon.docker(["volume", "ls", "-q"]).ok(),
            "",
            "a volume is left after {point}"
        );
    }
}

#[test]
fn a_volume_whose_filling_was_cut_short_is_filled_again() {
    let mut daemon = TestDaemon::with_busybox();
    daemon.terminate();
    daemon.spawn_with(&[("CLEAT_FAULT", "create.amid-copy")]);
    daemon.wait_ready();
    daemon.docker(["create", "--name", "first", "-v", "data:/etc", "busybox"]).expect(1);
    daemon.wait_dead();
    let data = daemon.path("root/volumes/data/_data");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "the copy was not cut short");
    daemon.spawn();
    let names = daemon.docker(["run", "--rm", "-v", "data:/d", "busybox", "ls", "/d"]).ok();
    assert!(["group", "passwd"].iter().all(|name| names.contains(name)), "{names}");
    assert_eq!(
        std::fs::read_to_string(data.join("passwd")).unwrap(),
        std::fs::read_to_string(daemon.path("busybox/etc/passwd")).unwrap()
    );
    daemon.docker(["rm", "first"]).ok();
    daemon.docker(["volume", "rm", "data"]).ok();
}

#[test]
fn a_stop_whose_end_no_daemon_saw_is_still_the_users() {
    let mut daemon = TestDaemon::with_busybox();
    let script = "trap 'touch /gate/told; until [ -e /gate/open ]; do usleep 5000; done; exit 0' TERM; while :; do usleep 5000; done";
    let run = |name: &str, policy: &str, script: &str| {
        let head = ["run", "-d", "--name", name, "--restart", policy, "-v", "gate:/gate"];
        daemon.docker(head.into_iter().chain(["busybox", "sh", "-c", script])).ok();
    };
    run("stopped", "unless-stopped", script);
    run("witness", "always", "exec sleep 1000");
    let pid = daemon.inspect("stopped", ".State.Pid");
    let gate = daemon.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "gate"]).ok();
    let mut stop = daemon
        .docker_command()
        .args(["stop", "-t", "600", "stopped"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = |name: &str| std::path::Path::new(&gate).join(name);
    wait_for("the signal", || file("told").exists().then_some(()));
    // What the daemon starts again when it is back, side by side with what it would start wrongly.
    let witness: i32 = daemon.inspect("witness", ".State.Pid").parse().unwrap();
    daemon.kill();
    stop.wait().unwrap();
    signal(parent_of(witness), Signal::SIGKILL);
    std::fs::write(file("open"), "").unwrap();
    wait_for("the container's end", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.spawn();
    wait_for("the witness", || {
        (daemon.inspect("witness", ".State.Running") == "true").then_some(())
    });
    assert_eq!(daemon.inspect("stopped", ".State.Status"), "exited");
    assert_eq!(daemon.inspect("stopped", ".State.ExitCode"), "0");
    daemon.docker(["rm", "-f", "stopped", "witness"]).ok();
    daemon.docker(["volume", "rm", "gate"]).ok();
}

#[test]
fn a_daemon_that_is_told_to_stop_leaves_containers_running() {
    let mut daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "on", "busybox", "sleep", "1000"]).ok();
    let pid = daemon.inspect("on", ".State.Pid");
    daemon.terminate();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    daemon.spawn();
    assert_eq!(daemon.inspect("on", ".State.Pid"), pid);
}

#[test]
fn a_follower_that_knows_no_chunks_gets_the_bytes_alone() {
    let daemon = TestDaemon::with_busybox();
    let script = "echo one; sleep 1000";
    daemon.docker(["run", "-dt", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    let mut old = UnixStream::connect(daemon.path("cleat.sock")).unwrap();
    old.write_all(b"GET /containers/talker/logs?stdout=1&follow=1 HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(old).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    assert!(lines.by_ref().any(|line| line == "Connection: close" || line == "connection: close"));
    assert!(lines.by_ref().any(|line| line == "one"), "the log, raw");
    daemon.docker(["rm", "-f", "talker"]).ok();
    assert_eq!(lines.next(), None, "the end of the run is the end of the connection");
}

#[test]
fn a_hangup_takes_over_what_can_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.json");
    std::fs::write(&file, r#"{"labels": ["stage=one"], "mtu": 1400}"#).unwrap();
    let flags = vec!["--config-file".to_owned(), file.display().to_string()];
    let daemon = TestDaemon::with(Options { flags, ..Options::default() });
    daemon.import_busybox();
    daemon.docker(["run", "-d", "--name", "on", "busybox", "sleep", "1000"]).ok();
    let shown = |what: &str| daemon.docker(["info", "-f", what]).ok();
    let hang_up = || signal(daemon.pid(), Signal::SIGHUP);
    assert_eq!(shown("{{json .Labels}} {{.DefaultRuntime}}"), r#"["stage=one"] runc"#);

    // A file that makes no sense changes nothing.
    std::fs::write(&file, r#"{"labels": ["stage=two"], "nonsense": 1}"#).unwrap();
    hang_up();
    wait_for("the mistake to be told", || daemon.log().contains("nonsense").then_some(()));
    assert_eq!(shown("{{json .Labels}}"), r#"["stage=one"]"#);

    let told = serde_json::json!({
        "labels": ["stage=two"],
        "mtu": 1300,
        "default-runtime": "other",
        "default-shm-size": "8m",
        "registry-mirrors": ["http://127.0.0.1:1"],
        "runtimes": { "other": { "path": cleat_tests::binary("cleat-runc") } },
    });
    std::fs::write(&file, told.to_string()).unwrap();
    hang_up();
    let labels = r#"["stage=two"]"#;
    wait_for("the reload", || (shown("{{json .Labels}}") == labels).then_some(()));
    assert_eq!(
        shown("{{.DefaultRuntime}} {{.RegistryConfig.Mirrors}}"),
        "other [http://127.0.0.1:1/]"
    );
    let event = || {
        let format = "{{.Action}} {{index .Actor.Attributes \"labels\"}}";
        let range = ["events", "--filter", "type=daemon", "--since", "1h", "--until", "0s"];
        daemon.docker(range.into_iter().chain(["--format", format])).ok()
    };
    wait_for("its event", || (event() == format!("reload {labels}")).then_some(()));
    daemon.docker(["run", "-d", "--name", "new", "busybox", "sleep", "1000"]).ok();
    let runtime_and_shm = "{{.HostConfig.Runtime}} {{.HostConfig.ShmSize}}";
    for (name, expected) in [("on", "runc 67108864"), ("new", "other 8388608")] {
        assert_eq!(daemon.docker(["inspect", "-f", runtime_and_shm, name]).ok(), expected);
    }
    // The bridge is made once.
    let mtu = daemon.docker(["exec", "new", "cat", "/sys/class/net/eth0/mtu"]).ok();
    assert_eq!(mtu, "1400");
    daemon.docker(["rm", "-f", "on", "new"]).ok();
}

#[test]
fn what_the_daemon_took_along_comes_back_with_it() {
    let flags = vec!["--stop-containers".to_owned()];
    let mut daemon = TestDaemon::with(Options { flags, ..Options::default() });
    daemon.import_busybox();
    for name in ["kept", "stopped"] {
        let head = ["run", "-d", "--restart", "unless-stopped", "--stop-signal", "KILL", "--name"];
        daemon.docker(head.into_iter().chain([name, "busybox", "sleep", "1000"])).ok();
    }
    daemon.docker(["stop", "stopped"]).ok();
    let pid = daemon.inspect("kept", ".State.Pid");
    daemon.terminate();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    daemon.spawn();
    wait_for("what ran to run again", || {
        (daemon.inspect("kept", ".State.Running") == "true").then_some(())
    });
    assert_eq!(daemon.inspect("stopped", ".State.Status"), "exited");
    daemon.docker(["rm", "-f", "kept", "stopped"]).ok();
}
