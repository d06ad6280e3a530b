//! A bundle with a static busybox, and the worker to run it.

#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part; a failure here is a failed test

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const APPLETS: &str = "[ awk cat chmod cut echo false grep hostname id ip kill ln ls mkdir mknod mount nproc od printf ps pwd readlink \
    rm seq sh sleep stat stty sysctl tail test touch tr true tty umount uname unshare wc";

/// A bundle of its own directory, with a state directory beside it; everything ends with it.
pub struct Bundle {
    pub directory: PathBuf,
    pub spec: Value,
    pub id: String,
    /// Flags before the verb.
    pub global: &'static [&'static str],
}

impl Bundle {
    /// Makes a bundle with the configuration of an engine's default container that runs `args`.
    pub fn new(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id =
            format!("cleat-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&id);
        let rootfs = directory.join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        // By another process: a child that another test forks just now would hold it open for writing, and it could not be executed.
        let mut copy = Command::new("cp");
        copy.arg(busybox.expect("a static busybox")).arg(rootfs.join("bin/busybox"));
        assert!(copy.status().unwrap().success());
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        Self { spec: specification(args, &id), directory, id, global: &[] }
    }

    /// As [`Self::new`], for a shell script.
    pub fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Adds a mount.
    pub fn mount(
        &mut self,
        destination: &str,
        kind: &str,
        source: impl AsRef<Path>,
        options: &str,
    ) {
        let options: Vec<&str> = options.split(',').collect();
        let mount = json!({"destination": destination, "type": kind, "source": source.as_ref(), "options": options});
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Has an empty directory of the host's bound at `/dev` and nothing mounted below; returns it.
    pub fn bind_dev(&mut self) -> PathBuf {
        let dev = self.directory.join("bound-dev");
        fs::create_dir(&dev).unwrap();
        let mounts = self.spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        // Nodes count there whatever the options of the place.
        self.mount("/dev", "bind", &dev, "rbind,dev");
        dev
    }

    /// Removes a namespace, or gives it a path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        if let Some(path) = path {
            namespaces.push(json!({"type": kind, "path": path}));
        }
    }

    /// Puts the container into a user namespace whose root is user 100000, and gives that user the root filesystem.
    pub fn map_root(&mut self) {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        self.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        self.spec["linux"]["uidMappings"] = map.clone();
        self.spec["linux"]["gidMappings"] = map;
        for name in ["", "dev", "etc", "tmp", "proc", "sys"] {
            let path = self.rootfs().join(name);
            std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
        }
    }

    /// Returns the worker's command line up to the verb.
    pub fn worker(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cleat-runc"));
        command
            .args(self.global)
            .arg("--root")
            .arg(self.directory.join("state"))
            .stdin(Stdio::null());
        command
    }

    pub fn write(&self) {
        fs::write(self.directory.join("config.json"), self.spec.to_string()).unwrap();
    }

    /// Runs a verb on the container.
    pub fn verb(&self, verb: &str, flags: &[&str], rest: &[&str]) -> Output {
        self.worker().arg(verb).args(flags).arg(&self.id).args(rest).output().unwrap()
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// `run` with flags.
    pub fn run_with(&self, flags: &[&str]) -> Output {
        self.write();
        self.worker()
            .args(["run", "--bundle"])
            .arg(&self.directory)
            .args(flags)
            .arg(&self.id)
            .output()
            .unwrap()
    }

    /// `run --detach`; the container's output is lost.
    pub fn start(&self) {
        self.write();
        let mut command = self.worker();
        command.args(["run", "--detach", "--bundle"]).arg(&self.directory).arg(&self.id);
        let status = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Runs, expects success, returns stdout.
    #[track_caller]
    pub fn output(&self) -> String {
        succeeded(self.run())
    }

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_slice(&self.verb("state", &[], &[]).stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub fn state(&self) -> Value {
        serde_json::from_slice(&self.verb("state", &[], &[]).stdout).unwrap()
    }

    /// Waits, for 10 seconds, until it has that status.
    #[track_caller]
    pub fn wait_for_status(&self, status: &str) {
        wait_for(&format!("{} to be {status}", self.id), || self.status() == status);
    }

    /// Nothing of the container is left: no state, no mount, no cgroup.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert!(!self.directory.join("state").join(&self.id).exists(), "a state directory");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "a mount");
        for hierarchy in hierarchies() {
            let left = hierarchy.join("cleat-test").join(&self.id);
            assert!(!left.exists(), "{}", left.display());
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.verb("delete", &["--force"], &[]);
        let _ = fs::remove_dir_all(&self.directory);
        // The parent of all tests' cgroups goes with the last of them.
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join("cleat-test"));
        }
    }
}

/// Where hierarchies may be mounted: the one of a host with v2 alone, and those of the others.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    mounts.chain(["/sys/fs/cgroup".into()])
}

#[track_caller]
pub fn succeeded(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Asks until the answer is yes, and fails after a minute.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn specification(args: &[&str], id: &str) -> Value {
    let capabilities: Vec<String> =
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
        NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
            .split_whitespace()
            .map(|name| format!("CAP_{name}"))
            .collect();
    let mount = |at: &str, kind: &str, options: &str| json!({"destination": at, "type": kind, "source": kind, "options": options.split(',').collect::<Vec<_>>()});
    let namespaces =
        ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({"type": kind}));
    let devices: Vec<Value> = [3, 5, 7, 8, 9]
        .map(|minor| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": "rwm"}))
        .into_iter()
        .chain([json!({"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"})])
        .chain([json!({"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"})])
        .chain([json!({"allow": true, "type": "c", "major": 136, "access": "rwm"})])
        .collect();
    let devices: Vec<Value> =
        [json!({"allow": false, "access": "rwm"})].into_iter().chain(devices).collect();
    json!({
        "ociVersion": "1.2.0",
        "hostname": "web",
        "root": {"path": "rootfs"},
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin", "HOME=/"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        ],
        "linux": {
            "cgroupsPath": format!("/cleat-test/{id}"),
            "namespaces": namespaces,
            "resources": {"devices": devices},
            "maskedPaths": ["/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/nothing",
                "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
