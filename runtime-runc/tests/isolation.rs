//! What a container sees, may, and cannot reach.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn it_is_number_one_in_namespaces_of_its_own() {
    let text = Bundle::shell(
        "echo $$; hostname; ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1",
    )
    .output();
    assert_eq!(text, "1\nweb\n1\n1\n");
}

#[test]
fn it_holds_no_descriptor_but_the_standard_ones() {
    // The shell's own look at the directory is the fourth.
    assert_eq!(Bundle::shell("cd /proc/self/fd; echo *").output(), "0 1 2 3\n");
}

#[test]
fn signals_are_as_a_program_expects_them() {
    let check = |text: String| {
        let mask = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(mask("SigBlk:"), 0, "{text}");
        // The Rust runtime ignores SIGPIPE; others may come from whoever runs the tests.
        assert_eq!(mask("SigIgn:") & 1 << 12, 0, "{text}");
    };
    let bundle = Bundle::new(&["/bin/cat", "/proc/self/status"]);
    check(bundle.output());
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    check(succeeded(bundle.verb("exec", &[], &["/bin/cat", "/proc/self/status"])));
}

#[test]
fn only_mounts_of_its_own_are_there() {
    let bundle = Bundle::shell("cat /proc/self/mountinfo");
    let text = bundle.output();
    let points: Vec<&str> = text.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    for wanted in [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
        "/proc/sys",
    ] {
        assert!(points.contains(&wanted), "{wanted} in {points:?}");
    }
    assert!(
        points.iter().all(|point| !point.contains("host") && !point.contains("cleat")),
        "{points:?}"
    );
    assert!(
        text.lines().all(|line| !line.contains("master:") && !line.contains("shared:")),
        "{text}"
    );
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_cannot_be_written() {
    let text = Bundle::shell(
        "cat /proc/interrupts | wc -c; ls /proc/acpi | wc -l; ls /sys/firmware | wc -l
         echo x > /proc/sys/kernel/hostname || echo ro; touch /sys/firmware/x || echo ro; touch /sys/x || echo ro",
    );
    let output = text.run();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n0\nro\nro\nro\n");
}

#[test]
fn the_nodes_and_links_of_dev_are_there() {
    let text = Bundle::shell(
        "for n in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$n; done
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null; head -c 4 /dev/zero | wc -c"
            .replace("head -c 4", "busybox head -c 4")
            .as_str(),
    )
    .output();
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n\
        /dev/tty 5:0 666\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n4\n";
    assert_eq!(text, expected);
}

#[test]
fn a_device_of_the_configuration_has_its_mode_and_owner() {
    let mut bundle = Bundle::shell("stat -c '%t:%T %a %u:%g' /dev/net/tun");
    let device = json!({"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 7, "gid": 8});
    bundle.spec["linux"]["devices"] = json!([device]);
    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"});
    bundle.spec["linux"]["resources"]["devices"].as_array_mut().unwrap().push(rule);
    assert_eq!(bundle.output(), "a:c8 640 7:8\n");
}

#[test]
fn capabilities_are_those_of_the_configuration() {
    let text = Bundle::shell("grep Cap /proc/self/status").output();
    let set = "00000000a80425fb";
    let expected = format!(
        "CapInh:\t{0}\nCapPrm:\t{set}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t{0}\n",
        "0000000000000000"
    );
    assert_eq!(text, expected);
}

#[test]
fn another_user_has_no_capabilities_but_ambient_ones() {
    let mut bundle = Bundle::shell(
        "id -u; id -G; grep CapEff /proc/self/status; umask; touch /etc/x || echo no",
    );
    bundle.spec["process"]["user"] =
        json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
    let output = bundle.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1000\n1001 5 6\nCapEff:\t0000000000000000\n0027\nno\n"
    );
    let lists = &mut bundle.spec["process"]["capabilities"];
    lists["inheritable"] = json!(["CAP_NET_RAW"]);
    lists["ambient"] = json!(["CAP_NET_RAW"]);
    bundle.spec["process"]["args"] = json!(["/bin/grep", "CapEff", "/proc/self/status"]);
    assert_eq!(bundle.output(), "CapEff:\t0000000000002000\n");
}

#[test]
fn no_capabilities_in_the_configuration_are_none() {
    let mut bundle = Bundle::shell("grep CapBnd /proc/self/status");
    bundle.spec["process"]["capabilities"] = json!(null);
    assert_eq!(bundle.output(), "CapBnd:\t0000000000000000\n");
}

#[test]
fn no_new_privileges_and_limits_are_set() {
    let mut bundle = Bundle::shell("grep NoNewPrivs /proc/self/status; ulimit -n; ulimit -Hn");
    bundle.spec["process"]["noNewPrivileges"] = true.into();
    bundle.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 199}]);
    assert_eq!(bundle.output(), "NoNewPrivs:\t1\n99\n199\n");
}

