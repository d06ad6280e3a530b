//! Health checks: the shim makes the probes, the daemon tells what they found.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use cleat_tests::{TestDaemon, wait_for};

/// The events of one container, from the daemon's beginning on. To be had before the container is: a daemon keeps few.
struct Events {
    client: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn of(daemon: &TestDaemon, name: &str) -> Self {
        let filter = format!("container={name}");
        let format = "{{.Action}}|{{.Actor.Attributes.exitCode}}";
        let mut client = daemon
            .docker_command()
            .args(["events", "--since", "0", "--filter", &filter, "--format", format])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        Self { client, lines }
    }

    /// Returns the events up to the next `action`, which is the last of them.
    fn until(&mut self, action: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in &mut self.lines {
            let line = line.unwrap();
            let (name, exit_code) = line.split_once('|').unwrap();
            let exit_code = exit_code.replace("<no value>", "");
            seen.push(format!("{name} {exit_code}").trim_end().to_owned());
            if name == action {
                return seen;
            }
        }
        panic!("the events end without {action:?}: {seen:?}");
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Runs a container with a health check: `flags` of `docker run`.
fn run(daemon: &TestDaemon, name: &str, flags: &[&str]) {
    let head = ["run", "-d", "--name", name];
    let tail = ["busybox", "sleep", "1000"];
    daemon.docker(head.into_iter().chain(flags.iter().copied()).chain(tail)).ok();
}

fn status(daemon: &TestDaemon, name: &str) -> String {
    daemon.docker(["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.Status}}"]).ok()
}

fn log_length(daemon: &TestDaemon, name: &str) -> usize {
    daemon.inspect(name, "len .State.Health.Log").parse().unwrap()
}

#[test]
fn a_container_becomes_healthy_and_unhealthy_again() {
    let daemon = TestDaemon::with_busybox();
    let check = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "100ms"];
    daemon
        .docker(["create", "--name", "web"].into_iter().chain(check).chain([
            "--health-retries",
            "2",
            "busybox",
            "sleep",
            "1000",
        ]))
        .ok();
    assert_eq!(daemon.inspect("web", ".State.Health"), "<nil>");
    let shown =
        |health: &str| daemon.docker(["ps", "-qa", "--filter", &format!("health={health}")]).ok();
    assert!(!shown("none").is_empty());
    let mut events = Events::of(&daemon, "web");
    daemon.docker(["start", "web"]).ok();
    let seen = events.until("health_status: unhealthy");
    let probe = [
        "exec_create: /bin/sh -c test -e /tmp/ok",
        "exec_start: /bin/sh -c test -e /tmp/ok",
        "exec_die 1",
    ];
    let expected = [&["create", "start"][..], &probe, &probe, &["health_status: unhealthy"]];
    assert_eq!(seen, expected.concat());
    assert!(status(&daemon, "web").ends_with(" (unhealthy)"), "{}", status(&daemon, "web"));
    assert!(daemon.inspect("web", ".State.Health.FailingStreak").parse::<u32>().unwrap() >= 2);
    daemon.docker(["exec", "web", "touch", "/tmp/ok"]).ok();
    events.until("health_status: healthy");
    assert!(status(&daemon, "web").ends_with(" (healthy)"));
    assert!(!shown("healthy").is_empty() && shown("none").is_empty());
    assert_eq!(daemon.inspect("web", ".State.Health.Status"), "healthy");
    assert_eq!(daemon.inspect("web", ".State.Health.FailingStreak"), "0");
    daemon.docker(["exec", "web", "rm", "/tmp/ok"]).ok();
    events.until("health_status: unhealthy");
    wait_for("a log of five", || (log_length(&daemon, "web") == 5).then_some(()));
    assert!(daemon.inspect("web", "range .State.Health.Log}}{{.ExitCode}}{{end").ends_with("1"));
    daemon.docker(["exec", "web", "touch", "/tmp/ok"]).ok();
    events.until("health_status: healthy");
    // What it has found stays known when it ends, and when it runs again.
    daemon.docker(["stop", "-t", "0", "web"]).ok();
    assert_eq!(daemon.inspect("web", ".State.Health.Status"), "unhealthy");
    assert_eq!(log_length(&daemon, "web"), 5);
    let last = "(index .State.Health.Log 0).Start";
    assert!(daemon.inspect("web", last).starts_with("20"));
    daemon.docker(["start", "web"]).ok();
    assert_eq!(log_length(&daemon, "web"), 5);
    events.until("start");
    // The layer still has the file.
    events.until("health_status: healthy");
}

#[test]
fn a_probe_that_takes_too_long_is_killed_with_its_children() {
    let daemon = TestDaemon::with_busybox();
    let mut events = Events::of(&daemon, "slow");
    let flags = ["--health-cmd", "echo out; sleep 2000; true", "--health-interval", "50ms"];
    run(
        &daemon,
        "slow",
        &[&flags[..], &["--health-timeout", "300ms", "--health-retries", "2"]].concat(),
    );
    let seen = events.until("health_status: unhealthy");
    let ends: Vec<_> = seen.iter().filter(|action| action.starts_with("exec_die")).collect();
    assert_eq!(ends, ["exec_die 137", "exec_die 137"]);
    let text = r#""Health check exceeded timeout (300ms): out\n""#;
    wait_for("a probe that came to say something", || {
        let outputs = daemon.inspect("slow", "range .State.Health.Log}}{{json .Output}} {{end");
        outputs.contains(text).then_some(())
    });
    assert_eq!(daemon.inspect("slow", "(index .State.Health.Log 0).ExitCode"), "-1");
    wait_for("no more than the probe that is under way", || {
        let top = daemon.docker(["top", "slow", "-o", "pid,args"]).ok();
        (top.lines().filter(|line| line.contains("sleep 2000") && !line.contains("sh")).count()
            <= 1)
            .then_some(())
    });
}

#[test]
fn a_probe_that_cannot_be_started_says_why() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "import",
            "-c",
            r#"HEALTHCHECK --interval=100ms --retries=1 CMD ["/nope", "a b"]"#,
            daemon.path("busybox.tar").to_str().unwrap(),
            "checked",
        ])
        .ok();
    let mut events = Events::of(&daemon, "bad");
    daemon.docker(["run", "-d", "--name", "bad", "checked", "/bin/sleep", "1000"]).ok();
    let seen = events.until("health_status: unhealthy");
    let expected = [
        "create",
        "start",
        "exec_create: /nope a b",
        "exec_start: /nope a b",
        "health_status: unhealthy",
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        daemon.inspect("bad", "(index .State.Health.Log 0).Output"),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory"
    );
    // The image's check can be turned off, or have another command.
    daemon
        .docker(["run", "-d", "--name", "off", "--no-healthcheck", "checked", "/bin/sleep", "1000"])
        .ok();
    assert_eq!(daemon.inspect("off", ".State.Health"), "<nil>");
    assert!(!status(&daemon, "off").contains("health"));
    let mut events = Events::of(&daemon, "own");
    daemon
        .docker([
            "run",
            "-d",
            "--name",
            "own",
            "--health-cmd",
            "/bin/true",
            "checked",
            "/bin/sleep",
            "1000",
        ])
        .ok();
    events.until("health_status: healthy");
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let daemon = TestDaemon::with_busybox();
    let flags = ["--health-cmd", "false", "--health-interval", "1h", "--health-retries", "1"];
    let early = ["--health-start-period", "1h", "--health-start-interval", "50ms"];
    run(&daemon, "early", &[&flags[..], &early].concat());
    assert!(status(&daemon, "early").ends_with(" (health: starting)"));
    wait_for("three probes", || (log_length(&daemon, "early") >= 3).then_some(()));
    assert_eq!(daemon.inspect("early", ".State.Health.Status"), "starting");
    assert_eq!(daemon.inspect("early", ".State.Health.FailingStreak"), "0");
}

