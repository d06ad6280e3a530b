//! What the caller is told, to the letter where engines match on it.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The `msg` of the last line of a JSON log.
fn logged(bundle: &Bundle, verb: &[&str]) -> (Option<i32>, String) {
    let log = bundle.directory.join("log");
    let mut command = bundle.worker();
    let output =
        command.args(["--log-format", "json", "--log"]).arg(&log).args(verb).output().unwrap();
    let text = fs::read_to_string(&log).unwrap_or_default();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    let message = line["msg"].as_str().unwrap().to_owned();
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{message}\n"));
    (output.status.code(), message)
}

#[track_caller]
fn create_fails(bundle: &Bundle, expected: &str) {
    bundle.write();
    let directory = bundle.directory.to_str().unwrap().to_owned();
    let (code, message) = logged(bundle, &["create", "--bundle", &directory, &bundle.id]);
    assert_eq!(
        (code, message.as_str()),
        (Some(1), format!("runc create failed: {expected}").as_str())
    );
    bundle.assert_nothing_left();
}

const INIT: &str = "unable to start container process: error during container init: ";

#[test]
fn a_program_that_cannot_be_run_is_told_at_create() {
    let told = |program: &str, text: &str| {
        create_fails(&Bundle::new(&[program]), &format!("{INIT}exec: {program:?}: {text}"))
    };
    told("nope", "executable file not found in $PATH");
    told("/x", "stat /x: no such file or directory");
    told("/etc", "is a directory: permission denied");
    let bundle = Bundle::new(&["/etc/file"]);
    fs::write(bundle.rootfs().join("etc/file"), "").unwrap();
    create_fails(&bundle, &format!("{INIT}exec: \"/etc/file\": permission denied"));
}

#[test]
fn a_program_that_is_none_says_so_on_stderr() {
    let bundle = Bundle::new(&["/bin/bad"]);
    let path = bundle.rootfs().join("bin/bad");
    fs::write(&path, "garbage").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "exec /bin/bad: exec format error\n");
}

#[test]
fn a_bind_source_that_is_not_there_is_named() {
    let mut bundle = Bundle::shell("true");
    bundle.mount("/x", "bind", "/nowhere", "rbind,ro");
    create_fails(
        &bundle,
        &format!(
            "{INIT}error mounting \"/nowhere\" to rootfs at \"/x\": bind /nowhere: no such file or directory"
        ),
    );
}

#[test]
fn a_directory_is_not_mounted_on_a_file() {
    let mut bundle = Bundle::shell("true");
    fs::write(bundle.rootfs().join("etc/file"), "").unwrap();
    bundle.mount("/etc/file", "bind", "/tmp", "rbind");
    create_fails(
        &bundle,
        &format!(
            "{INIT}error mounting \"/tmp\" to rootfs at \"/etc/file\": mount on /etc/file: not a directory"
        ),
    );
}

#[test]
fn an_option_the_filesystem_does_not_know_is_named() {
    let mut bundle = Bundle::shell("true");
    bundle.mount("/x", "tmpfs", "tmpfs", "bogus=1");
    bundle.write();
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(
        text.contains(
            "error mounting \\\"tmpfs\\\" to rootfs at \\\"/x\\\": option \\\"bogus=1\\\""
        ),
        "{text}"
    );
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["linux"]["sysctl"] = serde_json::json!({"kernel.core_pattern": "|/bin/evil"});
    create_fails(&bundle, "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace");
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["args"] = serde_json::json!([]);
    create_fails(&bundle, "args must not be empty");
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["cwd"] = "relative".into();
    create_fails(&bundle, "Cwd must be an absolute path");
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["rlimits"] =
        serde_json::json!([{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]);
    create_fails(&bundle, &format!("{INIT}invalid rlimit type: RLIMIT_MOON"));
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["rlimits"] =
        serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]);
    create_fails(
        &bundle,
        &format!(
            "{INIT}error setting rlimits for ready process: error setting rlimit type 7: invalid argument"
        ),
    );
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["terminal"] = true.into();
    create_fails(&bundle, "cannot allocate tty if runc will detach without setting console socket");
}

