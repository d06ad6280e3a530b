//! What keeps a container in.

use cleat_tests::TestDaemon;

fn sh(daemon: &TestDaemon, script: &str) -> String {
    daemon.docker(["run", "--rm", "busybox", "sh", "-c", script]).ok()
}

#[test]
fn a_default_container_is_confined() {
    let daemon = TestDaemon::with_busybox();
    assert_eq!(sh(&daemon, "grep CapEff /proc/self/status | cut -f2"), "00000000a80425fb");
    assert_eq!(sh(&daemon, "grep CapInh /proc/self/status | cut -f2"), "0000000000000000");
    assert_eq!(sh(&daemon, "mount -t tmpfs x /tmp 2>&1 | grep -c -i -e denied -e permitted"), "1");
    assert_eq!(sh(&daemon, "echo 1 > /proc/sys/kernel/domainname 2>&1 || echo no"), "no");
    assert_eq!(sh(&daemon, "cat /proc/kcore | wc -c"), "0");
    assert_eq!(sh(&daemon, "ls /sys/firmware | wc -l"), "0");
    assert_eq!(sh(&daemon, "ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
    assert_eq!(sh(&daemon, "echo $$"), "1");
    assert_eq!(sh(&daemon, "ls /dev | grep -c -e sda -e vda -e mem || true"), "0");
}

#[test]
fn a_privileged_container_is_not() {
    let daemon = TestDaemon::with_busybox();
    let run = [
        "run",
        "--rm",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        "mount -t tmpfs x /tmp && test -e /dev/kmsg && echo ok",
    ];
    assert_eq!(daemon.docker(run).ok(), "ok");
}

#[test]
fn directories_of_the_engine_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = TestDaemon::start();
    for (path, most) in [("root", 0o710), ("run", 0o711), ("cleat.sock", 0o660)] {
        let mode = std::fs::metadata(daemon.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !most, 0, "{path} has mode {mode:o}");
    }
}
