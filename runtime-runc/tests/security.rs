//! Ways out that were found in runtimes before, each tried again. More of them stand beside what they attack: `isolation.rs`,
//! `terminal.rs`, `exec.rs`, `cleat_sys::mountapi`. Every test fails if what keeps the way closed is removed.
//!
//! | found as | the way | what keeps it closed | tests |
//! |---|---|---|---|
//! | CVE-2016-9962 | tracing a process that enters, or its descriptors | not dumpable, nothing open | `the_waiting_init_is_closed_to_the_container`, `a_created_container_holds_nothing_of_the_host` |
//! | CVE-2019-5736 | writing to the worker's file by `/proc/self/exe` | it runs from a sealed copy | `the_worker_s_own_file_cannot_be_written`, `the_worker_does_not_lend_itself_to_the_image`, `mountapi::tests::a_sealed_overlay…`, `…a_read_only_clone…` |
//! | CVE-2019-16884, CVE-2023-28642 | covering where labels and profiles are asked for | nothing is mounted inside procfs; the host's is asked | `the_place_of_labels_cannot_be_covered` |
//! | CVE-2019-19921, CVE-2023-27561 | a `/proc` that is a link, or a volume | procfs is mounted on plain directories alone | `proc_is_not_mounted_through_a_link`, `a_forged_proc_takes_none_of_the_worker_s_writes` |
//! | CVE-2021-30465, CVE-2024-45310 | a link swapped into a mount's way | ways are opened below the root, mounts attached to descriptors | `a_link_in_a_shared_volume_leads_nothing_to_the_host`, `a_swapped_link_leads_no_mount_out` |
//! | CVE-2022-29162 | inheritable capabilities | there are none | `an_exec_gets_no_inheritable_capabilities` |
//! | CVE-2024-21626 | a descriptor or a working directory of the host's | all is closed, the directory is looked for in the container | `a_created_container_holds_nothing_of_the_host`, `the_working_directory_is_never_outside`, `the_working_directory_of_an_exec_is_never_outside` |
//! | CVE-2025-31133 | a masked path or `/dev/null` that is a link | no link is followed, the device's number is checked | `a_link_at_a_masked_path_is_not_followed`, `a_forged_null_device_is_noticed` |
//! | CVE-2025-52565 | a `/dev/console` or `/dev/ptmx` that is a link | as above | `a_forged_console_leads_nowhere` |
//! | CVE-2025-52881 | writes to procfs that land elsewhere | the host's procfs is written to, before the root changes | `a_forged_proc_takes_none_of_the_worker_s_writes` |

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

fn create(bundle: &Bundle) -> String {
    bundle.write();
    let mut command = bundle.worker();
    command.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    let status = command.stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success());
    bundle.state()["pid"].to_string()
}

/// CVE-2024-21626, CVE-2016-9962: a container that waits for its start holds nothing open that leads to the host.
#[test]
fn a_created_container_holds_nothing_of_the_host() {
    let bundle = Bundle::shell("true");
    let pid = create(&bundle);
    let targets: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| !matches!(entry.file_name().to_str(), Some("0" | "1" | "2")))
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let is_fifo = |path: &PathBuf| path.ends_with("exec.fifo");
    assert!(!targets.is_empty() && targets.iter().all(is_fifo), "{targets:?}");
}

/// CVE-2016-9962: a process of the container's cannot look into the worker's while that is on its way in.
#[test]
fn the_waiting_init_is_closed_to_the_container() {
    // The same user with the same capabilities, in the same namespaces: only that it is not dumpable keeps it off.
    let bundle = Bundle::shell("exec sleep 1000");
    create(&bundle);
    let look =
        ["/bin/sh", "-c", "readlink /proc/1/fd/3 || readlink /proc/1/exe || cat /proc/1/environ"];
    let output = bundle.verb("exec", &[], &look);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    succeeded(bundle.verb("start", &[], &[]));
    let own = ["/bin/sh", "-c", "until readlink /proc/1/exe; do :; done"];
    assert_eq!(succeeded(bundle.verb("exec", &[], &own)), "/bin/busybox\n");
}

/// CVE-2022-29162: capabilities that are added are not inheritable.
#[test]
fn an_exec_gets_no_inheritable_capabilities() {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let status = ["/bin/grep", "-E", "CapInh|CapAmb", "/proc/self/status"];
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    assert_eq!(succeeded(bundle.verb("exec", &["--cap", "CAP_SYS_PTRACE"], &status)), none);
}