#[test]
fn an_exec_that_cannot_be_run_is_255() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let told = |program: &str, text: &str| {
        let (code, message) = logged(&bundle, &["exec", &bundle.id, program]);
        let expected =
            format!("exec failed: unable to start container process: exec: {program:?}: {text}");
        assert_eq!((code, message), (Some(255), expected));
    };
    told("nope", "executable file not found in $PATH");
    told("/x", "stat /x: no such file or directory");
    told("/etc", "is a directory: permission denied");
}

#[test]
fn what_is_not_there_is_not_found() {
    let bundle = Bundle::shell("true");
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        let (code, message) = logged(&bundle, &[verb, "nobody"]);
        assert_eq!((code, message.as_str()), (Some(1), "container does not exist"), "{verb}");
    }
    assert!(bundle.worker().args(["delete", "--force", "nobody"]).status().unwrap().success());
}

#[test]
fn a_checkpoint_without_criu_says_what_is_missing() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let images = bundle.directory.join("images");
    let mut command = bundle.worker();
    command
        .env("PATH", "/nowhere")
        .args(["checkpoint", "--image-path"])
        .arg(&images)
        .arg(&bundle.id);
    let text = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(text.contains("criu is needed for this and not installed"), "{text}");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_deadline_and_pinned_cpus_exclude_each_other() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["process"]["scheduler"] = json!({"policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 100_000, "period": 1_000_000});
    bundle.spec["linux"]["resources"]["cpu"] = json!({"cpus": "0,8191"});
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    if online.trim() != "0" {
        assert!(
            text.contains("process scheduler can't be used together with AllowedCPUs"),
            "{text}"
        );
    }
    bundle.assert_nothing_left();
}

#[test]
fn what_is_not_supported_is_refused_clearly() {
    let bundle = Bundle::shell("true");
    let refused = |words: &[&str]| {
        String::from_utf8(bundle.worker().args(words).output().unwrap().stderr).unwrap()
    };
    assert!(
        refused(&["update", "--l3-cache-schema", "x", "x"]).contains("container does not exist")
    );
}

#[test]
fn a_restore_that_fails_leaves_the_root_filesystem_as_it_was() {
    let bundle = Bundle::shell("true");
    bundle.write();
    let mut command = bundle.worker();
    command.args(["restore", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    let output = command.current_dir(&bundle.directory).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(bundle.rootfs().join("bin/busybox").exists() && bundle.rootfs().join("etc").exists());
    bundle.assert_nothing_left();
}

/// What makes no sense as a command line is told before anything is tried, with runc's words and codes.
#[test]
fn command_lines_fail_as_runc_s_do() {
    let bundle = Bundle::shell("true");
    for (words, code, expected) in [
        (&["nosuch"][..], 3, "No help topic for 'nosuch'"),
        (&["help", "nosuch"], 3, "No help topic for 'nosuch'"),
        (&["create"], 1, "msg=\"runc: \\\"create\\\" requires exactly 1 argument(s)\""),
        (&["create", "--nosuch", "a"], 1, "msg=\"flag provided but not defined: -nosuch\""),
        (&["exec"], 1, "msg=\"runc: \\\"exec\\\" requires a minimum of 1 argument(s)\""),
        (&["exec", "none", "true"], 255, "msg=\"exec failed: container does not exist\""),
        (
            &["run", "--detach=x", "a"],
            1,
            "msg=\"invalid boolean value \\\"x\\\" for -detach: parse error\"",
        ),
        (&["create", ""], 1, "msg=\"runc create failed: container id cannot be empty\""),
        (&["list", "-f", "bad"], 1, "msg=\"invalid format option\""),
        (&["--log", "/no/such/log", "list"], 1, "open /no/such/log: no such file or directory"),
    ] {
        let mut command = bundle.worker();
        let output = command.args(words).current_dir(&bundle.directory).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {text}");
    }
    for words in [&["help"][..], &["h"], &["help", "create"], &["create", "--help"]] {
        let text = succeeded(bundle.worker().args(words).output().unwrap());
        assert!(text.starts_with("NAME:\n"), "{words:?}: {text}");
    }
}
