//! Ways out that were found in runtimes before, each tried again. More of them stand beside what they attack: `entering.rs` (a
//! process of the worker's that is on its way in), `isolation.rs`, `terminal.rs`. Each defence of the table was taken out by itself,
//! and the test beside it failed.
//!
//! | found as | the way | what keeps it closed, below `src/` | the test that fails without it |
//! |---|---|---|---|
//! | CVE-2016-9962 | tracing a process that enters, or its descriptors | `process::close_to_others` before the clone, in `birth.rs` and `exec.rs` | `the_waiting_init_is_closed_to_the_container`, `an_exec_on_its_way_is_closed_to_the_container`, `who_makes_a_process_is_closed_before_it_is_born` |
//! | CVE-2016-8867, CVE-2022-29162 | ambient and inheritable capabilities | `Masks::apply`; `exec --cap` and `spec` add to neither | `capabilities_that_the_caller_hands_on_are_not_the_container_s`, `an_exec_gets_no_inheritable_capabilities`, `an_example_has_no_…` |
//! | CVE-2019-5736 | writing to the worker's file by `/proc/self/exe` | `selfexe::protect` in create, run and exec | `the_worker_s_own_file_cannot_be_written`, `every_verb_enters_from_a_file_that_cannot_be_written` |
//! | | | the seals of its copy, and the look whose name it is | `a_worker_that_is_not_what_its_name_says_runs_from_a_sealed_copy` |
//! | CVE-2019-16884, CVE-2023-28642 | covering where labels and profiles are asked for | `Mounter::target` mounts nothing inside procfs | `the_place_of_labels_cannot_be_covered`, `nothing_is_mounted_inside_proc` |
//! | CVE-2019-19921, CVE-2023-27561 | a `/proc` that is a link, or a volume | `Mounter::plain_directory`; what is bound there is procfs | `proc_is_not_mounted_through_a_link`, `nothing_is_mounted_inside_proc` |
//! | CVE-2021-30465 | a link in a mount's way | `path::open_or_make` looks below the root, and mounts are attached to what it opened | `a_link_in_a_shared_volume_leads_nothing_to_the_host`, `a_swapped_link_leads_no_mount_out` |
//! | CVE-2024-45310 | the same for what is made on the way | `path::make`, `path::make_last` | the same, `an_image_cannot_move_mounts_out_of_its_root` |
//! | CVE-2026-41579 | a link at `/dev`, or at a node | the same; `device::make_in` follows none | `a_link_at_dev_leads_nothing_to_the_host`, `a_link_at_a_node_is_replaced` |
//! | CVE-2022-0811 | a sysctl of the host's | `sysctl::check` | `sysctls_of_the_host_are_refused` |
//! | CVE-2024-21626 | a descriptor of the host's | `Finish::apply` closes all of them | `a_created_container_holds_nothing_of_the_host`, `a_process_on_its_way_holds_nothing_of_the_worker_s_caller` |
//! | | it as the working directory | `change_directory`: no magic link is followed | `a_descriptor_of_the_caller_s_is_no_working_directory`, `the_working_directory_is_never_outside` |
//! | | | `check_inside` | `process::tests::a_directory_outside_the_root_is_noticed` |
//! | CVE-2025-31133 | a masked path that is a link | `mask::open` | `a_link_at_a_masked_path_is_not_followed` |
//! | | a `/dev/null` that is a link or another file | `device::open_null` | `nothing_but_the_null_device_hides_a_file` |
//! | CVE-2025-52565 | a `/dev/console` or `/dev/pts/ptmx` that is one | `console::put_at_console`, `console::open_master` | `a_link_at_the_console_is_not_followed`, `a_forged_multiplexer_gives_no_terminal` |
//! | CVE-2025-52881 | writes to procfs that land elsewhere | `procfs.rs`: the host's, opened before any namespace is entered | `a_forged_proc_takes_none_of_the_worker_s_writes`, `…_of_an_exec_s_writes`, `a_forged_proc_of_a_joined_mount_namespace_…` |
//! | | | and asked what it is | `procfs::tests` |

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

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

