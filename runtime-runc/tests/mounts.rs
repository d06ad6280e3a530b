//! Mounts beyond the plain ones: mapped ids, copies, sources and targets of all kinds, roots that are not pivoted to.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with a file of user 3, on the host.
fn source(bundle: &Bundle, name: &str) -> PathBuf {
    let directory = bundle.directory.join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("file"), "text").unwrap();
    chown(directory.join("file"), Some(3), Some(4)).unwrap();
    directory
}

/// Maps the ids of the last mount.
fn map_ids(bundle: &mut Bundle, uids: (u32, u32), gids: (u32, u32)) {
    let map = |(inside, outside): (u32, u32)| json!([{"containerID": inside, "hostID": outside, "size": 1000}]);
    let mount: &mut Value = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = map(uids);
    mount["gidMappings"] = map(gids);
}

#[test]
fn the_ids_of_a_bind_mount_are_mapped() {
    let mut bundle = Bundle::new(&["/bin/stat", "-c", "%u:%g", "/mnt/file"]);
    let from = source(&bundle, "source");
    bundle.mount("/mnt", "bind", &from, "bind");
    map_ids(&mut bundle, (0, 5000), (0, 6000));
    assert_eq!(bundle.output(), "5003:6004\n");
    assert_eq!(
        fs::metadata(from.join("file"))
            .map(|file| std::os::unix::fs::MetadataExt::uid(&file))
            .unwrap(),
        3
    );
}

#[test]
fn the_ids_of_a_bind_mount_are_mapped_in_a_user_namespace() {
    let mut bundle = Bundle::new(&["/bin/stat", "-c", "%u:%g", "/mnt/file", "/same/file"]);
    bundle.map_root();
    let from = source(&bundle, "source");
    bundle.mount("/mnt", "bind", &from, "bind");
    map_ids(&mut bundle, (0, 100_010), (0, 100_020));
    // Without mappings of its own, the container's.
    bundle.mount("/same", "bind", &from, "bind,idmap");
    assert_eq!(bundle.output(), "13:24\n3:4\n");
}

/// A mount in a directory of the test's, gone with it.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let status = Command::new("mount").arg("--bind").args([from, &at]).status().unwrap();
        assert!(status.success());
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_below_is_mapped_only_where_asked() {
    let mut bundle = Bundle::new(&[]);
    bundle.spec["process"]["args"] =
        json!(["stat", "-c", "%u", "/own/file", "/own/sub/file", "/all/file", "/all/sub/file"]);
    let (from, below) = (source(&bundle, "source"), source(&bundle, "below"));
    let _mounted = Mounted::bind(&below, from.join("sub"));
    bundle.mount("/own", "bind", &from, "rbind,idmap");
    map_ids(&mut bundle, (0, 5000), (0, 5000));
    bundle.mount("/all", "bind", &from, "rbind,ridmap");
    map_ids(&mut bundle, (0, 5000), (0, 5000));
    assert_eq!(bundle.output(), "5003\n3\n5003\n5003\n");
}

#[test]
fn a_new_filesystem_s_ids_are_not_mapped() {
    let mut bundle = Bundle::shell("true");
    bundle.mount("/mnt", "tmpfs", "tmpfs", "idmap");
    map_ids(&mut bundle, (0, 5000), (0, 5000));
    let text = String::from_utf8(bundle.run().stderr).unwrap();
    assert!(text.contains("id mappings are for bind mounts only"), "{text}");
}