#[test]
fn a_hard_limit_that_cannot_be_raised_stays() {
    let mut bundle = Bundle::shell("ulimit -n");
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    bundle.spec["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": most + 8, "hard": most + 8}]);
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let mask = allowed.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned();
    let privileged = u64::from_str_radix(&mask, 16).unwrap() & 1 << 24 != 0;
    let output = bundle.run();
    if privileged {
        // Above fs.nr_open: an error, as runc has it.
        assert!(!output.status.success());
    } else {
        succeeded(output);
    }
}

#[test]
fn a_read_only_root_can_still_have_mounts_made_in_it() {
    let mut bundle =
        Bundle::shell("touch /x 2>/dev/null || echo ro; touch /made/by/us/x && echo rw");
    bundle.spec["root"]["readonly"] = true.into();
    bundle.mount("/made/by/us", "tmpfs", "tmpfs", "size=1m");
    assert_eq!(bundle.output(), "ro\nrw\n");
}

#[test]
fn bind_mounts_keep_their_flags_until_one_is_named() {
    let mut bundle = Bundle::shell(
        "cat /proc/self/mountinfo | grep -E ' /([abc]|f/.) ' | cut -d' ' -f5,6; cat /c",
    );
    let source = bundle.directory.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "inside").unwrap();
    bundle.mount("/a", "bind", &source, "bind,ro,nosuid,noatime");
    bundle.mount("/b", "none", &source, "rbind,rro,rnoexec");
    bundle.mount("/c", "bind", source.join("file"), "rbind,rprivate");
    // Sources with flags: mounts that came before. A whole tree's flags are no flags of the mount's own.
    bundle.mount("/f", "tmpfs", "tmpfs", "mode=755");
    let from = bundle.rootfs().join("a");
    bundle.mount("/f/1", "bind", &from, "bind");
    bundle.mount("/f/2", "bind", &from, "bind,nodev");
    bundle.mount("/f/3", "bind", &from, "bind,dev,sync");
    bundle.mount("/f/4", "bind", &from, "bind,relatime");
    bundle.mount("/f/5", "bind", &from, "bind,rprivate,rnodev");
    let text = bundle.output();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/a ro,nosuid,noatime");
    assert!(lines[1].starts_with("/b ro,noexec"), "{text}");
    assert!(lines[2].starts_with("/c rw"), "{text}");
    let expected = [
        "/f/1 ro,nosuid,noatime",
        "/f/2 rw,nodev,noatime",
        "/f/3 rw,noatime",
        "/f/4 rw,relatime",
        "/f/5 ro,nosuid,nodev,noatime",
        "inside",
    ];
    assert_eq!(lines[3..], expected);
}

#[test]
fn flags_that_a_user_namespace_locks_stay_or_fail_the_mount() {
    let run = |options: &str| {
        let mut bundle = Bundle::shell("grep ' /a ' /proc/self/mountinfo | cut -d' ' -f6");
        bundle.map_root();
        let source = bundle.directory.join("source");
        fs::create_dir(&source).unwrap();
        let mount = |options: &str| {
            Command::new("mount").args(["-o", options]).args([&source, &source]).status().unwrap()
        };
        assert!(mount("bind").success() && mount("remount,bind,ro,nodev").success());
        bundle.mount("/a", "bind", &source, options);
        let output = bundle.run();
        assert!(Command::new("umount").arg(&source).status().unwrap().success());
        output
    };
    let flags = succeeded(run("bind,nosuid"));
    assert!(flags.starts_with("ro,nosuid,nodev"), "{flags}");
    let refused = run("bind,rw");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("cannot clear locked flags: operation not permitted"), "{text}");
}

