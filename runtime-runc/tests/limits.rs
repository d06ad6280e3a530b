//! Control groups and system call filters, as far as the verbs have a part in them.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded, wait_for};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// A filter that forbids one call, as engines' default profiles do.
fn filter(bundle: &mut Bundle, call: &str) {
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
}

#[test]
fn a_filter_holds_for_the_container_and_its_execs() {
    for no_new_privileges in [false, true] {
        let mut bundle =
            Bundle::shell("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; exec sleep 1000");
        bundle.spec["process"]["noNewPrivileges"] = no_new_privileges.into();
        filter(&mut bundle, "mkdir");
        bundle.start();
        let exec = bundle.verb(
            "exec",
            &[],
            &["/bin/sh", "-c", "mkdir /tmp/y 2>&1; grep Seccomp: /proc/self/status"],
        );
        let text = String::from_utf8(exec.stdout).unwrap();
        assert!(
            text.contains("Operation not permitted") && text.ends_with("Seccomp:\t2\n"),
            "{text}"
        );
        assert!(!bundle.rootfs().join("tmp/x").exists() && !bundle.rootfs().join("tmp/y").exists());
    }
}

/// Nothing that the worker does after the filter is in place may need more than a program itself does.
#[test]
fn a_filter_may_forbid_what_only_the_worker_would_use() {
    let mut bundle = Bundle::shell("echo ran");
    bundle.spec["process"]["noNewPrivileges"] = true.into();
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{
            "names": ["mount", "openat2", "open_tree", "move_mount", "pivot_root", "capset", "setresuid", "setgroups",
                "fchdir", "faccessat2", "close_range", "sendto", "socket", "clone3"],
            "action": "SCMP_ACT_KILL_PROCESS",
        }],
    });
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "ran\n", "{output:?}");
}

#[test]
fn a_filter_that_cannot_be_is_told_at_create() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_MOON"});
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SCMP_ACT_MOON"), "{output:?}");
    bundle.assert_nothing_left();
}

#[test]
fn an_allocating_program_ends_by_sigkill_at_its_memory_limit() {
    let mut bundle = Bundle::shell("exec tail /dev/zero");
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    assert_eq!(bundle.run().status.code(), Some(137));
    bundle.assert_nothing_left();
}

#[test]
fn only_the_devices_allowed_can_be_opened() {
    // /dev/loop-control: whoever may open it finds that it cannot be read.
    let mut bundle =
        Bundle::shell("mknod /tmp/node c 10 237 || exit 9; cat /tmp/node 2>&1; rm /tmp/node");
    let text = bundle.output();
    assert!(text.contains("Operation not permitted"), "{text}");
    let rules = bundle.spec["linux"]["resources"]["devices"].as_array_mut().unwrap();
    rules.push(json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rw"}));
    let text = bundle.output();
    assert!(text.contains("Invalid argument"), "{text}");
}

#[test]
fn a_paused_container_takes_no_exec_until_it_is_resumed() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    succeeded(bundle.verb("pause", &[], &[]));
    assert_eq!(bundle.status(), "paused");
    let refused = bundle.verb("exec", &[], &["/bin/true"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("cannot exec in a paused container (use --ignore-paused to override)"),
        "{text}"
    );
    succeeded(bundle.verb("resume", &[], &[]));
    assert_eq!(bundle.status(), "running");
    succeeded(bundle.verb("exec", &[], &["/bin/true"]));
    let again = bundle.verb("resume", &[], &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("container not paused"));
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    succeeded(bundle.verb("pause", &[], &[]));
    succeeded(bundle.verb("kill", &[], &["KILL"]));
    bundle.wait_for_status("stopped");
    succeeded(bundle.verb("delete", &[], &[]));
    bundle.assert_nothing_left();
    bundle.start();
    succeeded(bundle.verb("pause", &[], &[]));
    succeeded(bundle.verb("delete", &["--force"], &[]));
    bundle.assert_nothing_left();
}

#[test]
fn limits_are_updated_from_a_document_and_by_flags() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let limit = || {
        let state =
            fs::read_to_string(bundle.directory.join("state").join(&bundle.id).join("state.json"))
                .unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let paths = &state["cgroup_paths"];
        let read = |controller: &str, file: &str| {
            let directory = paths[controller].as_str().or(paths[""].as_str())?;
            fs::read_to_string(format!("{directory}/{file}"))
                .ok()
                .map(|text| text.trim().to_owned())
        };
        read("memory", "memory.limit_in_bytes").or(read("memory", "memory.max")).unwrap()
    };
    let mut command = bundle.worker();
    command.args(["update", "--resources", "-", &bundle.id]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"memory":{"limit":33554432}}"#).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(limit(), "33554432");
    succeeded(bundle.verb("update", &["--memory", "64m"], &[]));
    assert_eq!(limit(), "67108864");
}