#[test]
fn probes_go_on_while_no_daemon_runs_and_the_state_is_true_afterwards() {
    let mut daemon = TestDaemon::with_busybox();
    let mut events = Events::of(&daemon, "on");
    let check = "echo x >> /gate/probes; test ! -e /gate/bad";
    let flags = ["--health-cmd", check, "--health-interval", "50ms", "--health-retries", "2"];
    run(&daemon, "on", &[&flags[..], &["-v", "gate:/gate"]].concat());
    let gate = daemon.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "gate"]).ok();
    events.until("health_status: healthy");
    daemon.kill();
    std::fs::write(format!("{gate}/bad"), "").unwrap();
    let probes = || std::fs::read_to_string(format!("{gate}/probes")).unwrap().lines().count();
    // One may have begun before: of the next three, two have failed when the last begins.
    let before = probes();
    wait_for("probes without a daemon", || (probes() >= before + 4).then_some(()));
    daemon.spawn();
    assert_eq!(daemon.inspect("on", ".State.Health.Status"), "unhealthy");
    assert!(daemon.inspect("on", ".State.Health.FailingStreak").parse::<u32>().unwrap() >= 2);
    assert!(status(&daemon, "on").ends_with(" (unhealthy)"));
    let mut events = Events::of(&daemon, "on");
    std::fs::remove_file(format!("{gate}/bad")).unwrap();
    events.until("health_status: healthy");
    daemon.docker(["rm", "-f", "on"]).ok();
    daemon.docker(["volume", "rm", "gate"]).ok();
}