#[test]
fn a_read_only_tmpfs_holds_what_is_mounted_in_it() {
    let mut bundle = Bundle::shell("touch /t/x 2>/dev/null || echo ro; cat /t/file; stat -c %a /t");
    let source = bundle.directory.join("file");
    fs::write(&source, "inside\n").unwrap();
    bundle.mount("/t", "tmpfs", "tmpfs", "ro,mode=711");
    bundle.mount("/t/file", "bind", &source, "bind");
    assert_eq!(bundle.output(), "ro\ninside\n711\n");
}

#[test]
fn shared_mounts_reach_the_host_only_where_asked() {
    let mut bundle = Bundle::shell(
        "grep -c shared: /proc/self/mountinfo; grep ' /s ' /proc/self/mountinfo | grep -c master:",
    );
    let source = bundle.directory.join("source");
    fs::create_dir(&source).unwrap();
    bundle.spec["linux"]["rootfsPropagation"] = "rslave".into();
    bundle.mount("/s", "bind", &source, "rbind,rslave");
    // The source is no shared mount on the host: then there is no master either, and nothing is shared.
    let text = String::from_utf8(bundle.run().stdout).unwrap();
    assert!(text.starts_with("0\n"), "{text}");
}

#[test]
fn an_image_cannot_move_mounts_out_of_its_root() {
    let mut bundle = Bundle::shell("cat /etc/resolv.conf; mount | grep -c ' /run/tricky '");
    let outside = bundle.directory.join("outside");
    fs::create_dir(&outside).unwrap();
    let source = bundle.directory.join("resolv");
    fs::write(&source, "nameserver\n").unwrap();
    // Dangling, as Ubuntu's; climbing out; absolute.
    symlink("../../../../run/stub", bundle.rootfs().join("etc/resolv.conf")).unwrap();
    symlink(&outside, bundle.rootfs().join("run")).unwrap();
    bundle.mount("/etc/resolv.conf", "bind", &source, "bind,ro");
    bundle.mount("/run/tricky", "tmpfs", "tmpfs", "size=1m");
    let output = bundle.run();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("nameserver\n"), "{output:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside the root");
}

#[test]
fn proc_is_not_mounted_through_a_link() {
    let bundle = Bundle::shell("true");
    fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    symlink("/etc", bundle.rootfs().join("proc")).unwrap();
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(text.contains("must be mounted on ordinary directory"), "{text}");
}

#[test]
fn nothing_is_mounted_inside_proc() {
    let mut bundle = Bundle::shell("true");
    bundle.mount("/proc/self/attr", "tmpfs", "tmpfs", "size=1m");
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(text.contains("cannot be mounted because it is inside /proc"), "{text}");
    let mut bundle = Bundle::shell("cat /proc/uptime");
    let source = bundle.directory.join("uptime");
    fs::write(&source, "emulated\n").unwrap();
    bundle.mount("/proc/uptime", "bind", &source, "bind");
    assert_eq!(bundle.output(), "emulated\n");
    let mut bundle = Bundle::shell("true");
    bundle.mount("/proc", "bind", "/tmp", "rbind");
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(text.contains("because it is not of type proc"), "{text}");
}

