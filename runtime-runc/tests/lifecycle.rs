//! The verbs in their order, exit codes, what is left.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded, wait_for};
use std::fs;
use std::io::Read;
use std::process::Stdio;

#[test]
fn run_shows_the_output_and_passes_the_exit_code_on() {
    let output = Bundle::shell("echo hello; echo trouble >&2; exit 7").run();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"hello\n"[..], &b"trouble\n"[..])
    );
}

#[test]
fn a_program_killed_by_a_signal_is_128_and_the_signal() {
    // Init of a PID namespace is immune to its own signals: a child of its own kills it from outside here.
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.write();
    let mut child = bundle
        .worker()
        .args(["run", "--bundle"])
        .arg(&bundle.directory)
        .arg(&bundle.id)
        .spawn()
        .unwrap();
    wait_for("it to run", || {
        bundle.verb("state", &[], &[]).status.success() && bundle.status() == "running"
    });
    succeeded(bundle.verb("kill", &[], &["KILL"]));
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.assert_nothing_left();
}

#[test]
fn nothing_is_left_after_a_run() {
    let bundle = Bundle::shell("true");
    bundle.output();
    bundle.assert_nothing_left();
}

#[test]
fn a_container_is_created_started_stopped_and_deleted() {
    let bundle =
        Bundle::shell("trap 'exit 0' TERM; echo up > /tmp/up; while :; do sleep 0.01; done");
    bundle.write();
    let pid_file = bundle.directory.join("pid");
    let mut create = bundle.worker();
    create
        .args(["create", "--bundle"])
        .arg(&bundle.directory)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(&bundle.id);
    assert!(create.stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(bundle.status(), "created");
    assert_eq!(bundle.state()["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert!(!bundle.rootfs().join("tmp/up").exists(), "it ran before start");
    succeeded(bundle.verb("start", &[], &[]));
    wait_for("the program", || bundle.rootfs().join("tmp/up").exists());
    assert_eq!(bundle.status(), "running");
    let again = bundle.verb("start", &[], &[]);
    assert!(
        String::from_utf8_lossy(&again.stderr)
            .contains("cannot start an already running container")
    );
    let early = bundle.verb("delete", &[], &[]);
    assert!(String::from_utf8_lossy(&early.stderr).contains("that is not stopped: running"));
    succeeded(bundle.verb("kill", &[], &["TERM"]));
    bundle.wait_for_status("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    succeeded(bundle.verb("delete", &[], &[]));
    bundle.assert_nothing_left();
}

#[test]
fn the_shim_may_start_it_through_the_fifo() {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let bundle = Bundle::shell("echo up > /tmp/up; exec sleep 1000");
    bundle.write();
    let mut create = bundle.worker();
    create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    assert!(create.stdout(Stdio::null()).status().unwrap().success());
    let fifo = bundle.directory.join("state").join(&bundle.id).join("exec.fifo");
    let mut writer =
        fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    fs::remove_file(&fifo).unwrap();
    writer.write_all(b"0").unwrap();
    wait_for("the program", || bundle.rootfs().join("tmp/up").exists());
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_created_container_is_deleted_without_force() {
    let bundle = Bundle::shell("true");
    bundle.write();
    let mut create = bundle.worker();
    create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    assert!(create.stdout(Stdio::null()).status().unwrap().success());
    succeeded(bundle.verb("delete", &[], &[]));
    bundle.assert_nothing_left();
}

#[test]
fn a_dead_init_is_told_to_who_starts_it() {
    let bundle = Bundle::shell("true");
    bundle.write();
    let mut create = bundle.worker();
    create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    assert!(create.stdout(Stdio::null()).status().unwrap().success());
    succeeded(bundle.verb("kill", &[], &["KILL"]));
    bundle.wait_for_status("stopped");
    let start = bundle.verb("start", &[], &[]);
    assert!(
        String::from_utf8_lossy(&start.stderr)
            .contains("cannot start a container that has stopped")
    );
}

#[test]
fn a_name_is_taken_once() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let second = bundle.run();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("container with given ID already exists"), "{text}");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_container_is_listed_and_its_processes_are_shown() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    let list =
        |flags: &[&str]| succeeded(bundle.worker().arg("list").args(flags).output().unwrap());
    assert_eq!(list(&["-q"]), format!("{}\n", bundle.id));
    let json: serde_json::Value = serde_json::from_str(&list(&["-f", "json"])).unwrap();
    assert_eq!(
        (json[0]["id"].as_str(), json[0]["status"].as_str()),
        (Some(bundle.id.as_str()), Some("running"))
    );
    assert!(list(&[]).starts_with("ID "));
    assert_eq!(succeeded(bundle.verb("ps", &["-f", "json"], &[])), format!("[{pid}]\n"));
    // It may not have become the program yet.
    wait_for("the program", || succeeded(bundle.verb("ps", &[], &[])).contains("sleep 1000"));
}

#[test]
fn the_foreground_forwards_signals() {
    let bundle =
        Bundle::shell("trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.01; done");
    bundle.write();
    let mut command = bundle.worker();
    command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    // The wait begins after the program does: until then the signal would end the worker as it ends any program.
    let blocks = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("SigBlk:")).unwrap().to_owned();
        !line.ends_with("0000000000000000")
    };
    wait_for("the worker to wait", blocks);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), ("got it\n", Some(5)));
}

