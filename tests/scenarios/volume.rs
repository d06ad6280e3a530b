//! Volumes and bind mounts.

use cleat_tests::TestDaemon;

#[test]
fn a_named_volume_outlives_its_containers_and_is_filled_from_the_image() {
    let daemon = TestDaemon::with_busybox();
    let sh = |script: &str| {
        daemon.docker(["run", "--rm", "-v", "data:/etc", "busybox", "sh", "-c", script]).ok()
    };
    assert_eq!(sh("head -1 /etc/passwd"), "root:x:0:0:root:/root:/bin/sh");
    sh("echo kept > /etc/file");
    assert_eq!(sh("cat /etc/file"), "kept");
    daemon
        .docker(["run", "-d", "--name", "user", "-v", "data:/d", "busybox", "sleep", "1000"])
        .ok();
    daemon.docker(["volume", "rm", "data"]).expect(1).says("volume is in use");
    daemon.docker(["rm", "-f", "-v", "user"]).ok();
    assert_eq!(daemon.docker(["volume", "ls", "-q"]).ok(), "data");
    daemon.docker(["volume", "rm", "data"]).ok();
}

#[test]
fn an_anonymous_volume_goes_with_its_container_when_asked() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--rm", "-v", "/data", "busybox", "true"]).ok();
    assert_eq!(daemon.docker(["volume", "ls", "-q"]).ok(), "");
    daemon.docker(["run", "--name", "one", "-v", "/data", "busybox", "true"]).ok();
    daemon.docker(["rm", "one"]).ok();
    assert_eq!(daemon.docker(["volume", "ls", "-q"]).ok().len(), 64);
    daemon.docker(["volume", "prune", "-f"]).ok();
    assert_eq!(daemon.docker(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn bind_mounts_have_their_options() {
    let daemon = TestDaemon::with_busybox();
    let source = daemon.path("shared");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("in"), "from the host").unwrap();
    let source = source.to_string_lossy();
    let run = |flag: &str, script: &str| {
        daemon.docker(["run", "--rm", "-v", flag, "busybox", "sh", "-c", script])
    };
    assert_eq!(run(&format!("{source}:/m"), "cat /m/in; echo x > /m/out").ok(), "from the host");
    assert_eq!(std::fs::read_to_string(daemon.path("shared/out")).unwrap(), "x\n");
    run(&format!("{source}:/m:ro"), "echo y > /m/out").expect(1).says("Read-only file system");
    // What -v names and does not exist is made; what --mount names is not.
    run(&format!("{source}/new:/m"), "true").ok();
    assert!(daemon.path("shared/new").is_dir());
    let mount = format!("type=bind,source={source}/none,target=/m");
    daemon
        .docker(["run", "--rm", "--mount", &mount, "busybox"])
        .expect(125)
        .says("bind source path does not exist");
}

#[test]
fn volumes_from_another_container() {
    let daemon = TestDaemon::with_busybox();
    daemon
        .docker([
            "run",
            "--name",
            "one",
            "-v",
            "/data",
            "busybox",
            "sh",
            "-c",
            "echo shared > /data/f",
        ])
        .ok();
    assert_eq!(
        daemon.docker(["run", "--rm", "--volumes-from", "one", "busybox", "cat", "/data/f"]).ok(),
        "shared"
    );
    daemon.docker(["rm", "-v", "one"]).ok();
}
