//! Debian's `skopeo` as an independent peer: what it writes is read, and what we write it reads, by registry and by archive.

use std::process::Command;

use cleat_tests::{Ran, Registry, TestDaemon, digest, run, skopeo};

/// Runs it beside the daemon, where the registry is.
fn peer(daemon: &TestDaemon, args: &[&str]) -> Ran {
    let mut command: Command = daemon.network().command(skopeo());
    let tmp = daemon.path("skopeo");
    std::fs::create_dir_all(&tmp).unwrap();
    command.args(["--insecure-policy", "--tmpdir"]).arg(&tmp).env("HOME", &tmp);
    run(command.args(args))
}

fn copy(daemon: &TestDaemon, more: &[&str], from: &str, to: &str) {
    let mut args = vec!["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    args.extend(more);
    args.extend([from, to]);
    peer(daemon, &args).ok();
}

fn raw(daemon: &TestDaemon, name: &str) -> Vec<u8> {
    let name = format!("docker://{name}");
    peer(daemon, &["inspect", "--tls-verify=false", "--raw", &name]).expect(0).stdout
}

#[test]
fn skopeo_and_the_daemon_read_each_others_images() {
    let daemon = TestDaemon::with_busybox();
    let registry = Registry::start(&daemon, 5000);
    let id = daemon.inspect("busybox", ".Id");
    let (ours, theirs) = (registry.name("ours:1"), registry.name("theirs:1"));
    let path = |name: &str| daemon.path(name).display().to_string();

    // Registry to archive, and the archive into the daemon.
    daemon.docker(["tag", "busybox", &ours]).ok();
    daemon.docker(["push", &ours]).ok();
    let archive = path("docker.tar");
    copy(&daemon, &[], &format!("docker://{ours}"), &format!("docker-archive:{archive}:a:1"));
    daemon.docker(["load", "-i", &archive]).ok();
    assert_eq!(daemon.inspect("a:1", ".Id"), id);
    let layout = path("oci.tar");
    copy(&daemon, &[], &format!("docker://{ours}"), &format!("oci-archive:{layout}:b:1"));
    daemon.docker(["load", "-i", &layout]).ok();
    // Its configuration is OCI's now, and so has another name; its layers are the same.
    let layers = ".RootFS.Layers";
    assert_eq!(daemon.inspect("b:1", layers), daemon.inspect("busybox", layers));
    assert_eq!(daemon.docker(["run", "--rm", "b:1", "echo", "here"]).ok(), "here");

    // The daemon's archive, read as either format, into the registry, and from there into the daemon.
    let saved = path("saved.tar");
    daemon.docker(["save", "-o", &saved, "busybox"]).ok();
    for format in ["docker-archive", "oci-archive"] {
        copy(&daemon, &[], &format!("{format}:{saved}"), &format!("docker://{theirs}"));
        daemon.docker(["pull", &theirs]).ok();
        assert_eq!(daemon.inspect(&theirs, layers), daemon.inspect("busybox", layers), "{format}");
        let named = digest(&raw(&daemon, &theirs));
        assert!(daemon.inspect(&theirs, ".RepoDigests").contains(&named), "{format}");
    }

    // Debian's speaks a version of the API that dockerd refuses as well, in the same words.
    let host = daemon.host();
    peer(&daemon, &["inspect", "--daemon-host", &host, "docker-daemon:busybox:latest"])
        .expect(1)
        .says("client version 1.22 is too old. Minimum supported API version is 1.24");
}

#[test]
fn skopeo_copies_all_platforms_both_ways() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, 5000);
    let (ours, theirs) = (registry.name("ours:1"), registry.name("theirs:1"));
    let host = super::platforms::host();
    let archive = super::platforms::layout(&daemon, &ours, &[host, "s390x"]);
    daemon.docker(["load", "-i", &archive]).ok();
    daemon.docker(["push", &ours]).ok();
    let top = digest(&raw(&daemon, &ours));
    assert!(daemon.inspect(&ours, ".RepoDigests").contains(&top));
    // To another repository: whatever the daemon pushed, its peer finds all that the index names.
    copy(&daemon, &["--all"], &format!("docker://{ours}"), &format!("docker://{theirs}"));
    daemon.docker(["rmi", &ours]).ok();
    daemon.cleat(["pull", "--all-platforms", &theirs]).ok();
    assert_eq!(daemon.inspect(&theirs, ".Descriptor.Digest"), top);
    let other = ["image", "inspect", "--platform", "s390x", "-f", "{{.Architecture}}", &theirs];
    assert_eq!(daemon.docker(other).ok(), "s390x");
    // And as an archive.
    let layout = daemon.path("all.tar").display().to_string();
    copy(&daemon, &["--all"], &format!("docker://{ours}"), &format!("oci-archive:{layout}:c:1"));
    daemon.docker(["load", "-i", &layout]).ok();
    let other = ["image", "inspect", "--platform", "s390x", "-f", "{{.Architecture}}", "c:1"];
    assert_eq!(daemon.docker(other).ok(), "s390x");
    assert_eq!(daemon.inspect("c:1", ".Architecture"), host);
}
