//! `docker cp`.

use cleat_tests::TestDaemon;

#[test]
fn files_go_in_and_come_out_of_running_and_stopped_containers() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker(["run", "-d", "--name", "box", "-v", "vol:/vol", "busybox", "sleep", "1000"])
        .ok();
    let (source, target) = (daemon.path("in.txt"), daemon.path("out.txt"));
    std::fs::write(&source, "copied").unwrap();
    let (source, target) =
        (source.to_string_lossy().into_owned(), target.to_string_lossy().into_owned());
    for state in ["running", "exited"] {
        for place in ["/tmp/file", "/vol/file"] {
            daemon.docker(["cp", &source, &format!("box:{place}")]).ok();
            daemon.cleat(["cp", &format!("box:{place}"), &target]).ok();
            assert_eq!(std::fs::read_to_string(&target).unwrap(), "copied", "{state} {place}");
            std::fs::remove_file(&target).unwrap();
        }
        if state == "running" {
            daemon.docker(["kill", "box"]).ok();
            daemon.docker(["wait", "box"]).ok();
        }
    }
    daemon
        .docker(["cp", "box:/nope", &target])
        .expect(1)
        .says("Could not find the file /nope in container box");
    daemon.docker(["rm", "box"]).ok();
    daemon.docker(["volume", "rm", "vol"]).ok();
}

#[test]
fn a_link_out_of_the_container_leads_nowhere() {
    let daemon = TestDaemon::with_busybox();
    let outside = daemon.path("secret");
    std::fs::write(&outside, "secret").unwrap();
    let script = format!("ln -s {} /link; ln -s / /root/up", outside.display());
    daemon.docker(["run", "--name", "box", "busybox", "sh", "-c", &script]).ok();
    let target = daemon.path("stolen");
    let target = target.to_string_lossy();
    daemon.docker(["cp", "-L", "box:/link", &target]).expect(1);
    let mut file = daemon.path("new");
    std::fs::write(&file, "x").unwrap();
    daemon.docker(["cp", &file.to_string_lossy(), "box:/root/up/etc/new"]).ok();
    file = "/etc/new".into();
    assert!(!file.exists());
    daemon.docker(["rm", "box"]).ok();
}
