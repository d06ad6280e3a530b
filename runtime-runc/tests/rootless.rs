//! Containers of somebody who is not root.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Nobody's number on any host.
const USER: u32 = 54_321;

/// A bundle that is the user's, with the configuration that `spec --rootless` writes for them.
fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    let state = bundle.directory.join("state");
    fs::create_dir(&state).unwrap();
    give(&bundle.directory);
    let output = worker(&bundle).args(["spec", "--rootless"]).output().unwrap();
    succeeded(output);
    let path = bundle.directory.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
    bundle.spec = spec;
    bundle
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// The worker as that user. Its binary lies where they may not go: a copy does not.
fn worker(bundle: &Bundle) -> Command {
    let copy = bundle.directory.join("worker");
    if !copy.exists() {
        // By another process: a child that another test forks just now would hold it open for writing, and it could not be executed.
        let program = bundle.worker().get_program().to_owned();
        let mut install = Command::new("install");
        assert!(install.args(["-m", "755"]).arg(program).arg(&copy).status().unwrap().success());
    }
    let mut command = Command::new(copy);
    command.arg("--root").arg(bundle.directory.join("state")).uid(USER).gid(USER);
    command.current_dir(&bundle.directory).stdin(Stdio::null());
    command
}

fn run(bundle: &Bundle) -> Output {
    bundle.write();
    chown(bundle.directory.join("config.json"), Some(USER), Some(USER)).unwrap();
    worker(bundle).arg("run").arg(&bundle.id).output().unwrap()
}

