//! The systemd driver. It takes a host that systemd has booted, with cgroup v2 or v1 (`make test-vm` has either): elsewhere there
//! is only its absence to be told.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded, wait_for};
use serde_json::json;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A bundle whose cgroup is the scope `cleat-test-ID.scope`.
fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.global = &["--systemd-cgroup"];
    bundle.spec["linux"]["cgroupsPath"] = format!("cleat.slice:cleat:{}", bundle.id).into();
    bundle
}

fn unit(bundle: &Bundle) -> String {
    format!("cleat-{}.scope", bundle.id)
}

/// Where the container's cgroup is: with v1, in a controller's hierarchy.
fn cgroup(bundle: &Bundle, controller: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() { root.to_owned() } else { root.join(controller) };
    root.join("cleat.slice").join(unit(bundle))
}

fn show(unit: &str, property: &str) -> String {
    let output =
        Command::new("systemctl").args(["show", "-p", property, "--value", unit]).output().unwrap();
    succeeded(output).trim().to_owned()
}

fn file(bundle: &Bundle, name: &str) -> String {
    let controller = name.split('.').next().unwrap();
    fs::read_to_string(cgroup(bundle, controller).join(name)).unwrap().trim().to_owned()
}

#[track_caller]
fn check(bundle: &Bundle, properties: &[(&str, &str)], files: &[(&str, &str)]) {
    for (property, value) in properties {
        assert_eq!(show(&unit(bundle), property), *value, "{property}");
    }
    for (name, value) in files {
        assert_eq!(file(bundle, name), *value, "{name}");
    }
}

#[track_caller]
fn check_is_gone(bundle: &Bundle) {
    wait_for("the unit to be gone", || show(&unit(bundle), "LoadState") == "not-found");
    for controller in ["pids", "freezer", "systemd"] {
        assert!(!cgroup(bundle, controller).exists(), "{controller}");
    }
    assert!(!bundle.directory.join("state").join(&bundle.id).exists());
}

#[test]
fn without_systemd_its_driver_is_refused() {
    if is_booted() {
        return;
    }
    let output = bundle("true").run();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("systemd not running on this host, cannot use systemd cgroups manager"),
        "{text}"
    );
}