#[test]
fn hooks_run_in_their_order_and_places() {
    let mut bundle = Bundle::shell("echo program >> /tmp/hooks");
    let log = bundle.rootfs().join("tmp/hooks");
    let outside = |name: &str| {
        let script = format!("cat > /dev/null; echo {name} >> {}", log.display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.spec["hooks"][name] = outside(name);
    }
    let inside = "/bin/busybox cat > /dev/null; echo startContainer >> /tmp/hooks";
    bundle.spec["hooks"]["startContainer"] =
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", inside]}]);
    bundle.output();
    let lines = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| *line != "poststart").collect(); // which runs beside the program
    assert_eq!(
        lines,
        ["prestart", "createRuntime", "createContainer", "startContainer", "program", "poststop"]
    );
    assert!(fs::read_to_string(&log).unwrap().contains("poststart"));
}

#[test]
fn a_hook_that_fails_fails_the_container() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["hooks"]["createRuntime"] =
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 4"]}]);
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("error running createRuntime hook #0: exit status 4, stdout: , stderr: no"),
        "{text}"
    );
    bundle.assert_nothing_left();
}

/// Takes a handle to a process from a socket that a worker was told of.
fn pidfd_from(listener: &std::os::unix::net::UnixListener) -> std::os::fd::OwnedFd {
    let (socket, _) = listener.accept().unwrap();
    cleat_sys::fdpass::recv(&socket, &mut [0; 64]).unwrap().1.pop().unwrap()
}

#[test]
fn a_created_container_ends_politely_by_the_handle_it_gave() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.write();
    let path = bundle.directory.join("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut command = bundle.worker();
    command.args(["create", "--pidfd-socket"]).arg(&path).arg("--bundle").arg(&bundle.directory);
    assert!(
        command.arg(&bundle.id).stdout(std::process::Stdio::null()).status().unwrap().success()
    );
    let init = cleat_sys::pidfd::PidFd::from(pidfd_from(&listener));
    assert_eq!(bundle.status(), "created");
    init.send_signal(libc::SIGTERM).unwrap();
    bundle.wait_for_status("stopped");
}

#[test]
fn an_exec_gives_a_handle_too() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let path = bundle.directory.join("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let flags = ["--detach", "--pidfd-socket", path.to_str().unwrap()];
    let mut command = bundle.worker();
    command.arg("exec").args(flags).arg(&bundle.id).args(["/bin/sleep", "1000"]);
    assert!(command.stdout(std::process::Stdio::null()).status().unwrap().success());
    let process = cleat_sys::pidfd::PidFd::from(pidfd_from(&listener));
    process.kill().unwrap();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.spec["hooks"]["poststart"] = serde_json::json!([{"path": "/bin/false"}]);
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("error running poststart hook #0:"), "{text}");
    bundle.assert_nothing_left();
}

#[test]
fn hooks_begin_where_they_expect_to() {
    let mut bundle = Bundle::shell("true");
    let script = |name: &str| {
        let script = format!("cat > /dev/null; pwd > {}", bundle.directory.join(name).display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let (runtime, container) = (script("runtime"), script("container"));
    bundle.spec["hooks"]["createRuntime"] = runtime;
    bundle.spec["hooks"]["createContainer"] = container;
    // It has the program's environment, with what was missing there.
    bundle.spec["process"]["env"] = serde_json::json!(["A=b"]);
    let inside = "/bin/busybox cat > /dev/null; echo $A $HOME > /tmp/env";
    bundle.spec["hooks"]["startContainer"] =
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", inside]}]);
    bundle.spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    bundle.output();
    let read = |name: &str| fs::read_to_string(bundle.directory.join(name)).unwrap();
    assert_eq!(read("runtime").trim(), bundle.directory.to_str().unwrap());
    assert_eq!(read("container").trim(), bundle.rootfs().to_str().unwrap());
    assert_eq!(read("rootfs/tmp/env"), "b /\n");
}

#[test]
fn help_is_for_every_verb_and_costs_nothing() {
    let bundle = Bundle::shell("true");
    let help = |words: &[&str]| succeeded(bundle.worker().args(words).output().unwrap());
    assert!(help(&["--help"]).contains("cleat-runc - Open Container Initiative runtime"));
    for verb in ["create", "exec", "events", "restore", "update"] {
        assert!(
            help(&[verb, "-h"]).starts_with(&format!("NAME:\n   cleat-runc {verb} - ")),
            "{verb}"
        );
    }
    let version = help(&["--version"]);
    assert!(version.lines().nth(1).unwrap().starts_with("commit: "), "{version}");
}

#[test]
fn a_kept_container_is_there_after_its_end_and_after_a_start_that_failed() {
    let mut bundle = Bundle::shell("exit 5");
    let kept = |bundle: &Bundle, code| {
        assert_eq!(bundle.run_with(&["--keep"]).status.code(), Some(code));
        assert_eq!(bundle.status(), "stopped");
        let again = bundle.run_with(&["--keep"]);
        let text = String::from_utf8(again.stderr).unwrap();
        assert!(text.contains("container with given ID already exists"), "{text}");
        let paused = String::from_utf8(bundle.verb("pause", &[], &[]).stderr).unwrap();
        assert!(paused.contains("container not running"), "{paused}");
        succeeded(bundle.verb("delete", &[], &[]));
        bundle.assert_nothing_left();
    };
    kept(&bundle, 5);
    bundle.spec["process"]["args"] = serde_json::json!(["/no/such"]);
    kept(&bundle, 1);
}

#[test]
fn whether_cgroups_are_a_users_is_said_in_gos_words() {
    let mut bundle = Bundle::shell("true");
    for (global, code) in [
        (&["--rootless=TRUE"][..], 0),
        (&["--rootless", "f"], 0),
        (&["--rootless="], 0),
        (&["--rootless", "bad"], 1),
    ] {
        bundle.global = global;
        let output = bundle.run();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{global:?} {text}");
        let words = "runc run failed: strconv.ParseBool: parsing \\\"bad\\\": invalid syntax";
        assert_eq!(text.contains(words), code == 1, "{text}");
    }
    bundle.assert_nothing_left();
}