#[test]
fn a_pause_suspends_the_probes() {
    let daemon = TestDaemon::with_busybox();
    let mut events = Events::of(&daemon, "still");
    run(&daemon, "still", &["--health-cmd", "true", "--health-interval", "50ms"]);
    events.until("health_status: healthy");
    daemon.docker(["pause", "still"]).ok();
    assert_eq!(daemon.inspect("still", ".State.Health.Status"), "unhealthy");
    assert!(status(&daemon, "still").ends_with(" (Paused)"));
    daemon.docker(["unpause", "still"]).ok();
    events.until("unpause");
    events.until("health_status: healthy");
}

#[test]
fn a_restart_by_policy_begins_anew() {
    let daemon = TestDaemon::with_busybox();
    let script = "until [ -e /tmp/end ]; do usleep 10000; done; rm /tmp/end; exit 1";
    let head = ["run", "-d", "--name", "again", "--restart", "always", "--health-cmd", "true"];
    let tail = ["--health-interval", "50ms", "busybox", "sh", "-c", script];
    let mut events = Events::of(&daemon, "again");
    daemon.docker(head.into_iter().chain(tail)).ok();
    events.until("health_status: healthy");
    // The container's end may be faster than the exec's.
    daemon.docker(["exec", "again", "touch", "/tmp/end"]);
    events.until("die");
    events.until("start");
    events.until("health_status: healthy");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let daemon = TestDaemon::with_busybox();
    for (flag, value, message) in [
        ("--health-interval", "10us", "Interval in Healthcheck cannot be less than 1ms"),
        ("--health-timeout", "10us", "Timeout in Healthcheck cannot be less than 1ms"),
        ("--health-start-period", "10us", "StartPeriod in Healthcheck cannot be less than 1ms"),
        ("--health-start-interval", "10us", "StartInterval in Healthcheck cannot be less than 1ms"),
    ] {
        daemon.docker(["run", flag, value, "busybox"]).expect(125).says(message);
        daemon.cleat(["run", flag, value, "busybox"]).expect(125).says(message);
    }
    assert_eq!(daemon.docker(["ps", "-aq"]).ok(), "");
}

#[test]
fn our_own_client_has_the_flags() {
    let daemon = TestDaemon::with_busybox();
    let flags = ["--health-cmd", "exit 3", "--health-interval", "50ms", "--health-retries", "1"];
    let head =
        ["run", "-d", "--name", "own", "--health-timeout", "9s", "--health-start-period", "0s"];
    let tail = ["busybox", "sleep", "1000"];
    let mut events = Events::of(&daemon, "own");
    daemon.cleat(head.into_iter().chain(flags).chain(tail)).ok();
    events.until("health_status: unhealthy");
    let format = "{{.State.Health.Status}} {{(index .State.Health.Log 0).ExitCode}}";
    assert_eq!(daemon.cleat(["inspect", "--format", format, "own"]).ok(), "unhealthy 3");
    let shown =
        daemon.cleat(["ps", "--filter", "health=unhealthy", "--format", "{{.Status}}"]).ok();
    assert!(shown.ends_with(" (unhealthy)"), "{shown}");
    assert_eq!(daemon.inspect("own", "json .Config.Healthcheck.Test"), r#"["CMD-SHELL","exit 3"]"#);
}