#[test]
fn a_path_that_names_no_unit_is_refused() {
    if !is_booted() {
        return;
    }
    for (path, words) in [
        (
            "/cleat-test/x",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/cleat-test/x\" instead",
        ),
        ("cleat:a:b", "invalid slice name: cleat"),
    ] {
        let mut bundle = bundle("true");
        bundle.spec["linux"]["cgroupsPath"] = path.into();
        let text = String::from_utf8(bundle.run().stderr).unwrap();
        assert!(text.replace('\\', "").contains(words), "{text}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_container_lives_and_ends_in_a_scope() {
    if !is_booted() || !is_v2() {
        return;
    }
    let mut bundle = bundle("exec sleep 1000");
    bundle.spec["linux"]["resources"]["memory"] =
        json!({"limit": 64 << 20, "reservation": 32 << 20});
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 20});
    bundle.spec["linux"]["resources"]["cpu"] =
        json!({"quota": 12_345, "period": 100_000, "shares": 1024, "cpus": "0"});
    bundle.spec["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    bundle.start();
    let properties = [
        ("ActiveState", "active"),
        ("Slice", "cleat.slice"),
        ("Delegate", "yes"),
        ("TimeoutStopUSec", "7s"),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("TasksMax", "20"),
        ("CPUWeight", "100"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("AllowedCPUs", "0"),
        ("DevicePolicy", "strict"),
    ];
    let files = [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("pids.max", "20"),
        ("cpu.weight", "100"),
        ("cpu.max", "13000 100000"),
        ("cpuset.cpus", "0"),
    ];
    check(&bundle, &properties, &files);
    // systemd reads its units again and applies what it knows.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    check(&bundle, &properties, &files);

    succeeded(bundle.verb("update", &["--memory", "96m", "--pids-limit", "-1"], &[]));
    check(
        &bundle,
        &[("MemoryMax", "100663296"), ("TasksMax", "infinity")],
        &[("memory.max", "100663296"), ("pids.max", "max")],
    );

    let own = ["/bin/sh", "-c", "cat /proc/self/cgroup; echo x > /dev/null && echo allowed"];
    assert_eq!(succeeded(bundle.verb("exec", &[], &own)), "0::/\nallowed\n");
    let processes = succeeded(bundle.verb("ps", &["--format", "json"], &[]));
    assert_eq!(processes.trim(), format!("[{}]", bundle.state()["pid"]));
    succeeded(bundle.verb("pause", &[], &[]));
    assert_eq!(
        (bundle.status().as_str(), file(&bundle, "cgroup.freeze").as_str()),
        ("paused", "1")
    );
    succeeded(bundle.verb("resume", &[], &[]));
    succeeded(bundle.verb("delete", &["--force"], &[]));
    check_is_gone(&bundle);
}

#[test]
fn with_v1_a_scope_is_in_every_hierarchy() {
    if !is_booted() || is_v2() {
        return;
    }
    let mut bundle = bundle("exec sleep 1000");
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 20});
    bundle.spec["linux"]["resources"]["cpu"] =
        json!({"quota": 12_345, "period": 100_000, "shares": 512});
    // A kernel may have these for v2 only.
    let has_memory = Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists();
    if has_memory {
        bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    }
    bundle.start();
    let properties = [
        ("ActiveState", "active"),
        ("Slice", "cleat.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "20"),
        ("CPUShares", "512"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("DevicePolicy", "strict"),
    ];
    let files = [
        ("pids.max", "20"),
        ("cpu.shares", "512"),
        ("cpu.cfs_quota_us", "13000"),
        ("freezer.state", "THAWED"),
    ];
    check(&bundle, &properties, &files);
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    check(&bundle, &properties, &files);
    if has_memory {
        check(&bundle, &[("MemoryLimit", "67108864")], &[("memory.limit_in_bytes", "67108864")]);
    }
    succeeded(bundle.verb("update", &["--pids-limit", "30", "--cpu-share", "256"], &[]));
    check(
        &bundle,
        &[("TasksMax", "30"), ("CPUShares", "256")],
        &[("pids.max", "30"), ("cpu.shares", "256")],
    );
    let own = "cmp /proc/self/cgroup /proc/1/cgroup && echo x > /dev/null && echo allowed";
    assert_eq!(succeeded(bundle.verb("exec", &[], &["/bin/sh", "-c", own])), "allowed\n");
    let pid = bundle.state()["pid"].to_string();
    for line in fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().lines() {
        assert!(line.ends_with(&format!(":/cleat.slice/{}", unit(&bundle))), "{line}");
    }
    let processes = succeeded(bundle.verb("ps", &["--format", "json"], &[]));
    assert_eq!(processes.trim(), format!("[{pid}]"));
    succeeded(bundle.verb("pause", &[], &[]));
    assert_eq!(bundle.status(), "paused");
    succeeded(bundle.verb("resume", &[], &[]));
    succeeded(bundle.verb("delete", &["--force"], &[]));
    check_is_gone(&bundle);
}

#[test]
fn a_scope_ends_with_its_container_and_its_name_is_free_again() {
    if !is_booted() {
        return;
    }
    let bundle = bundle("cat /proc/self/cgroup");
    for _ in 0..3 {
        let own = bundle.output();
        assert!(!own.is_empty() && own.lines().all(|line| line.ends_with(":/")), "{own}");
        check_is_gone(&bundle);
    }
}

/// Whose worker was killed with it, and nobody told systemd, which hears of the end a moment later.
#[test]
fn a_unit_in_which_nobody_is_any_more_makes_way() {
    if !is_booted() {
        return;
    }
    let bundle = bundle("exec sleep 1000");
    for _ in 0..8 {
        bundle.start();
        let pid = bundle.state()["pid"].to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        let procs = cgroup(&bundle, "pids").join("cgroup.procs");
        while fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty()) {
            std::thread::yield_now();
        }
        fs::remove_dir_all(bundle.directory.join("state").join(&bundle.id)).unwrap();
    }
    bundle.start();
    succeeded(bundle.verb("delete", &["--force"], &[]));
    check_is_gone(&bundle);
}

#[test]
fn what_is_left_of_a_failed_unit_is_no_obstacle() {
    if !is_booted() {
        return;
    }
    let bundle = bundle("echo again");
    // Its only process does not end when it is told to, and the unit fails.
    let script = "trap '' TERM; while :; do sleep 1; done";
    let mut command = Command::new("systemd-run");
    command.args(["--scope", "--quiet", "--slice=cleat.slice", "-p", "TimeoutStopSec=1", "--unit"]);
    command.arg(unit(&bundle)).args(["/bin/sh", "-c", script]).stderr(Stdio::null());
    let mut leftover = command.spawn().unwrap();
    wait_for("the unit", || show(&unit(&bundle), "ActiveState") == "active");
    let _ = Command::new("systemctl").args(["stop", &unit(&bundle)]).status();
    leftover.wait().unwrap();
    assert_eq!(show(&unit(&bundle), "ActiveState"), "failed");
    assert_eq!(bundle.output(), "again\n");
    check_is_gone(&bundle);
}

#[test]
fn a_creation_that_fails_leaves_no_unit() {
    if !is_booted() {
        return;
    }
    let mut bundle = bundle("true");
    bundle.spec["process"]["args"] = json!(["/no/such/program"]);
    assert!(!bundle.run().status.success());
    check_is_gone(&bundle);
    bundle.spec["annotations"] = json!({"org.systemd.property.NoSuchProperty": "1"});
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(text.contains("unable to apply cgroup configuration: unable to start unit"), "{text}");
    check_is_gone(&bundle);
}

#[test]
fn a_writable_cgroup_is_the_container_s_user_s() {
    if !is_booted() || !is_v2() {
        return;
    }
    let script = "mkdir /sys/fs/cgroup/a && echo 0 > /sys/fs/cgroup/a/cgroup.procs && cat /proc/self/cgroup; \
        echo 1 > /sys/fs/cgroup/pids.max 2>/dev/null || echo limits are not";
    let mut bundle = bundle(script);
    bundle.map_root();
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    assert_eq!(bundle.output(), "0::/a\nlimits are not\n");
    check_is_gone(&bundle);
}

/// A user whose systemd runs, such as the one of the virtual machine.
fn user() -> Option<(u32, PathBuf)> {
    let all = fs::read_dir("/run/user").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let with_id = all.filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)));
    with_id.filter(|(id, path)| *id != 0 && path.join("systemd/private").exists()).min()
}