/// CVE-2022-29162: nor does the configuration that is written for a beginner name any.
#[test]
fn an_example_has_no_inheritable_capabilities() {
    for flags in [&[][..], &["--rootless"]] {
        let bundle = Bundle::shell("true");
        let mut spec = bundle.worker();
        spec.args(["spec", "--bundle"]).arg(&bundle.directory).args(flags);
        succeeded(spec.output().unwrap());
        let text = fs::read(bundle.directory.join("config.json")).unwrap();
        let spec: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let lists = spec["process"]["capabilities"].as_object().unwrap();
        let mut names: Vec<&str> = lists.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["bounding", "effective", "permitted"]);
    }
}

/// CVE-2021-30465, CVE-2024-45310: a volume that two containers share holds a link where the second one's mount goes.
#[test]
fn a_link_in_a_shared_volume_leads_nothing_to_the_host() {
    let kinds = [("tmpfs", "tmpfs", "size=1m"), ("bind", "source", "bind")];
    for ((kind, source, options), existed) in
        kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)])
    {
        let mut bundle = Bundle::shell("grep -c /deep/er /proc/self/mountinfo");
        let (volume, victim) = (bundle.directory.join("volume"), bundle.directory.join("victim"));
        for directory in [&volume, &victim, &bundle.directory.join("source")] {
            fs::create_dir(directory).unwrap();
        }
        if existed {
            fs::create_dir_all(victim.join("deep/er")).unwrap();
        }
        symlink(&victim, volume.join("link")).unwrap();
        bundle.mount("/volume", "bind", &volume, "bind");
        bundle.mount("/volume/link/deep/er", kind, source, options);
        assert_eq!(bundle.output(), "1\n");
        // Followed inside the root, where it is made; in the host's directory of that name nothing is.
        assert_eq!(fs::read_dir(&victim).unwrap().count(), usize::from(existed));
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

/// CVE-2025-31133: what lies at /dev/null hides nothing unless it is the null device.
#[test]
fn nothing_but_the_null_device_hides_a_file() {
    let forge: [fn(&Path); 4] = [
        |null| fs::write(null, "forged").unwrap(),
        |null| symlink("/etc/target", null).unwrap(),
        |null| symlink("/dev/own", null).unwrap(),
        |null| mknod(null, SFlag::S_IFCHR, Mode::all(), makedev(1, 5)).unwrap(),
    ];
    for forge in forge {
        let mut bundle = Bundle::shell("true");
        fs::write(bundle.rootfs().join("etc/target"), "target").unwrap();
        // A `/dev` that is bound is left as it is.
        let dev = bundle.bind_dev();
        mknod(&dev.join("own"), SFlag::S_IFCHR, Mode::all(), makedev(1, 3)).unwrap();
        forge(&dev.join("null"));
        bundle.spec["linux"]["maskedPaths"] = json!(["/proc/interrupts"]);
        let output = bundle.run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("/dev/null"), "{text}");
        bundle.assert_nothing_left();
    }
    let mut bundle = Bundle::shell("cat /proc/interrupts");
    let null = bundle.bind_dev().join("null");
    mknod(&null, SFlag::S_IFCHR, Mode::all(), makedev(1, 3)).unwrap();
    assert_eq!(bundle.output(), "");
}

/// CVE-2026-41579: a `/dev` that is a link leads to a place of the image's, whose files alone are touched.
#[test]
fn a_link_at_dev_leads_nothing_to_the_host() {
    let mut bundle = Bundle::shell("true");
    let victim = bundle.directory.join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["ptmx", "null"] {
        fs::write(victim.join(name), "untouched").unwrap();
    }
    fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(&victim, bundle.rootfs().join("dev")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    // It may be refused later on; what counts is what was made on the way, and where.
    let _ = bundle.run();
    let inside = bundle.rootfs().join(victim.strip_prefix("/").unwrap());
    assert!(inside.join("full").metadata().unwrap().file_type().is_char_device());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 2);
    for name in ["ptmx", "null"] {
        assert_eq!(fs::read_to_string(victim.join(name)).unwrap(), "untouched");
    }
}

