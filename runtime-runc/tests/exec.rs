//! One more process in a container.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded, wait_for};
use serde_json::json;
use std::fs;
use std::process::Stdio;

fn idle() -> Bundle {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    bundle
}

#[test]
fn an_exec_is_in_every_namespace_of_the_container() {
    let bundle = idle();
    let pid = bundle.state()["pid"].to_string();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let text = succeeded(bundle.verb(
            "exec",
            &[],
            &["/bin/readlink", &format!("/proc/self/ns/{kind}")],
        ));
        let init = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(text.trim(), init.to_str().unwrap());
    }
}

#[test]
fn an_exec_has_its_exit_code_and_the_container_s_rights() {
    let bundle = idle();
    let output = bundle.verb(
        "exec",
        &[],
        &["/bin/sh", "-c", "grep CapEff /proc/self/status; cd /proc/self/fd; echo *; exit 9"],
    );
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "CapEff:\t00000000a80425fb\n0 1 2 3\n");
}

#[test]
fn flags_change_the_process() {
    let bundle = idle();
    let flags = ["--cwd", "/tmp", "--env", "A=b", "--user", "7:8", "--no-new-privs", "-g", "9"];
    let script = "pwd; echo $A; id -u; id -G; grep NoNewPrivs /proc/self/status";
    let text = succeeded(bundle.verb("exec", &flags, &["/bin/sh", "-c", script]));
    assert_eq!(text, "/tmp\nb\n7\n8 9\nNoNewPrivs:\t1\n");
}

#[test]
fn capabilities_can_be_added() {
    let bundle = idle();
    let text = succeeded(bundle.verb(
        "exec",
        &["--cap", "CAP_SYS_PTRACE"],
        &["/bin/grep", "CapEff", "/proc/self/status"],
    ));
    assert_eq!(text, "CapEff:\t00000000a80c25fb\n");
}

#[test]
fn a_process_comes_from_a_file() {
    let bundle = idle();
    let file = bundle.directory.join("process.json");
    let process = json!({
        "args": ["sh", "-c", "echo $A; id -u"], "cwd": "/", "env": ["PATH=/bin", "A=b"], "user": {"uid": 5, "gid": 5},
    });
    fs::write(&file, process.to_string()).unwrap();
    assert_eq!(
        succeeded(bundle.verb("exec", &["--process", file.to_str().unwrap()], &[])),
        "b\n5\n"
    );
}