/// CVE-2024-21626.
#[test]
fn the_working_directory_is_never_outside() {
    for number in 0..20 {
        let mut bundle = Bundle::shell("pwd; ls ../../../../..");
        bundle.spec["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        let output = bundle.run();
        assert!(!output.status.success() && output.stdout.is_empty(), "{number}: {output:?}");
    }
    let mut bundle = Bundle::shell("pwd");
    bundle.spec["process"]["cwd"] = "/proc/self/cwd".into();
    assert!(!bundle.run().status.success());
    let mut bundle = Bundle::shell("pwd");
    bundle.spec["process"]["cwd"] = "/new/place".into();
    assert_eq!(bundle.output(), "/new/place\n");
}

/// CVE-2019-5736: who holds the file that runs inside a container has it through a mount that nobody can write.
#[test]
fn the_worker_s_own_file_cannot_be_written() {
    use std::os::fd::AsRawFd;
    let bundle = Bundle::shell("true");
    bundle.write();
    // A file of its own, written by a process of its own: a child that another test starts meanwhile would hold it open, and
    // to run it would be ETXTBSY.
    let own = bundle.directory.join("worker");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg(bundle.worker().get_program()).arg(&own).status().unwrap().success());
    let mut create = std::process::Command::new(&own);
    create.args(bundle.worker().get_args()).stdin(std::process::Stdio::null());
    create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    assert!(create.stdout(std::process::Stdio::null()).status().unwrap().success());
    // Init waits, and is the worker still: what a privileged process of the container would open, we do.
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let exe = fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    succeeded(bundle.verb("delete", &[], &[]));
    // It runs no more (no ETXTBSY): the mount alone stands in the way.
    let again =
        fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", exe.as_raw_fd()));
    assert_eq!(again.unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
}

/// The same from within: a program that is a link to the worker, or a script that it is to interpret.
#[test]
fn the_worker_does_not_lend_itself_to_the_image() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::shell("exec sleep 1000");
    let script = bundle.rootfs().join("bin/script");
    fs::write(&script, "#!/proc/self/exe --version\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.start();
    for program in ["/bin/script", "/proc/self/exe"] {
        // A static worker runs there, harmlessly; a dynamic one does not find its loader.
        let output = bundle.verb("exec", &[], &[program, "--version"]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("cleat-runc version") || text.ends_with("no such file or directory\n"),
            "{text}"
        );
    }
}

/// CVE-2025-31133: an image's /dev/null that is something else is replaced before it covers anything.
#[test]
fn a_forged_null_device_is_replaced() {
    let mut bundle = Bundle::shell("true");
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(bundle.rootfs().join("dev/null"), "forged").unwrap();
    // The worker makes nodes there; the forged one is replaced by the real one.
    bundle.spec["process"]["args"] =
        json!(["/bin/sh", "-c", "stat -c %t:%T /dev/null; cat /proc/interrupts | wc -c"]);
    assert_eq!(bundle.output(), "1:3\n0\n");
}

#[test]
fn sysctls_of_its_own_namespaces_are_set() {
    let mut bundle = Bundle::shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax");
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"});
    assert_eq!(bundle.output(), "1\n4242\n");
}

#[test]
fn a_network_namespace_is_joined_by_path() {
    let mut bundle = Bundle::shell("readlink /proc/self/ns/net");
    bundle.namespace("network", Some("/proc/self/ns/net"));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bundle.output().trim(), own.to_str().unwrap());
}

#[test]
fn another_container_s_namespaces_are_joined() {
    let first = Bundle::shell("exec sleep 1000");
    first.start();
    let pid = first.state()["pid"].to_string();
    let mut second =
        Bundle::shell("ps -o pid,args | grep -c 'sleep 1000'; readlink /proc/self/ns/ipc");
    second.namespace("pid", Some(&format!("/proc/{pid}/ns/pid")));
    second.namespace("ipc", Some(&format!("/proc/{pid}/ns/ipc")));
    let ipc = fs::read_link(format!("/proc/{pid}/ns/ipc")).unwrap();
    let text = second.output();
    assert!(text.ends_with(&format!("{}\n", ipc.display())), "{text}");
    assert!(!text.starts_with('0'), "{text}");
}

#[test]
fn a_user_namespace_maps_root() {
    let mut bundle = Bundle::shell(
        "id -u; cat /proc/self/uid_map; echo x > /tmp/x && stat -c %u /tmp/x; ls -l /dev/null | cut -c1",
    );
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.spec["linux"]["uidMappings"] = map.clone();
    bundle.spec["linux"]["gidMappings"] = map;
    std::os::unix::fs::chown(bundle.rootfs().join("tmp"), Some(100_000), Some(100_000)).unwrap();
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
    std::os::unix::fs::chown(bundle.rootfs().join("dev"), Some(100_000), Some(100_000)).unwrap();
    let text = bundle.output();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0", "c"]);
    bundle.spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    bundle.start();
    assert_eq!(succeeded(bundle.verb("exec", &[], &["/bin/id", "-u"])), "0\n");
}

