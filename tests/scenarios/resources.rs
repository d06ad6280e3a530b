//! Limits hold, and what meets them is told so; on a host with cgroup v1 and on one with v2.

use std::path::Path;

use cleat_tests::{TestDaemon, wait_for};

#[test]
fn a_container_over_its_memory_is_killed_and_the_state_says_why() {
    let daemon = TestDaemon::with_busybox();
    let hog = "x=a; while :; do x=$x$x; done";
    daemon.docker(["run", "--name", "hog", "-m", "32m", "busybox", "sh", "-c", hog]).expect(137);
    assert_eq!(daemon.inspect("hog", ".State.OOMKilled"), "true");
    assert_eq!(daemon.inspect("hog", ".State.ExitCode"), "137");
}

/// Whether the controllers are on v2 alone, as `docker info` tells it.
fn is_unified(daemon: &TestDaemon) -> bool {
    let told = daemon.docker(["info", "--format", "{{.CgroupVersion}}"]).ok();
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(told, if unified { "2" } else { "1" });
    unified
}

/// What a container reads in its `/sys/fs/cgroup`: v1's file or v2's, as the host has it.
#[track_caller]
fn check_limits(daemon: &TestDaemon, limits: &[(&str, &str, &str, &str)]) {
    let unified = is_unified(daemon);
    for (v1, value_v1, v2, value_v2) in limits {
        let (file, expected) = if unified { (v2, value_v2) } else { (v1, value_v1) };
        let path = format!("/sys/fs/cgroup/{file}");
        assert_eq!(daemon.docker(["exec", "limited", "cat", &path]).ok(), *expected, "{file}");
    }
}

#[test]
fn limits_reach_the_kernel_and_follow_an_update() {
    let daemon = TestDaemon::with_busybox();
    let flags = "run -d --name limited -m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --pids-limit 20 \
        --cpu-shares 512 --cpuset-cpus 0 busybox sleep 1000";
    daemon.docker(flags.split_whitespace()).ok();
    check_limits(
        &daemon,
        &[
            ("memory/memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
            ("memory/memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"),
            ("memory/memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
            ("cpu/cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"),
            ("cpu/cpu.shares", "512", "cpu.weight", "59"),
            ("cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"),
            ("pids/pids.max", "20", "pids.max", "20"),
        ],
    );
    let update =
        "update -m 128m --memory-swap -1 --pids-limit 30 --cpu-shares 1024 --cpus 0.25 limited";
    daemon.docker(update.split_whitespace()).ok();
    check_limits(
        &daemon,
        &[
            ("memory/memory.limit_in_bytes", "134217728", "memory.max", "134217728"),
            ("cpu/cpu.cfs_quota_us", "25000", "cpu.max", "25000 100000"),
            ("cpu/cpu.shares", "1024", "cpu.weight", "100"),
            ("pids/pids.max", "30", "pids.max", "30"),
        ],
    );
    if is_unified(&daemon) {
        check_limits(&daemon, &[("", "", "memory.swap.max", "max")]);
    }
    assert_eq!(daemon.inspect("limited", ".HostConfig.Memory"), (128 << 20).to_string());
}

#[test]
fn pause_stops_and_unpause_goes_on() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "limited", "busybox", "sleep", "1000"]).ok();
    daemon.docker(["pause", "limited"]).ok();
    assert_eq!(daemon.inspect("limited", ".State.Status"), "paused");
    daemon
        .docker(["exec", "limited", "true"])
        .expect(1)
        .says("is paused, unpause the container before exec");
    daemon.docker(["unpause", "limited"]).ok();
    daemon.docker(["exec", "limited", "true"]).ok();
}

/// 10:237 is /dev/loop-control: whoever may open it is told that it cannot be read.
#[test]
fn the_devices_asked_for_can_be_used_and_no_others_and_an_update_leaves_that_alone() {
    let daemon = TestDaemon::with_busybox();
    let probe = "mknod /probe c 10 237 && cat /probe";
    let run = |flags: &[&str], says: &str| {
        let args = [&["run", "--rm"], flags, &["busybox", "sh", "-c", probe]].concat();
        daemon.docker(args).expect(1).says(says);
    };
    run(&[], "Operation not permitted");
    run(&["--device-cgroup-rule", "c 10:236 rwm"], "Operation not permitted");
    run(&["--device-cgroup-rule", "c 10:237 w"], "Operation not permitted");
    run(&["--device-cgroup-rule", "c 10:237 r"], "Invalid argument");
    run(&["--device-cgroup-rule", "c *:* rwm"], "Invalid argument");
    run(&["--privileged"], "Invalid argument");
    daemon.docker(["run", "-d", "--name", "dev", "-m", "64m", "busybox", "sleep", "1000"]).ok();
    daemon.docker(["update", "-m", "80m", "--memory-swap", "80m", "dev"]).ok();
    daemon.docker(["exec", "dev", "sh", "-c", probe]).expect(1).says("Operation not permitted");
    daemon.docker(["exec", "--privileged", "dev", "cat", "/dev/null"]).ok();
}

