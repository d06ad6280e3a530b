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