/// The same of a node: what it is a link to gets neither mode nor owner.
#[test]
fn a_link_at_a_node_is_replaced() {
    let mut bundle = Bundle::shell("stat -c '%F %a' /dev/null");
    let victim = bundle.directory.join("victim");
    // What the node is to be like, so that nothing seems to be left to do.
    mknod(&victim, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3)).unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o666)).unwrap();
    symlink(&victim, bundle.rootfs().join("dev/null")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let node =
        json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 7, "gid": 7});
    bundle.spec["linux"]["devices"] = json!([node]);
    assert_eq!(bundle.output(), "character special file 666\n");
    let found = fs::metadata(&victim).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o666, 0));
}

/// CVE-2025-52881: an exec's share of it, while the container's `/proc` is what its programs have made of it.
#[test]
fn a_forged_proc_takes_none_of_an_exec_s_writes() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    mounts.push(json!({"destination": "/real", "type": "proc", "source": "proc"}));
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle.spec["linux"]["readonlyPaths"] = json!([]);
    bundle.start();
    let forged = bundle.rootfs().join("proc/self/oom_score_adj");
    fs::create_dir(forged.parent().unwrap()).unwrap();
    fs::write(&forged, "forged").unwrap();
    let path = bundle.directory.join("process.json");
    let args = ["/bin/cat", "/real/self/oom_score_adj"];
    let process = json!({"args": args, "cwd": "/", "oomScoreAdj": 43});
    fs::write(&path, process.to_string()).unwrap();
    let text = succeeded(bundle.verb("exec", &["--process", path.to_str().unwrap()], &[]));
    assert_eq!(text, "43\n");
    assert_eq!(fs::read_to_string(forged).unwrap(), "forged");
}

/// CVE-2025-52881: the same in a mount namespace that is another container's, which had the time to cover its `/proc`.
#[test]
fn a_forged_proc_of_a_joined_mount_namespace_takes_none_of_the_worker_s_writes() {
    let mut bundle =
        Bundle::shell("cat /real/sys/net/ipv4/ping_group_range; cat /real/self/oom_score_adj");
    let mut other =
        Bundle::shell("mount --bind /forged /proc && echo > /forged/done; exec sleep 1000");
    let forged = other.directory.join("forged");
    let files = ["self/oom_score_adj", "sys/net/ipv4/ping_group_range"];
    for file in files {
        fs::create_dir_all(forged.join(file).parent().unwrap()).unwrap();
        fs::write(forged.join(file), "forged").unwrap();
    }
    for list in ["bounding", "effective", "permitted"] {
        let list = &mut other.spec["process"]["capabilities"][list];
        list.as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
    }
    other.mount("/forged", "bind", &forged, "bind");
    // Where the second one's root is to be seen in the first one's namespace.
    let rootfs = bundle.rootfs();
    other.mount(rootfs.to_str().unwrap(), "bind", &rootfs, "bind");
    other.start();
    common::wait_for("the forged /proc", || forged.join("done").exists());
    let namespace = format!("/proc/{}/ns/mnt", other.state()["pid"]);
    bundle.namespace("mount", Some(&namespace));
    bundle.spec["mounts"] = json!([{"destination": "/real", "type": "proc", "source": "proc"}]);
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle.spec["linux"]["readonlyPaths"] = json!([]);
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "7 9"});
    bundle.spec["process"]["oomScoreAdj"] = 42.into();
    assert_eq!(bundle.output(), "7\t9\n42\n");
    for file in files {
        assert_eq!(fs::read_to_string(forged.join(file)).unwrap(), "forged");
    }
}

/// CVE-2022-0811: what is not of a namespace of the container's own is not set, not even to what it is.
#[test]
fn sysctls_of_the_host_are_refused() {
    for (key, namespace, refusal) in [
        ("kernel.core_pattern", "", "is not in a separate kernel namespace"),
        ("kernel/core_pattern", "", "is not in a separate kernel namespace"),
        ("net.ipv4.ip_forward", "network", "not allowed in host network namespace"),
        ("kernel.msgmax", "ipc", "is not allowed in the hosts ipc namespace"),
    ] {
        let mut bundle = Bundle::shell("true");
        bundle.namespace(namespace, None);
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let value = fs::read_to_string(path).unwrap();
        bundle.spec["linux"]["sysctl"] = json!({key: value.trim()});
        let output = bundle.run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(refusal), "{key}: {text}");
    }
}
