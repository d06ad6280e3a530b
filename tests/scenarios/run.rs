//! `docker run`, and `cleat run`, from the outside.

use std::io::Read;

use cleat_tests::{Options, Ran, TestDaemon, run_with_stdin, static_worker, wait_for};

/// Runs a command with both clients and gives each result to `check`.
fn both(daemon: &TestDaemon, args: &[&str], check: impl Fn(Ran)) {
    check(daemon.docker(args.iter().copied()));
    check(daemon.cleat(args.iter().copied()));
}

#[test]
fn a_container_says_hi() {
    let daemon = TestDaemon::with_busybox();
    both(&daemon, &["run", "--rm", "busybox", "echo", "hi"], |ran| assert_eq!(ran.ok(), "hi"));
}

#[test]
fn exit_codes_are_dockers() {
    let daemon = TestDaemon::with_busybox();
    for (script, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        // A first process ignores signals it has no handler for, so the shell below it gets them.
        let script = format!("sh -c '{script}'; exit $?");
        both(&daemon, &["run", "--rm", "busybox", "sh", "-c", &script], |ran| {
            drop(ran.expect(code))
        });
    }
    both(&daemon, &["run", "--rm", "busybox", "nope"], |ran| {
        ran.expect(127).says("exec: \"nope\": executable file not found in $PATH");
    });
    both(&daemon, &["run", "--rm", "busybox", "/etc"], |ran| drop(ran.expect(126)));
    both(&daemon, &["run", "--rm", "--no-such-flag", "busybox"], |ran| drop(ran.expect(125)));
    both(&daemon, &["run", "--rm", "--memory", "1", "busybox"], |ran| drop(ran.expect(125)));
}

#[test]
fn stdin_reaches_the_container_and_ends() {
    let daemon = TestDaemon::with_busybox();
    let args = ["run", "-i", "--rm", "busybox", "cat"];
    assert_eq!(daemon.docker_with_stdin(args, b"x\n".to_vec()).ok(), "x");
    assert_eq!(run_with_stdin(daemon.cleat_command().args(args), b"x\n".to_vec()).ok(), "x");
}

#[test]
fn two_hundred_megabytes_go_through_unharmed() {
    let daemon = TestDaemon::with_busybox();
    let mut bytes = vec![0; 200 << 20];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes[..1 << 20]))
        .unwrap();
    for chunk in 1..200u32 {
        let (head, tail) = bytes.split_at_mut((chunk as usize) << 20);
        tail[..1 << 20].copy_from_slice(&head[..1 << 20]);
        tail[..4].copy_from_slice(&chunk.to_be_bytes());
    }
    let args = ["run", "-i", "--rm", "--log-driver", "none", "busybox", "cat"];
    let ran = daemon.docker_with_stdin(args, bytes.clone()).expect(0);
    assert!(
        ran.stdout == bytes,
        "{} of {} bytes came back, or others",
        ran.stdout.len(),
        bytes.len()
    );
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let daemon = TestDaemon::with_busybox();
    both(&daemon, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"], |ran| {
        assert_eq!(ran.stderr, "err\n");
        assert_eq!(ran.ok(), "out");
    });
}

