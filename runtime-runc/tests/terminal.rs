//! Terminals: the master goes to who asked, the container has a session on the other side.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, wait_for};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

/// Runs a verb with a console socket, and returns the terminal's master.
fn with_terminal(bundle: &Bundle, verb: &[&str], rest: &[&str]) -> File {
    let path = bundle.directory.join("console");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = bundle.worker();
    command
        .args(verb)
        .arg("--console-socket")
        .arg(&path)
        .args(rest)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let (socket, _) = listener.accept().unwrap();
    let (_, mut fds) = cleat_sys::fdpass::recv(&socket, &mut [0; 64]).unwrap();
    assert!(child.wait().unwrap().success());
    File::from(fds.remove(0))
}

fn read_until(master: &mut File, wanted: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 512]);
    while !text.contains(wanted) {
        let count =
            master.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.spec["process"]["terminal"] = true.into();
    bundle.spec["process"]["consoleSize"] = json!({"height": 31, "width": 97});
    bundle.write();
    bundle
}

#[test]
fn a_container_s_terminal_comes_by_the_console_socket() {
    let bundle = bundle("tty; stty size; echo x > /dev/console; exec cat");
    let directory = bundle.directory.to_str().unwrap();
    let mut master =
        with_terminal(&bundle, &["run", "--detach", "--bundle", directory], &[&bundle.id]);
    let text = read_until(&mut master, "x\r\n");
    assert!(text.starts_with("/dev/pts/0\r\n31 97\r\n"), "{text}");
    // Once from the terminal, once from the program: it runs.
    master.write_all(b"hello\n").unwrap();
    read_until(&mut master, "hello\r\nhello\r\n");
    // Control-C reaches the foreground group, and a first process ignores signals it has no handler for.
    master.write_all(b"\x03again\n").unwrap();
    read_until(&mut master, "again\r\nagain\r\n");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn an_exec_s_terminal_comes_by_the_console_socket() {
    let mut container = Bundle::shell("exec sleep 1000");
    container.spec["process"]["terminal"] = false.into();
    container.start();
    let rest = ["--tty", &container.id, "/bin/sh", "-c", "tty; exec cat"];
    let mut master = with_terminal(&container, &["exec", "--detach"], &rest);
    read_until(&mut master, "/dev/pts/0\r\n");
    master.write_all(b"hello\n").unwrap();
    // Once from the terminal, once from the program: it runs, and the key cannot meet a shell between two commands.
    read_until(&mut master, "hello\r\nhello\r\n");
    master.write_all(b"\x03").unwrap();
    let end = |master: &mut File| {
        let mut rest = Vec::new();
        // EIO is a terminal's end of file.
        let _ = master.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    };
    assert!(!end(&mut master).contains("hello"), "control-C did not end it");
}

#[test]
fn without_a_socket_the_worker_is_the_terminal_s_other_end() {
    let bundle = bundle("tty; read line; echo got $line; exit 6");
    let mut command = bundle.worker();
    command
        .args(["run", "--bundle"])
        .arg(&bundle.directory)
        .arg(&bundle.id)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A pipe gets no carriage returns: those are for whose terminal it is.
    assert!(text.starts_with("/dev/pts/0\n") || text.starts_with("hello\n"), "{text:?}");
    assert!(text.ends_with("got hello\n"), "{text:?}");
    assert_eq!(output.status.code(), Some(6));
    wait_for("the state to go", || !bundle.verb("state", &[], &[]).status.success());
}

/// CVE-2025-52565: what lies at the terminal's places is checked, not trusted.
#[test]
fn a_forged_multiplexer_gives_no_terminal() {
    let (_master, slave) = cleat_sys::pty::open().unwrap();
    let slave = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
    let other = "/dev/pts/ptmx is not the multiplexer of a devpts";
    let link = "open /dev/pts/ptmx: too many symbolic links encountered";
    type Forge<'a> = &'a dyn Fn(&mut Bundle, &Path);
    let ways: [(Forge<'_>, &str); 4] = [
        (&|_, ptmx| fs::write(ptmx, "").unwrap(), other),
        // The right number on a wrong filesystem, a wrong one on the right filesystem, and the right one by a way of its own.
        (&|_, ptmx| mknod(ptmx, SFlag::S_IFCHR, Mode::all(), makedev(5, 2)).unwrap(), other),
        (&|bundle, _| bundle.mount("/dev/pts/ptmx", "bind", &slave, "bind"), other),
        (&|_, ptmx| symlink("/own/ptmx", ptmx).unwrap(), link),
    ];
    for (forge, refusal) in ways {
        let mut bundle = bundle("true");
        let dev = bundle.bind_dev();
        fs::create_dir(dev.join("pts")).unwrap();
        forge(&mut bundle, &dev.join("pts/ptmx"));
        bundle.mount("/own", "devpts", "devpts", "newinstance,ptmxmode=0666");
        bundle.spec["linux"]["maskedPaths"] = json!([]);
        let refused = |output: std::process::Output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains(refusal), "{text}");
        };
        refused(bundle.run());
        bundle.assert_nothing_left();
        // An exec comes when the container's programs have been there.
        bundle.spec["process"]["terminal"] = false.into();
        bundle.spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
        bundle.start();
        refused(bundle.verb("exec", &["--tty"], &["/bin/true"]));
    }
}

/// CVE-2025-52565: a `/dev/console` that is a link is no way for the terminal to cover something else.
#[test]
fn a_link_at_the_console_is_not_followed() {
    for target in ["/etc/target", "target", "../etc/target", "/proc/sysrq-trigger"] {
        let mut bundle = bundle("true");
        let dev = bundle.bind_dev();
        fs::create_dir(dev.join("pts")).unwrap();
        for file in [bundle.rootfs().join("etc/target"), dev.join("target")] {
            fs::write(file, "").unwrap();
        }
        symlink(target, dev.join("console")).unwrap();
        bundle.mount("/dev/pts", "devpts", "devpts", "newinstance,ptmxmode=0666");
        bundle.spec["linux"]["maskedPaths"] = json!([]);
        let output = bundle.run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("/dev/console"), "{target}: {text}");
        bundle.assert_nothing_left();
        // The same with a file there is a terminal.
        fs::remove_file(dev.join("console")).unwrap();
        fs::write(dev.join("console"), "").unwrap();
        assert_eq!(bundle.run().status.code(), Some(0));
    }
}
