//! Cgroups that are systemd's. These take a host that systemd has booted, with cgroup v1 or v2: `make test-vm` asks for them,
//! nothing else does.

use std::{fs, path::Path, process::Command};

use cleat_tests::{TestDaemon, Traces, run, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Returns the unit of the container `name`, which runs.
fn unit(daemon: &TestDaemon, name: &str) -> String {
    let pid = daemon.inspect(name, ".State.Pid");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    // Of v1, the hierarchy that systemd itself lives by.
    let mut lines = text.lines().filter(|line| line.contains(":name=systemd:"));
    let line = lines.next().or(text.lines().last()).unwrap();
    let path = Path::new(line.rsplit(':').next().unwrap());
    let parent = path.parent().unwrap().file_name().unwrap();
    assert_eq!(parent.to_str().unwrap(), daemon.cgroup_parent());
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn show(unit: &str, property: &str) -> String {
    let shown = ["show", "-p", property, "--value", unit];
    run(Command::new("systemctl").args(shown)).ok().trim().to_owned()
}

fn wait_gone(unit: &str) {
    wait_for("the end of the unit", || (show(unit, "LoadState") == "not-found").then_some(()));
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn a_container_lives_and_ends_in_a_scope() {
    let daemon = TestDaemon::with_systemd();
    assert_eq!(daemon.docker(["info", "--format", "{{.CgroupDriver}}"]).ok(), "systemd");
    let flags = "run -d --name web --pids-limit 20 --cpus 0.5";
    // A kernel may have limits on memory for v2 only.
    let has_memory = daemon.docker(["info", "--format", "{{.MemoryLimit}}"]).ok() == "true";
    let memory: &[&str] = if has_memory { &["-m", "64m"] } else { &[] };
    let command = ["busybox", "sleep", "1000"];
    let words = flags.split(' ').chain(memory.iter().copied()).chain(command);
    daemon.docker(words).ok();
    let id = daemon.inspect("web", ".Id");
    let unit = unit(&daemon, "web");
    assert!(unit.starts_with("cleat-") && unit.ends_with(&format!("-{id}.scope")), "{unit}");
    let check = |limit: u64, tasks: &str| {
        for (property, expected) in [
            ("ActiveState", "active"),
            ("Slice", &daemon.cgroup_parent()),
            ("Delegate", "yes"),
            ("TasksMax", tasks),
            ("CPUQuotaPerSecUSec", "500ms"),
        ] {
            assert_eq!(show(&unit, property), expected, "{property}");
        }
        let format = "{{.PIDs}} {{.MemUsage}}";
        let stats = daemon.docker(["stats", "--no-stream", "--format", format, "web"]).ok();
        assert!(stats.starts_with("1 "), "{stats}");
        if has_memory {
            let property = if is_unified() { "MemoryMax" } else { "MemoryLimit" };
            assert_eq!(show(&unit, property), (limit << 20).to_string());
            assert!(stats.ends_with(&format!("/ {limit}MiB")), "{stats}");
        }
    };
    check(64, "20");
    daemon.docker(["update", "--pids-limit", "30", "web"]).ok();
    if has_memory {
        daemon.docker(["update", "-m", "96m", "--memory-swap", "-1", "web"]).ok();
    }
    check(96, "30");
    // systemd applies what it knows.
    run(Command::new("systemctl").arg("daemon-reload")).ok();
    check(96, "30");
    assert!(daemon.docker(["top", "web"]).ok().contains("sleep 1000"));
    daemon.docker(["pause", "web"]).ok();
    daemon.docker(["unpause", "web"]).ok();
    let own = daemon.docker(["exec", "web", "tail", "-n", "1", "/proc/self/cgroup"]).ok();
    assert_eq!(own == "0::/", is_unified(), "{own}");
    daemon.docker(["stop", "-t", "0", "web"]).ok();
    wait_gone(&unit);
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn a_name_is_free_again_as_soon_as_the_container_has_ended() {
    let daemon = TestDaemon::with_systemd();
    daemon.docker(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    for _ in 0..5 {
        daemon.docker(["restart", "-t", "0", "web"]).ok();
    }
    unit(&daemon, "web");
    // The shim's own restarts.
    let flags = ["run", "-d", "--name", "again", "--restart", "on-failure:4", "busybox", "false"];
    daemon.docker(flags).ok();
    daemon.docker(["wait", "again"]).ok();
    wait_for("the last restart", || {
        let state = daemon.inspect("again", "printf \"%d %s\" .RestartCount .State.Status");
        (state == "4 exited").then_some(())
    });
    assert_eq!(daemon.inspect("again", ".State.Error"), "");
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn what_the_oom_killer_met_ends_alone() {
    let daemon = TestDaemon::with_systemd();
    if daemon.docker(["info", "--format", "{{.MemoryLimit}}"]).ok() == "false" {
        return;
    }
    let hog = "x=a; while :; do x=$x$x; done";
    let script = format!("sh -c '{hog}'; echo ended with $?; exec sleep 1000");
    let flags = ["run", "-d", "--name", "hog", "-m", "32m", "--memory-swap", "32m", "busybox"];
    daemon.docker(flags.into_iter().chain(["sh", "-c", &script])).ok();
    wait_for("the hog's end", || {
        daemon.docker(["logs", "hog"]).ok().contains("ended with 137").then_some(())
    });
    assert_eq!(daemon.inspect("hog", ".State.Running"), "true");
    assert_eq!(show(&unit(&daemon, "hog"), "ActiveState"), "active");
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn parents_are_slices() {
    let daemon = TestDaemon::with_systemd();
    let text = "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"";
    daemon.docker(["create", "--cgroup-parent", "/x", "busybox"]).expect(1).says(text);
    let nested = daemon.cgroup_parent().replace(".slice", "-own.slice");
    let flags = ["run", "--rm", "--cgroupns", "host", "--cgroup-parent", &nested, "busybox"];
    let own = daemon.docker(flags.into_iter().chain(["cat", "/proc/self/cgroup"])).ok();
    let expected = format!("/{}/{nested}/cleat-", daemon.cgroup_parent());
    assert!(own.contains(&expected), "{own}");
    run(Command::new("systemctl").args(["stop", &nested])).ok();
    for slice in Traces::directories(&format!("{}/{nested}", daemon.cgroup_parent())) {
        fs::remove_dir(slice).unwrap();
    }
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn whoever_dies_leaves_no_unit() {
    let mut daemon = TestDaemon::with_systemd();
    daemon.docker(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let scope = unit(&daemon, "web");
    daemon.kill();
    daemon.spawn();
    assert_eq!(unit(&daemon, "web"), scope);
    let pid: i32 = daemon.inspect("web", ".State.Pid").parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    kill(Pid::from_raw(shim.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    wait_for("the end to be known", || {
        (daemon.inspect("web", ".State.Status") == "exited").then_some(())
    });
    wait_gone(&scope);
    daemon.docker(["start", "web"]).ok();
    assert_eq!(unit(&daemon, "web"), scope);
}

#[test]
#[ignore = "systemd is to run: make test-vm"]
fn a_container_keeps_the_driver_that_it_was_started_with() {
    let mut daemon = TestDaemon::with_systemd();
    daemon.docker(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let scope = unit(&daemon, "web");
    let restart = |daemon: &mut TestDaemon, systemd| {
        daemon.terminate();
        daemon.set_systemd(systemd);
        daemon.spawn();
    };
    restart(&mut daemon, false);
    assert_eq!(daemon.docker(["info", "--format", "{{.CgroupDriver}}"]).ok(), "cgroupfs");
    assert!(daemon.docker(["top", "web"]).ok().contains("sleep 1000"));
    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "web"];
    assert_eq!(daemon.docker(stats).ok(), "1");
    daemon.docker(["restart", "-t", "0", "web"]).ok();
    wait_gone(&scope);
    let pid = daemon.inspect("web", ".State.Pid");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(text.contains(&format!("{}/", daemon.cgroup_parent())), "{text}");
    restart(&mut daemon, true);
    assert!(daemon.docker(["top", "web"]).ok().contains("sleep 1000"));
    daemon.docker(["restart", "-t", "0", "web"]).ok();
    assert_eq!(unit(&daemon, "web"), scope);
    // Each takes away what is its own.
    daemon.docker(["rm", "-f", "web"]).ok();
    restart(&mut daemon, false);
}