#[test]
fn a_user_s_container_has_root_rights_over_what_is_the_user_s() {
    let mut bundle = bundle(
        "id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; echo x > /tmp/x; hostname; ls /dev/null",
    );
    bundle.spec["root"]["readonly"] = false.into();
    let text = succeeded(run(&bundle));
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "54321", "1", "deny", "cleat-runc", "/dev/null"]);
    let made = fs::metadata(bundle.rootfs().join("tmp/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
}

/// What `spec --rootless` asks for, and binds of the host's: of a directory of the user's, and of one whose flags are not the user's to
/// clear.
#[test]
fn a_user_s_mounts_are_there_and_as_read_only_as_they_should_be() {
    let script = r#"
        awk '{ shown[$2] = $3 " " substr($4, 1, 2) } END { n = split("/proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup", at);
            for (i = 1; i <= n; i++) print at[i], shown[at[i]] }' /proc/self/mounts
        cgroup=/sys/fs/cgroup; [ -d $cgroup/pids ] && cgroup=$cgroup/pids
        cat $cgroup/cgroup.procs > /dev/null && echo its cgroup
        mkdir $cgroup/x; echo x > /mnt/rw/x; cat /mnt/ro/x; echo y > /mnt/ro/x; test -d /mnt/sys/kernel && mkdir /mnt/sys/x
    "#;
    let mut bundle = bundle(script);
    let own = bundle.directory.join("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(USER), Some(USER)).unwrap();
    for (at, source, options) in [
        ("/mnt/rw", &*own, "rbind"),
        ("/mnt/ro", &*own, "rbind,ro"),
        ("/mnt/sys", Path::new("/sys"), "rbind,ro"),
    ] {
        fs::create_dir_all(bundle.rootfs().join(&at[1..])).unwrap();
        bundle.mount(at, "bind", source, options);
    }
    let output = run(&bundle);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, complaints) = (text(&output.stdout), text(&output.stderr));
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cgroup = if is_v2 { "cgroup2" } else { "tmpfs" };
    let expected = format!(
        "/proc proc rw\n/dev tmpfs rw\n/dev/pts devpts rw\n/dev/shm tmpfs rw\n/dev/mqueue mqueue rw\n/sys sysfs ro\n\
         /sys/fs/cgroup {cgroup} ro\nits cgroup\nx\n"
    );
    assert_eq!(out, expected, "{complaints}");
    assert_eq!(complaints.matches("Read-only file system").count(), 3, "{complaints}");
    assert_eq!(complaints.lines().count(), 3, "{complaints}");
    let made = fs::metadata(own.join("x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    bundle.assert_nothing_left();
}

#[test]
fn a_user_s_container_takes_execs_and_is_removed() {
    let bundle = bundle("exec sleep 1000");
    bundle.write();
    let verb = |verb: &str, flags: &[&str], rest: &[&str]| {
        worker(&bundle).arg(verb).args(flags).arg(&bundle.id).args(rest).output().unwrap()
    };
    let mut start = worker(&bundle);
    start.args(["run", "--detach", &bundle.id]).stdout(Stdio::null());
    assert!(start.status().unwrap().success());
    assert_eq!(bundle.status(), "running");
    let look = ["/bin/sh", "-c", "id -u; test -d /proc/1 && readlink /proc/1/exe"];
    assert_eq!(succeeded(verb("exec", &[], &look)), "0\n/bin/busybox\n");
    succeeded(verb("delete", &["--force"], &[]));
    assert!(!verb("state", &[], &[]).status.success());
    bundle.assert_nothing_left();
}

#[test]
fn a_user_s_created_container_takes_an_exec_and_every_signal() {
    let bundle = bundle("exec sleep 1000");
    bundle.write();
    let verb = |verb: &str, flags: &[&str], rest: &[&str]| {
        worker(&bundle).arg(verb).args(flags).arg(&bundle.id).args(rest).output().unwrap()
    };
    let mut create = worker(&bundle);
    create.args(["create", &bundle.id]).stdout(Stdio::null());
    assert!(create.status().unwrap().success());
    assert_eq!(succeeded(verb("exec", &[], &["/bin/id", "-u"])), "0\n");
    succeeded(verb("kill", &["--all"], &["KILL"]));
    bundle.wait_for_status("stopped");
    // There is nobody left, which is what was wanted.
    succeeded(verb("kill", &["--all"], &["KILL"]));
    succeeded(verb("delete", &[], &[]));
    bundle.assert_nothing_left();
}

#[test]
fn what_takes_root_is_refused() {
    let mut bundle = bundle("true");
    bundle.spec["linux"]["resources"] = json!({"pids": {"limit": 10}});
    let text = String::from_utf8(run(&bundle).stderr).unwrap();
    assert!(text.contains("rootless needs no limits + no cgrouppath"), "{text}");
    bundle.spec["linux"]["resources"] = Value::Null;
    bundle.namespace("user", None);
    bundle.spec["linux"]["uidMappings"] = Value::Null;
    bundle.spec["linux"]["gidMappings"] = Value::Null;
    let text = String::from_utf8(run(&bundle).stderr).unwrap();
    assert!(text.contains("rootless container requires user namespaces"), "{text}");
    bundle.assert_nothing_left();
}

#[test]
fn ids_of_others_take_a_helper() {
    let mut bundle = bundle("true");
    bundle.spec["linux"]["gidMappings"]
        .as_array_mut()
        .unwrap()
        .push(json!({"containerID": 1, "hostID": 100_000, "size": 10}));
    bundle.write();
    let mut command = worker(&bundle);
    let output = command.env("PATH", "/nowhere").arg("run").arg(&bundle.id).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("newgidmap is needed for these mappings"), "{text}");
    bundle.assert_nothing_left();
}

/// With the set-user-id helpers, and a mount namespace in which the user exists and has ids to give: the host's files stay as they are.
#[test]
fn ids_that_the_host_lends_a_user_are_mapped_by_the_helpers() {
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; chown 7:8 /tmp/x && stat -c %u:%g /tmp/x";
    let mut bundle = bundle(script);
    for name in ["newuidmap", "newgidmap"] {
        let is_there = Command::new("which").arg(name).output().unwrap().status.success();
        assert!(is_there, "{name} is needed: tests/tools.sh brings it");
    }
    fs::write(bundle.rootfs().join("tmp/x"), "").unwrap();
    give(&bundle.rootfs().join("tmp"));
    bundle.spec["root"]["readonly"] = false.into();
    for list in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][list] = json!(["CAP_CHOWN"]);
    }
    for kind in ["uidMappings", "gidMappings"] {
        bundle.spec["linux"][kind] = json!([
            {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 700_000, "size": 100}
        ]);
    }
    bundle.write();
    let place = bundle.directory.join("etc");
    fs::create_dir(&place).unwrap();
    let line = |file: &str, text: String| {
        let own = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        fs::write(place.join(file), format!("{own}{text}\n")).unwrap();
    };
    line("passwd", format!("cleat-test:x:{USER}:{USER}::/:/bin/sh"));
    line("group", format!("cleat-test:x:{USER}:"));
    line("subuid", "cleat-test:700000:100".to_owned());
    line("subgid", "cleat-test:700000:100".to_owned());
    worker(&bundle); // makes the copy
    let commands = format!(
        "for file in passwd group subuid subgid; do mount --bind {0}/$file /etc/$file; done; \
         exec setpriv --reuid {USER} --regid {USER} --clear-groups {1}/worker --root {1}/state run --bundle {1} {2}",
        place.display(),
        bundle.directory.display(),
        bundle.id
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-euc", &commands]);
    let text = succeeded(unshare.stdin(Stdio::null()).output().unwrap());
    let words: Vec<&str> = text.split_whitespace().collect();
    let map = ["0", "54321", "1", "1", "700000", "100"];
    assert_eq!(words, [&map[..], &map[..], &["0", "7:8"]].concat());
    let owner = fs::metadata(bundle.rootfs().join("tmp/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 700_006);
    bundle.assert_nothing_left();
}