#[test]
fn a_detached_exec_leaves_its_pid() {
    let bundle = idle();
    let file = bundle.directory.join("exec.pid");
    let mut command = bundle.worker();
    command
        .args(["exec", "--detach", "--pid-file"])
        .arg(&file)
        .arg(&bundle.id)
        .args(["/bin/sleep", "999"]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let pid = fs::read_to_string(&file).unwrap();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(arguments, b"/bin/sleep\x00999\x00");
    let text = succeeded(bundle.verb("ps", &["-f", "json"], &[]));
    assert!(text.contains(&pid), "{text}");
}

#[test]
fn stdin_reaches_the_exec() {
    use std::io::Write;
    let bundle = idle();
    let mut command = bundle.worker();
    command
        .args(["exec", &bundle.id, "/bin/wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 300_000]).unwrap();
    assert_eq!(succeeded(child.wait_with_output().unwrap()), "300000\n");
}

#[test]
fn a_stopped_container_takes_no_exec() {
    let bundle = idle();
    succeeded(bundle.verb("kill", &[], &["KILL"]));
    bundle.wait_for_status("stopped");
    let output = bundle.verb("exec", &[], &["/bin/true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("exec failed: cannot exec in a stopped container")
    );
}

/// CVE-2016-9962 and CVE-2024-21626: nothing of the host is open in the way of an exec's directory.
#[test]
fn the_working_directory_of_an_exec_is_never_outside() {
    let bundle = idle();
    for number in 0..16 {
        let output =
            bundle.verb("exec", &["--cwd", &format!("/proc/self/fd/{number}")], &["/bin/pwd"]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{number}: {output:?}");
    }
}

#[test]
fn execs_at_the_same_time_do_not_disturb_each_other() {
    let bundle = idle();
    let children: Vec<_> = (0..16)
        .map(|number| {
            let mut command = bundle.worker();
            command
                .args(["exec", &bundle.id, "/bin/echo", &number.to_string()])
                .stdout(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        assert_eq!(succeeded(child.wait_with_output().unwrap()), format!("{number}\n"));
    }
    wait_for("the execs to be gone", || {
        succeeded(bundle.verb("ps", &["-f", "json"], &[])).matches(',').count() == 0
    });
}

/// The controller's line of `/proc/self/cgroup`, or the unified one.
fn cgroup_of(text: &str, controller: &str) -> String {
    let line = text.lines().find(|line| line.split(':').nth(1) == Some(controller));
    line.or(text.lines().last()).unwrap().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn an_exec_joins_the_cgroups_below_that_it_is_told_to() {
    let bundle = idle();
    let look = ["/bin/cat", "/proc/self/cgroup"];
    // Outside the cgroup namespace's view the path is the whole one.
    let directory = bundle.directory.join("state").join(&bundle.id).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(directory).unwrap()).unwrap();
    let paths = state["cgroup_paths"].as_object().unwrap();
    let (controller, pids) =
        ["pids", ""].iter().find_map(|name| Some((*name, paths.get(*name)?.as_str()?))).unwrap();
    fs::create_dir(std::path::Path::new(pids).join("below")).unwrap();
    let flag = if controller.is_empty() { "below".to_owned() } else { "pids:below".to_owned() };
    let text = succeeded(bundle.verb("exec", &["--cgroup", &flag], &look));
    assert_eq!(cgroup_of(&text, controller), "/below", "{text}");
    assert_eq!(
        cgroup_of(&succeeded(bundle.verb("exec", &["--cgroup", "/"], &look)), controller),
        "/"
    );
    for (flag, text) in [
        ("..", "bad sub cgroup path"),
        ("nope", "error adding pid "),
        ("whaaat:/", "unknown controller "),
    ] {
        let output = bundle.verb("exec", &["--cgroup", flag], &look);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(255) && errors.contains(text), "{flag}: {errors}");
    }
}

/// Which CPUs this test may run on.
fn allowed() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn an_exec_runs_on_the_cpus_it_is_given_and_else_on_all() {
    let bundle = idle();
    let first: String = allowed().chars().take_while(char::is_ascii_digit).collect();
    let look = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"];
    let file = bundle.directory.join("process.json");
    let process =
        json!({"args": look, "cwd": "/", "execCPUAffinity": {"initial": first, "final": first}});
    fs::write(&file, process.to_string()).unwrap();
    let text = succeeded(bundle.verb("exec", &["--process", file.to_str().unwrap()], &[]));
    assert_eq!(text, format!("Cpus_allowed_list:\t{first}\n"));
    // What the caller is pinned to is not the container's.
    let worker = bundle.worker();
    let mut pinned = std::process::Command::new("taskset");
    pinned.args(["-c", &first]).arg(worker.get_program()).args(worker.get_args());
    let output = pinned.args(["exec", &bundle.id]).args(look).output().unwrap();
    let everywhere = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    assert_eq!(succeeded(output), format!("Cpus_allowed_list:\t{everywhere}"));
}

#[test]
fn capabilities_are_ambient_where_the_container_has_inheritable_ones() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.spec["process"]["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
    bundle.start();
    let look = ["/bin/grep", "CapAmb", "/proc/self/status"];
    let text = succeeded(bundle.verb("exec", &["--cap", "CAP_CHOWN"], &look));
    assert_eq!(text, "CapAmb:\t0000000000000001\n");
}