#[test]
fn a_user_s_container_is_in_a_scope_of_the_user_s_systemd() {
    let Some((user, runtime)) = user().filter(|_| is_booted() && is_v2()) else { return };
    let mut bundle = bundle("exec sleep 1000");
    let bundle_directory = bundle.directory.clone();
    let program = bundle.directory.join("worker");
    let installed = Command::new("install")
        .args(["-m", "755"])
        .arg(bundle.worker().get_program())
        .arg(&program)
        .status();
    assert!(installed.unwrap().success());
    fs::create_dir(bundle.directory.join("state")).unwrap();
    let give = || {
        Command::new("chown")
            .args(["-R", &format!("{user}:{user}")])
            .arg(&bundle.directory)
            .status()
            .unwrap()
    };
    assert!(give().success());
    let command = |words: &[&str]| -> Command {
        let mut command = Command::new(&program);
        command.arg("--systemd-cgroup").arg("--root").arg(bundle_directory.join("state"));
        command.args(words).uid(user).gid(user).current_dir(&bundle_directory).stdin(Stdio::null());
        // Not the bus of who runs the tests.
        command.env("XDG_RUNTIME_DIR", &runtime).env_remove("DBUS_SESSION_BUS_ADDRESS");
        command
    };
    let worker = |words: &[&str]| -> Output { command(words).output().unwrap() };
    succeeded(worker(&["spec", "--rootless"]));
    let config = bundle.directory.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["/bin/sh", "-c", "exec sleep 1000"]);
    spec["linux"]["cgroupsPath"] = format!(":cleat:{}", bundle.id).into();
    spec["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
    bundle.spec = spec;
    bundle.write();
    let give = Command::new("chown").arg(format!("{user}:{user}")).arg(&config).status().unwrap();
    assert!(give.success());
    // Its output would be held open by the container.
    let mut start = command(&["run", "-d", &bundle.id]);
    assert!(start.stdout(Stdio::null()).status().unwrap().success());
    let state: serde_json::Value =
        serde_json::from_str(&succeeded(worker(&["state", &bundle.id]))).unwrap();
    let text = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let expected = format!("user@{user}.service/user.slice/{}", unit(&bundle));
    assert!(text.trim().ends_with(&expected), "{text}");
    let directory = Path::new("/sys/fs/cgroup").join(text.trim().trim_start_matches("0::/"));
    let limit = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!((limit("memory.max").as_str(), limit("pids.max").as_str()), ("67108864\n", "20\n"));
    // This exec comes from a cgroup that is not the user's.
    let look = worker(&["exec", &bundle.id, "/bin/cat", "/proc/self/cgroup"]);
    let look = succeeded(look);
    assert!(look.trim() == "0::/" || look.trim().ends_with(&expected), "{look}");
    succeeded(worker(&["update", "--pids-limit", "30", &bundle.id]));
    assert_eq!(limit("pids.max"), "30\n");
    succeeded(worker(&["delete", "--force", &bundle.id]));
    assert!(!directory.exists());
}