#[test]
fn with_the_host_s_processes_in_sight_all_of_its_own_end_with_it() {
    let mut bundle = Bundle::shell("sleep 12345 & exec sleep 1000");
    bundle.namespace("pid", None);
    bundle.start();
    let count = || succeeded(bundle.verb("ps", &["-f", "json"], &[])).matches(',').count() + 1;
    wait_for("both processes", || count() == 2);
    let pids: Vec<i32> =
        serde_json::from_str(&succeeded(bundle.verb("ps", &["-f", "json"], &[]))).unwrap();
    succeeded(bundle.verb("delete", &["--force"], &[]));
    bundle.assert_nothing_left();
    wait_for("their end", || {
        pids.iter().all(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn a_cgroup_that_is_in_use_is_not_taken() {
    let first = Bundle::shell("exec sleep 1000");
    first.start();
    let mut second = Bundle::shell("true");
    second.spec["linux"]["cgroupsPath"] = first.spec["linux"]["cgroupsPath"].clone();
    let output = second.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("container's cgroup is not empty: 1 process(es) found"), "{text}");
    assert_eq!(first.status(), "running");
}

/// The agent of a notifying profile gets the listener and the state of the process.
#[test]
fn a_notifying_filter_s_listener_goes_to_its_agent() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    let path = bundle.directory.join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": path, "listenerMetadata": "hello",
        "syscalls": [{"names": ["chown"], "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.start();
    let (socket, _) = listener.accept().unwrap();
    let mut text = [0; 8192];
    let (count, fds) = cleat_sys::fdpass::recv(&socket, &mut text).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&text[..count]).unwrap();
    assert_eq!((fds.len(), state["metadata"].as_str()), (1, Some("hello")));
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["state"]["id"], bundle.id.as_str());
}

/// What the agent answers is what the program gets, in the container and in an exec, which has a listener of its own.
#[test]
fn an_agent_decides_the_calls_it_is_asked_about() {
    use cleat_sys::seccomp::{answer, receive};
    let mut bundle =
        Bundle::shell("mkdir /tmp/never && ls /tmp; mkdir /tmp/x 2>&1; exec sleep 1000");
    let path = bundle.directory.join("agent");
    let agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.write();
    let (output, exec_output) =
        (bundle.directory.join("output"), bundle.directory.join("exec-output"));
    let file = fs::File::create(&output).unwrap();
    let mut run = bundle.worker();
    run.args(["run", "--detach", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).stdout(file);
    let mut run = run.spawn().unwrap();
    let listener = || {
        let (socket, _) = agent.accept().unwrap();
        let (_, mut fds) = cleat_sys::fdpass::recv(&socket, &mut [0; 8192]).unwrap();
        fds.remove(0)
    };
    let first = listener();
    assert!(run.wait().unwrap().success());
    // Nothing is made, and the program believes it was; then it is told that there is no space.
    let asked = receive(&first).unwrap();
    assert!(asked.pid > 0);
    answer(&first, &asked, Ok(0)).unwrap();
    let asked = receive(&first).unwrap();
    answer(&first, &asked, Err(cleat_sys::Errno::ENOSPC)).unwrap();
    let expected = "mkdir: can't create directory '/tmp/x': No space left on device\n";
    wait_for("the answers", || fs::read_to_string(&output).unwrap() == expected);

    let file = fs::File::create(&exec_output).unwrap();
    let mut exec = bundle.worker();
    exec.args(["exec", &bundle.id, "/bin/sh", "-c", "mkdir /tmp/y 2>&1"]).stdout(file);
    let mut exec = exec.spawn().unwrap();
    let second = listener();
    let asked = receive(&second).unwrap();
    answer(&second, &asked, Err(cleat_sys::Errno::EDQUOT)).unwrap();
    assert_eq!(exec.wait().unwrap().code(), Some(1));
    let text = fs::read_to_string(&exec_output).unwrap();
    assert!(text.ends_with("Disk quota exceeded\n") || text.contains("quota"), "{text}");
}

/// Each operator against numbers below, at and above its own, of which the upper half counts as well.
#[test]
fn every_operator_decides_in_the_kernel_as_the_specification_says() {
    const VALUE: u64 = (1 << 32) + 6;
    let sizes = [6, (1 << 32) + 2, VALUE - 1, VALUE, VALUE + 1, 2 << 32];
    type Holds = fn(u64) -> bool;
    let operators: [(&str, Holds); 7] = [
        ("NE", |size| size != VALUE),
        ("LT", |size| size < VALUE),
        ("LE", |size| size <= VALUE),
        ("EQ", |size| size == VALUE),
        ("GE", |size| size >= VALUE),
        ("GT", |size| size > VALUE),
        ("MASKED_EQ", |size| size & VALUE == 2),
    ];
    for (operator, holds) in operators {
        let script: String = sizes
            .iter()
            .map(|size| {
                format!("busybox truncate -s {size} /tmp/f 2>/dev/null && echo no || echo yes; ")
            })
            .collect();
        let mut bundle = Bundle::shell(&script);
        let (value, value_two) = if operator == "MASKED_EQ" { (VALUE, 2) } else { (VALUE, 0) };
        let argument = json!({"index": 1, "value": value, "valueTwo": value_two, "op": format!("SCMP_CMP_{operator}")});
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["ftruncate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [argument]}],
        });
        let expected: String =
            sizes.iter().map(|size| if holds(*size) { "yes\n" } else { "no\n" }).collect();
        assert_eq!(bundle.output(), expected, "{operator}");
    }
}

#[test]
fn a_frozen_cgroup_takes_no_container() {
    let bundle = Bundle::shell("true");
    let freezers = [
        ("freezer", "freezer.state", "FROZEN"),
        ("unified", "cgroup.freeze", "1"),
        ("", "cgroup.freeze", "1"),
    ];
    let found = freezers.iter().find_map(|(hierarchy, file, frozen)| {
        let root = std::path::Path::new("/sys/fs/cgroup").join(hierarchy);
        // Where there is v2 alone, a directory of any name would be a cgroup.
        root.is_dir().then_some(())?;
        let directory = root.join("cleat-test").join(&bundle.id);
        fs::create_dir_all(&directory).ok()?;
        fs::write(directory.join(file), frozen).ok().map(|()| directory)
    });
    let directory = found.unwrap();
    let output = bundle.run();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("container's cgroup unexpectedly frozen"), "{text}");
    fs::remove_dir(directory).unwrap();
}

#[test]
fn a_filter_holds_for_the_last_hook_too() {
    let mut bundle = Bundle::shell("true");
    filter(&mut bundle, "mkdir");
    bundle.spec["linux"]["seccomp"]["syscalls"][0] =
        json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"});
    bundle.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    bundle.spec["hooks"]["startContainer"] =
        json!([{"path": "/bin/busybox", "args": ["mkdir", "/tmp/x"]}]);
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(
        text.contains("error running startContainer hook #0: signal: bad system call"),
        "{text}"
    );
}