/// CVE-2021-30465, CVE-2024-45310: a volume that two containers share holds a link where the second one's mount goes.
#[test]
fn a_link_in_a_shared_volume_leads_nothing_to_the_host() {
    for (kind, source, options) in
        [("tmpfs", "tmpfs".to_owned(), "size=1m"), ("bind", "source".to_owned(), "bind")]
    {
        let mut bundle = Bundle::shell("grep -c /deep/er /proc/self/mountinfo");
        let (volume, victim) = (bundle.directory.join("volume"), bundle.directory.join("victim"));
        for directory in [&volume, &victim, &bundle.directory.join("source")] {
            fs::create_dir(directory).unwrap();
        }
        symlink(&victim, volume.join("link")).unwrap();
        bundle.mount("/volume", "bind", &volume, "bind");
        bundle.mount("/volume/link/deep/er", kind, source, options);
        assert_eq!(bundle.output(), "1\n");
        // Followed inside the root, where it is made; the host's directory of that name has nothing in it.
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
        assert!(bundle.rootfs().join(victim.strip_prefix("/").unwrap()).join("deep/er").is_dir());
        bundle.assert_nothing_left();
    }
}

/// The same while another container swaps a directory for the link and back, as often as it can.
#[test]
fn a_swapped_link_leads_no_mount_out() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut bundle = Bundle::shell("true");
    let (volume, victim) = (bundle.directory.join("volume"), bundle.directory.join("victim"));
    fs::create_dir(&victim).unwrap();
    fs::create_dir_all(volume.join("way")).unwrap();
    symlink(&victim, volume.join("link")).unwrap();
    bundle.mount("/volume", "bind", &volume, "bind");
    bundle.mount("/volume/way/deep", "tmpfs", "tmpfs", "size=1m");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (way, link) = (volume.join("way"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let swap = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &way, AT_FDCWD, &link, swap).unwrap();
            }
        });
        for _ in 0..20 {
            // It may fail on the way; what counts is where it went.
            let _ = bundle.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    bundle.assert_nothing_left();
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: what the worker writes to procfs goes to the host's, however /proc is covered.
#[test]
fn a_forged_proc_takes_none_of_the_worker_s_writes() {
    let mut bundle =
        Bundle::shell("cat /real/sys/net/ipv4/ping_group_range; cat /real/self/oom_score_adj");
    let forged = bundle.directory.join("forged");
    fs::create_dir_all(forged.join("self/attr")).unwrap();
    fs::create_dir_all(forged.join("sys/net/ipv4")).unwrap();
    for file in ["self/oom_score_adj", "sys/net/ipv4/ping_group_range"] {
        fs::write(forged.join(file), "forged").unwrap();
    }
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    mounts.push(json!({"destination": "/real", "type": "proc", "source": "proc"}));
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle.spec["linux"]["readonlyPaths"] = json!([]);
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "7 9"});
    bundle.spec["process"]["oomScoreAdj"] = 42.into();
    // The image's own directory: nothing of it is a mount, so that nobody refuses it.
    fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    fs::rename(&forged, bundle.rootfs().join("proc")).unwrap();
    assert_eq!(bundle.output(), "7\t9\n42\n");
    for file in ["self/oom_score_adj", "sys/net/ipv4/ping_group_range"] {
        assert_eq!(fs::read_to_string(bundle.rootfs().join("proc").join(file)).unwrap(), "forged");
    }
}

/// CVE-2019-16884, CVE-2023-28642: nothing is mounted over the place where a label or a profile is asked for.
#[test]
fn the_place_of_labels_cannot_be_covered() {
    for place in ["/proc/self/attr", "/proc/self", "/proc/1/attr/exec", "/proc/thread-self/attr"] {
        let mut bundle = Bundle::shell("true");
        let source = bundle.directory.join("source");
        fs::create_dir(&source).unwrap();
        bundle.mount(place, "bind", &source, "bind");
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1), "{place}: {output:?}");
        bundle.assert_nothing_left();
    }
}

/// CVE-2025-31133: a masked path that is a link masks nothing but is no way to the host either.
#[test]
fn a_link_at_a_masked_path_is_not_followed() {
    let mut bundle = Bundle::shell("cat /secret; cat /etc/target");
    fs::write(bundle.rootfs().join("etc/target"), "target\n").unwrap();
    symlink("/etc/target", bundle.rootfs().join("secret")).unwrap();
    bundle.spec["linux"]["maskedPaths"] = json!(["/secret"]);
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("can't mask path"), "{text}");
    bundle.assert_nothing_left();
}