#[test]
fn a_tmpfs_begins_with_a_copy_of_what_it_covers() {
    let mut bundle = Bundle::shell(
        "cat /data/a/file; stat -c %a:%u /data/a /data/a/file; readlink /data/link; echo x > /data/a/file",
    );
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("a")).unwrap();
    fs::write(data.join("a/file"), "from the image\n").unwrap();
    fs::set_permissions(data.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(data.join("a/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    chown(data.join("a/file"), Some(7), Some(7)).unwrap();
    fs::set_permissions(data.join("a/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    // Not followed: the copy is of the image.
    symlink("/etc/shadow", data.join("link")).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", "tmpcopyup");
    assert_eq!(bundle.output(), "from the image\n1777:0\n4750:7\n/etc/shadow\n");
    assert_eq!(fs::read_to_string(data.join("a/file")).unwrap(), "from the image\n");
}

#[test]
fn a_source_may_be_what_an_earlier_mount_shows() {
    let mut bundle = Bundle::shell("cat /final/file");
    let from = source(&bundle, "source");
    let rootfs = bundle.rootfs();
    bundle.mount("/first", "bind", &from, "bind");
    // Named as the host sees both.
    bundle.mount(rootfs.join("final").to_str().unwrap(), "bind", rootfs.join("first"), "rbind");
    assert_eq!(bundle.output(), "text");
    assert!(bundle.rootfs().join("final").is_dir());
}

#[test]
fn a_relative_source_is_the_bundle_s() {
    let mut bundle = Bundle::shell("cat /mnt/file");
    source(&bundle, "source");
    bundle.mount("/mnt", "bind", "source", "bind");
    assert_eq!(bundle.output(), "text");
}

#[test]
fn a_source_that_only_the_host_s_root_may_reach_is_mounted_into_a_user_namespace() {
    let mut bundle = Bundle::shell("cat /mnt/file");
    bundle.map_root();
    let closed = bundle.directory.join("closed");
    let from = source(&bundle, "closed/source");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    bundle.mount("/mnt", "bind", &from, "bind,ro");
    assert_eq!(bundle.output(), "text");
}

/// The host's procfs is to be seen by nobody: a container with a user namespace could mount another without masks.
#[test]
fn without_a_pivot_the_host_s_proc_is_gone_all_the_same() {
    let mut bundle = Bundle::shell(
        "echo in; grep -c ' / / ' /proc/self/mountinfo; exec unshare -mrpf sh -c 'mount -t proc proc /proc && echo bare'",
    );
    bundle.spec["process"]["noNewPrivileges"] = true.into();
    let output = bundle.run_with(&["--no-pivot"]);
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.starts_with("in\n") && !text.contains("bare"), "{text}");
    assert!(errors.contains("mount: permission denied"), "{errors}");
    bundle.assert_nothing_left();
}

#[test]
fn a_container_in_the_host_s_mount_namespace_has_a_root_of_its_own() {
    let mut bundle = Bundle::shell("ls -d /bin/busybox; test -d /usr/lib || echo own root");
    bundle.namespace("mount", None);
    let refused = bundle.run();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains("unable to restrict sys entries without a private MNT namespace"),
        "{text}"
    );
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    bundle.spec["linux"]["readonlyPaths"] = json!([]);
    let output = bundle.run();
    // What is mounted stays, as it does with runc: nobody knows whose it is by now.
    let _ = Command::new("umount").args(["-R", "-l"]).arg(bundle.rootfs()).status();
    assert_eq!(succeeded(output), "/bin/busybox\nown root\n");
}

#[test]
fn a_shared_root_is_shared_and_the_host_s_is_not() {
    let mut bundle =
        Bundle::shell("grep ' / / ' /proc/self/mountinfo | grep -c shared:; mount | grep -c ' / '");
    bundle.spec["linux"]["rootfsPropagation"] = "shared".into();
    let text = bundle.output();
    assert!(text.lines().last() == Some("1"), "{text}");
    bundle.assert_nothing_left();
}

#[test]
fn an_unbindable_root_is_bound_once_and_no_more() {
    for (word, count) in [("unbindable", "1"), ("runbindable", "1"), ("private", "0")] {
        let mut bundle =
            Bundle::shell("awk '$5 == \"/\"' /proc/self/mountinfo | grep -c unbindable");
        bundle.spec["linux"]["rootfsPropagation"] = word.into();
        let output = bundle.run();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count, "{word}: {output:?}");
        bundle.assert_nothing_left();
    }
}
