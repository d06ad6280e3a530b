//! A stock containerd drives the shim, over ttrpc: the `containerd` and `ctr` that come first in `PATH` (1.6 of Debian 12 in
//! `make test`; 2.1 is held against it in the same way), with directories and a mount namespace of their own.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::SHIM;

struct Containerd {
    directory: tempfile::TempDir,
    process: Child,
}

/// Whether the test can run at all: the tools are there, and our runtime has been built.
fn possible() -> bool {
    let tools = ["containerd", "ctr", "busybox"];
    let found = tools.iter().all(|tool| {
        Command::new("which").arg(tool).output().is_ok_and(|output| output.status.success())
    });
    found && common::runtime().native
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("bin")).unwrap();
        symlink(SHIM, at("bin/containerd-shim-cleat-v1")).unwrap();
        symlink(common::runtime().binary, at("bin/cleat-runc")).unwrap();
        fs::create_dir_all(at("rootfs/bin")).unwrap();
        for name in ["proc", "dev", "sys", "tmp", "run", "etc"] {
            fs::create_dir_all(at("rootfs").join(name)).unwrap();
        }
        fs::copy("/bin/busybox", at("rootfs/bin/busybox")).unwrap();
        let path = |name: &str| at(name).to_str().unwrap().to_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("grpc"),
            path("ttrpc"),
        );
        fs::write(at("config.toml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "containerd", "--config"])
            .arg(at("config.toml"))
            .env("PATH", format!("{}:{}", path("bin"), std::env::var("PATH").unwrap()))
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let containerd = Self { directory, process };
        let began = Instant::now();
        while !containerd.ctr(&["version"]).status.success() {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", containerd.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn ctr(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.at("grpc")).args(args).stdin(Stdio::null());
        command.output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {error}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `ctr run` of a shell script, with our shim.
    fn run(&self, flags: &[&str], id: &str, script: &str) -> Output {
        let rootfs = self.at("rootfs");
        let mut args = vec!["run", "--runtime", "io.containerd.cleat.v1"];
        args.extend(flags);
        args.extend(["--rootfs", rootfs.to_str().unwrap(), id, "/bin/busybox", "sh", "-c", script]);
        self.ctr(&args)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in self.ctr(&["task", "ls", "-q"]).stdout.split(|&byte| byte == b'\n') {
            let id = String::from_utf8_lossy(id).into_owned();
            if !id.is_empty() {
                self.ctr(&["task", "delete", "--force", &id]);
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn shims_of(directory: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let wanted = directory.join("grpc");
    pids.filter(|pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(wanted.to_str().unwrap()) && line.contains("serve")
    })
    .collect()
}

#[test]
fn containerd_runs_containers_with_our_shim() {
    assert!(
        possible(),
        "containerd, ctr, busybox and cleat-runc are needed: tests/tools.sh brings the first three"
    );
    let containerd = Containerd::start();
    // Cgroups go by these names alone: another run of this test beside it must have others.
    let id = |name: &str| format!("{name}-{}", std::process::id());
    let (one, typing, two) = (id("one"), id("typing"), id("two"));
    let two = two.as_str();

    // Output, exit code, clean-up.
    let output = containerd.run(&["--rm"], &one, "echo out; echo err >&2; exit 3");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("out\n".into(), Some(3)),
        "{}",
        text(&output.stderr)
    );
    assert!(text(&output.stderr).contains("err\n"));

    // Input.
    let rootfs = containerd.at("rootfs");
    let args = [
        "run",
        "--rm",
        "--runtime",
        "io.containerd.cleat.v1",
        "--rootfs",
        rootfs.to_str().unwrap(),
        &typing,
        "/bin/busybox",
        "cat",
    ];
    let mut typed = Command::new("ctr");
    typed
        .arg("--address")
        .arg(containerd.at("grpc"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut typed = typed.spawn().unwrap();
    std::io::Write::write_all(&mut typed.stdin.take().unwrap(), b"hello\n").unwrap();
    assert_eq!(typed.wait_with_output().unwrap().stdout, b"hello\n");

    // In the background: list, exec, pause, metrics, kill.
    let output = containerd.run(&["--detach"], two, "while :; do sleep 1; done");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(containerd.succeeds(&["task", "ls"]).contains("RUNNING"));
    assert_eq!(
        containerd.succeeds(&["task", "exec", "--exec-id", "e", two, "/bin/busybox", "echo", "hi"]),
        "hi\n"
    );
    containerd.succeeds(&["task", "pause", two]);
    assert!(containerd.succeeds(&["task", "ls"]).contains("PAUSED"));
    containerd.succeeds(&["task", "resume", two]);
    assert!(containerd.succeeds(&["task", "ps", two]).lines().count() > 1);
    containerd.succeeds(&["task", "metrics", two]);
    assert_eq!(shims_of(containerd.directory.path()).len(), 1);

    // A shim that is killed: containerd notices, and nothing is left running.
    let shim = shims_of(containerd.directory.path())[0];
    let pid: i32 = containerd
        .succeeds(&["task", "ls"])
        .split_whitespace()
        .rev()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let began = Instant::now();
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        assert!(began.elapsed() < Duration::from_secs(20), "the container lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
    containerd.ctr(&["task", "delete", "--force", two]);
    containerd.succeeds(&["container", "delete", two]);
    assert_eq!(shims_of(containerd.directory.path()), [0; 0]);
}
