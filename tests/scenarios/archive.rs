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
fn a_stopped_container_shows_the_images_that_it_mounts() {
    let daemon = TestDaemon::with_busybox();
    let change = |from: &str, to: &str, script: &str| {
        daemon.docker(["run", "--name", "maker", from, "sh", "-c", script]).ok();
        daemon.docker(["commit", "maker", to]).ok();
        daemon.docker(["rm", "maker"]).ok();
    };
    // One name that is in two layers, one that goes, one that one layer alone has.
    change("busybox", "half:1", "mkdir -p /d/e; echo 1 > /d/e/one; echo x > /d/gone; mkdir /f");
    change("half:1", "whole:1", "echo 2 > /d/e/two; rm /d/gone; echo 3 > /f/three");
    let mount = |options: &str| format!("type=image,source=whole:1,target={options}");
    let all = ["/all", "/d,image-subpath=d", "/two,image-subpath=d/e/two", "/f,image-subpath=f"];
    let [all, merged, file, single] = all.map(mount);
    let mut create = vec!["create", "--name", "box"];
    for mount in [&all, &merged, &file, &single] {
        create.extend(["--mount", mount]);
    }
    create.extend(["busybox", "sleep", "1000"]);
    daemon.docker(create).ok();
    let copied = |place: &str| {
        let target = daemon.path("out");
        let ran = daemon.docker(["cp", &format!("box:{place}"), &target.to_string_lossy()]);
        let text = std::fs::read_to_string(&target).unwrap_or_default();
        let _ = std::fs::remove_file(&target);
        if ran.code == 0 { Ok(text) } else { Err(ran.stderr) }
    };
    for state in ["created", "running", "exited"] {
        for (place, text) in [
            ("/all/d/e/one", "1\n"),
            ("/all/bin/../d/e/two", "2\n"),
            ("/d/e/one", "1\n"),
            ("/d/e/two", "2\n"),
            ("/two", "2\n"),
            ("/f/three", "3\n"),
        ] {
            assert_eq!(copied(place).as_deref(), Ok(text), "{state} {place}");
        }
        for place in ["/d/gone", "/all/d/gone"] {
            assert!(copied(place).unwrap_err().contains("Could not find the file"), "{state}");
        }
        let new = daemon.path("new");
        std::fs::write(&new, "new").unwrap();
        for place in ["box:/all/d/", "box:/d/", "box:/f/"] {
            let ran = daemon.docker(["cp", &new.to_string_lossy(), place]);
            ran.expect(1).says("read-only");
        }
        let next = match state {
            "created" => "start",
            "running" => "kill",
            _ => break,
        };
        daemon.docker([next, "box"]).ok();
        if next == "kill" {
            daemon.docker(["wait", "box"]).ok();
        }
    }
    daemon.docker(["rm", "box"]).ok();
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