#[test]
fn a_time_namespace_has_its_offsets() {
    let mut bundle = Bundle::shell("cat /proc/uptime | cut -d. -f1");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    assert!(bundle.output().trim().parse::<u64>().unwrap() >= 1_000_000);
}

#[test]
fn a_time_namespace_has_its_offsets_in_a_user_namespace() {
    let mut bundle = Bundle::shell("cat /proc/uptime | cut -d. -f1");
    bundle.map_root();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    assert!(bundle.output().trim().parse::<u64>().unwrap() >= 1_000_000);
}

#[test]
fn preserved_descriptors_are_passed_and_others_are_not() {
    let bundle = Bundle::shell("cat <&3; cd /proc/self/fd; echo *");
    bundle.write();
    let file = bundle.directory.join("file");
    fs::write(&file, "preserved\n").unwrap();
    let script = format!(
        "exec 3<{} 4</dev/zero; exec \"$@\" run --preserve-fds 1 --bundle {} {}",
        file.display(),
        bundle.directory.display(),
        bundle.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_cleat-runc"), "--root"])
        .arg(bundle.directory.join("state"));
    assert_eq!(succeeded(command.output().unwrap()), "preserved\n0 1 2 3 4\n");
}

#[test]
fn home_comes_from_the_image_and_a_fifo_there_is_no_trap() {
    let mut bundle = Bundle::shell("echo $HOME");
    bundle.spec["process"]["env"] = json!(["PATH=/bin"]);
    fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0::/the/home:/bin/sh\n").unwrap();
    assert_eq!(bundle.output(), "/the/home\n");
    fs::remove_file(bundle.rootfs().join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(&bundle.rootfs().join("etc/passwd"), nix::sys::stat::Mode::S_IRUSR)
        .unwrap();
    assert_eq!(bundle.output(), "/\n");
}

#[test]
fn layers_become_the_root_without_the_host_s_knowledge() {
    let bundle = Bundle::shell("echo new > /etc/new; cat /etc/old; exec sleep 1000");
    let place = |name: &str| bundle.directory.join(name);
    for name in ["base", "base/etc", "upper", "work"] {
        fs::create_dir(place(name)).unwrap();
    }
    fs::write(place("base/etc/old"), "old\n").unwrap();
    let layers = json!([{
        "type": "overlay", "source": "overlay", "options": [
            format!("lowerdir={}:{}", place("base").display(), place("rootfs").display()),
            format!("upperdir={}", place("upper").display()),
            format!("workdir={}", place("work").display()),
            "redirect_dir=off", "metacopy=off", "index=off",
        ],
    }]);
    bundle.write();
    let mut command = bundle.worker();
    command
        .args(["run", "--detach", "--rootfs-mounts", &layers.to_string(), "--bundle"])
        .arg(&bundle.directory)
        .arg(&bundle.id);
    assert!(command.stdout(std::process::Stdio::null()).status().unwrap().success());
    common::wait_for("the file", || place("upper/etc/new").exists());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&bundle.id));
    assert_eq!(succeeded(bundle.verb("exec", &[], &["/bin/cat", "/etc/new"])), "new\n");
}

#[test]
fn a_layer_whose_path_is_too_long_for_one_parameter_is_mounted_the_old_way() {
    let bundle = Bundle::shell("cat /etc/old");
    let base = bundle.directory.join("x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(base.join("etc")).unwrap();
    fs::write(base.join("etc/old"), "old\n").unwrap();
    let lower = format!("lowerdir={}:{}", base.display(), bundle.rootfs().display());
    let layers = json!([{"type": "overlay", "source": "overlay", "options": [lower]}]);
    // Without an upper directory the root is read-only, so the mount points have to be there.
    for name in ["sys/fs", "dev"] {
        fs::create_dir_all(bundle.rootfs().join(name)).unwrap();
    }
    assert_eq!(succeeded(bundle.run_with(&["--rootfs-mounts", &layers.to_string()])), "old\n");
}
