//! Limits hold, and what meets them is told so.

use cleat_tests::TestDaemon;

#[test]
fn a_container_over_its_memory_is_killed_and_the_state_says_why() {
    let daemon = TestDaemon::with_busybox();
    let hog = "x=a; while :; do x=$x$x; done";
    daemon.docker(["run", "--name", "hog", "-m", "32m", "busybox", "sh", "-c", hog]).expect(137);
    assert_eq!(daemon.inspect("hog", ".State.OOMKilled"), "true");
    assert_eq!(daemon.inspect("hog", ".State.ExitCode"), "137");
}

#[test]
fn limits_reach_the_kernel_and_follow_an_update() {
    let daemon = TestDaemon::with_busybox();
    let flags = [
        "run",
        "-d",
        "--name",
        "limited",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "--cpu-shares",
        "512",
    ];
    daemon.docker(flags.into_iter().chain(["busybox", "sleep", "1000"])).ok();
    let read = |file: &str| daemon.docker(["exec", "limited", "cat", file]).ok();
    assert_eq!(read("/sys/fs/cgroup/memory/memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "50000");
    assert_eq!(read("/sys/fs/cgroup/cpu/cpu.shares"), "512");
    assert_eq!(read("/sys/fs/cgroup/pids/pids.max"), "20");
    daemon
        .docker(["update", "-m", "128m", "--memory-swap", "-1", "--pids-limit", "30", "limited"])
        .ok();
    assert_eq!(read("/sys/fs/cgroup/memory/memory.limit_in_bytes"), (128 << 20).to_string());
    assert_eq!(read("/sys/fs/cgroup/pids/pids.max"), "30");
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