#[test]
fn stats_and_top_show_what_is_in_the_container() {
    let daemon = TestDaemon::with_busybox();
    let script = "sleep 1001 & x=$(head -c 3000000 /dev/zero | tr '\\0' x); sleep 1002; true";
    let flags = ["run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50"];
    daemon.docker(flags.into_iter().chain(["busybox", "sh", "-c", script])).ok();
    // The shell's own arguments have both as well, but more behind them.
    wait_for("the shell and its two children", || {
        let top = daemon.docker(["top", "busy", "-eo", "pid,args"]).ok();
        let has = |args: &str| top.lines().any(|line| line.ends_with(args));
        (top.lines().count() == 4 && has(" sleep 1001") && has(" sleep 1002")).then_some(())
    });
    let format = "{{.PIDs}} {{.MemUsage}}";
    let stats = daemon.docker(["stats", "--no-stream", "--format", format, "busy"]).ok();
    assert!(stats.starts_with("3 ") && stats.ends_with("MiB / 64MiB"), "{stats}");
    let socket = daemon.path("cleat.sock");
    let mut curl = std::process::Command::new("curl");
    curl.arg("-s").arg("--unix-socket").arg(socket);
    curl.arg("http://d/v1.47/containers/busy/stats?stream=false&one-shot=true");
    let stats: serde_json::Value = serde_json::from_str(&cleat_tests::run(&mut curl).ok()).unwrap();
    assert_eq!(stats["pids_stats"]["limit"], 50);
    assert_eq!(stats["memory_stats"]["limit"], 64 << 20);
    assert!(stats["memory_stats"]["usage"].as_u64().unwrap() > 3_000_000, "{stats}");
    assert!(stats["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap() > 0, "{stats}");
}

#[test]
fn a_container_sees_its_own_cgroups_and_changes_them_only_if_privileged() {
    let daemon = TestDaemon::with_busybox();
    let run = |flags: &str, script: &str| {
        let flags = ["run", "--rm"].into_iter().chain(flags.split_whitespace());
        daemon.docker(flags.chain(["busybox", "sh", "-c", script])).ok()
    };
    let unified = is_unified(&daemon);
    let own = "tail -n 1 /proc/self/cgroup";
    // Docker's default is a namespace where there is v2, and the host's where there is v1.
    assert_eq!(run("", own) == "0::/", unified);
    assert_eq!(run("--cgroupns private", own), "0::/");
    let parent = format!("/{}/", daemon.cgroup_parent().trim_matches('/'));
    assert!(run("--cgroupns host", own).contains(&parent));
    let make = "d=/sys/fs/cgroup; [ -d $d/pids ] && d=$d/pids; mkdir $d/mine 2>/dev/null && rmdir $d/mine && echo made || echo refused";
    assert_eq!(run("", make), "refused");
    assert_eq!(run("--privileged", make), "made");
}

/// As an engine inside a container has it: everybody in a leaf, controllers handed on, limits of its own.
#[test]
fn cgroups_made_inside_a_container_go_with_it() {
    let daemon = TestDaemon::with_busybox();
    let script = "cd /sys/fs/cgroup; if [ -d pids ]; then cd pids; else mkdir init; \
        for p in $(cat cgroup.procs); do echo $p > init/cgroup.procs; done; echo +pids > cgroup.subtree_control; fi; \
        mkdir -p in/ner; sleep 1001 & echo $! > in/ner/cgroup.procs; echo 7 > in/pids.max; echo made; sleep 1002";
    let flags = ["run", "-d", "--name", "nest", "--privileged"];
    daemon.docker(flags.into_iter().chain(["busybox", "sh", "-c", script])).ok();
    wait_for("the inner cgroups", || {
        (daemon.docker(["logs", "nest"]).ok() == "made").then_some(())
    });
    let inner = daemon.docker([
        "exec",
        "nest",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/in/pids.max || cat /sys/fs/cgroup/pids/in/pids.max",
    ]);
    assert_eq!(inner.ok(), "7");
    let inner = wait_for("both processes", || {
        let top = daemon.docker(["top", "nest", "-eo", "pid,args"]).ok();
        let pid = |args: &str| {
            let line = top.lines().find(|line| line.ends_with(args))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        pid(" sleep 1002").and(pid(" sleep 1001"))
    });
    daemon.docker(["pause", "nest"]).ok();
    daemon.docker(["unpause", "nest"]).ok();
    daemon.docker(["rm", "-f", "nest"]).ok();
    wait_for("the inner process's end", || {
        (!Path::new(&format!("/proc/{inner}")).exists()).then_some(())
    });
    // That no cgroup is left is what the daemon's end proves.
}