#[test]
fn what_was_asked_for_is_what_runs() {
    let daemon = TestDaemon::with_busybox();
    let sh = |flags: &[&str], script: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", script]);
        daemon.docker(args).ok()
    };
    assert_eq!(sh(&["-e", "A=b c"], "echo $A"), "b c");
    assert_eq!(sh(&["-w", "/not/there/yet"], "pwd"), "/not/there/yet");
    assert_eq!(sh(&["-u", "nobody"], "id -u; id -g"), "65534\n65534");
    assert_eq!(sh(&["-u", "7:8"], "id -u; id -g"), "7\n8");
    assert_eq!(sh(&["-h", "web"], "hostname; grep -c web /etc/hosts"), "web\n1");
    assert_eq!(
        sh(&["--read-only"], "touch /x 2>&1 || echo refused"),
        "touch: /x: Read-only file system\nrefused"
    );
    assert_eq!(sh(&["--tmpfs", "/t:size=1m"], "df -k /t | tail -1 | awk '{print $2}'"), "1024");
    assert_eq!(sh(&["--shm-size", "8m"], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "8192");
    assert_eq!(
        sh(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status | cut -f2"),
        "0000000000000000"
    );
    assert_eq!(
        sh(&["--cap-drop", "ALL", "--cap-add", "CHOWN"], "grep CapEff /proc/self/status | cut -f2"),
        "0000000000000001"
    );
    assert_eq!(
        sh(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status | cut -f2"),
        "1"
    );
    assert_eq!(
        sh(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status | cut -f2"),
        "0"
    );
    assert_eq!(sh(&[], "grep Seccomp: /proc/self/status | cut -f2"), "2");
    assert_eq!(sh(&["--ulimit", "nofile=99:100"], "ulimit -n; ulimit -Hn"), "99\n100");
    assert_eq!(
        sh(&["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward"),
        "0"
    );
    assert_eq!(
        sh(
            &["--device", "/dev/null:/dev/hole"],
            "echo x >/dev/hole && test -c /dev/hole && echo ok"
        ),
        "ok"
    );
    assert_eq!(sh(&["--entrypoint", "/bin/echo"], "x"), "sh -c x");
    assert_eq!(sh(&["--network", "none"], "ls /sys/class/net"), "lo");
}

#[test]
fn an_init_is_the_first_process_and_reaps() {
    // The binary has to run in an image without a C library: the static build.
    let flags = vec!["--init-path".to_owned(), static_worker().to_string_lossy().into_owned()];
    let daemon = TestDaemon::with(Options { flags, ..Options::default() });
    daemon.import_busybox();
    let script = "(sleep 0.01 &); cat /proc/1/comm; exit 7";
    let ran = daemon.docker(["run", "--rm", "--init", "busybox", "sh", "-c", script]).expect(7);
    assert_eq!(ran.text(), "docker-init");
    daemon.docker(["run", "--rm", "--init", "busybox", "nope"]).expect(127);
    let shown = |flags: &[&'static str]| {
        let command = ["busybox", "grep", "-E", "SigBlk|SigIgn", "/proc/self/status"];
        let args = ["run", "--rm"].into_iter().chain(flags.iter().copied()).chain(command);
        daemon.docker(args).expect(0).text().to_owned()
    };
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000";
    assert_eq!(shown(&["--init"]), none);
    assert_eq!(shown(&[]), none);
}

#[test]
fn an_init_hands_signals_on() {
    let flags = vec!["--init-path".to_owned(), static_worker().to_string_lossy().into_owned()];
    let daemon = TestDaemon::with(Options { flags, ..Options::default() });
    daemon.import_busybox();
    let script = "echo on; exec sleep 1000";
    let flags = ["run", "-d", "--init", "--name", "gentle", "busybox", "sh", "-c", script];
    daemon.docker(flags).expect(0);
    // The kernel drops what comes before the init has its handlers.
    wait_for("the init's child", || (daemon.docker(["logs", "gentle"]).ok() == "on").then_some(()));
    daemon.docker(["kill", "-s", "USR1", "gentle"]).expect(0);
    assert_eq!(daemon.docker(["wait", "gentle"]).text(), "138");
}

#[test]
fn a_container_with_rm_is_gone_afterwards() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--rm", "--name", "short", "busybox", "true"]).ok();
    daemon.docker(["inspect", "short"]).expect(1).says("No such object: short");
    assert_eq!(daemon.docker(["ps", "-aq"]).ok(), "");
}

#[test]
fn without_a_daemon_both_clients_say_so() {
    let mut daemon = TestDaemon::start();
    daemon.terminate();
    let sentence = format!(
        "Cannot connect to the Docker daemon at {}. Is the docker daemon running?",
        daemon.host()
    );
    both(&daemon, &["ps"], |ran| drop(ran.expect(1).says(&sentence)));
}

#[test]
fn attributes_stand_beside_each_line_of_the_log() {
    let daemon = TestDaemon::with_busybox();
    let run = [
        "run",
        "--name",
        "web",
        "--label",
        "app=front",
        "--label",
        "x.y=1",
        "-e",
        "ROLE=r",
        "-e",
        "OTHER=o",
        "--log-opt",
        "labels-regex=^a",
        "--log-opt",
        "env-regex=^RO",
        "--log-opt",
        "tag={{.ImageName}}/{{.Name}}/{{index .ContainerLabels \"x.y\"}}",
        "busybox",
        "echo",
        "hi",
    ];
    assert_eq!(daemon.docker(run).ok(), "hi");
    assert_eq!(
        daemon.docker(["logs", "--details", "web"]).ok(),
        "ROLE=r,app=front,tag=busybox%2Fweb%2F1 hi"
    );
    let line = std::fs::read_to_string(daemon.inspect("web", ".LogPath")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["attrs"]["tag"], "busybox/web/1");
    assert_eq!(line["attrs"].as_object().unwrap().len(), 3);
    daemon.docker(["run", "--rm", "--log-driver", "none", "busybox", "echo", "hi"]).ok();
    daemon
        .docker(["run", "--log-driver", "local", "busybox", "true"])
        .expect(125)
        .says("the logging driver local is not implemented by cleat yet");
}
