//! `docker exec`.

use cleat_tests::TestDaemon;

fn running() -> TestDaemon {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "host", "-e", "A=b", "busybox", "sleep", "1000"]).ok();
    daemon
}

#[test]
fn an_exec_runs_beside_the_container() {
    let daemon = running();
    for ran in [
        daemon.docker(["exec", "host", "sh", "-c", "echo $A"]),
        daemon.cleat(["exec", "host", "sh", "-c", "echo $A"]),
    ] {
        assert_eq!(ran.ok(), "b");
    }
    assert_eq!(
        daemon.docker(["exec", "-u", "7", "-w", "/tmp", "host", "sh", "-c", "id -u; pwd"]).ok(),
        "7\n/tmp"
    );
    assert_eq!(daemon.docker_with_stdin(["exec", "-i", "host", "cat"], b"in".to_vec()).ok(), "in");
    daemon.docker(["exec", "host", "sh", "-c", "exit 9"]).expect(9);
    daemon.docker(["exec", "host", "nope"]).expect(127);
    daemon.docker(["exec", "host", "/etc"]).expect(126);
    daemon.docker(["exec", "gone", "true"]).expect(1).says("No such container: gone");
}

#[test]
fn a_detached_exec_goes_on() {
    let daemon = running();
    daemon.docker(["exec", "-d", "host", "sh", "-c", "echo x > /done"]).ok();
    cleat_tests::wait_for("the exec's file", || {
        let ran = daemon.docker(["exec", "host", "cat", "/done"]);
        (ran.code == 0 && ran.text() == "x").then_some(())
    });
}
