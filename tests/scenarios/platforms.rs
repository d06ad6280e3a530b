//! Images of several platforms: load, pull, push, save, run and remove, with the stock client and our own.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use cleat_tests::{Registry, TestDaemon, busybox, digest, run};
use serde_json::{Value, json};

use super::registry::{INDEX, LAYER, MANIFEST, descriptor, gzip, stored};

pub(super) fn host() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// Returns the tar of a program at `/busybox`: busybox, or what the kernel takes for a program of IBM's mainframes.
fn program(daemon: &TestDaemon, architecture: &str) -> Vec<u8> {
    let mut bytes = fs::read(busybox()).unwrap();
    if architecture != host() {
        // e_machine of elf(5): EM_S390.
        bytes[18..20].copy_from_slice(&22_u16.to_le_bytes());
    }
    let dir = daemon.path(&format!("tar-{architecture}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("busybox"), bytes).unwrap();
    fs::set_permissions(dir.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", "-", "busybox"])).expect(0).stdout
}

/// Writes an OCI layout of an index with an image for each architecture, and what BuildKit says of the first.
pub(super) fn layout(daemon: &TestDaemon, name: &str, architectures: &[&str]) -> String {
    let dir = daemon.path("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(&digest(bytes)[7..]), bytes).unwrap();
    let mut manifests: Vec<Value> = Vec::new();
    let add = |config: &Value, layers: &[(&str, Vec<u8>)], kinds: [&str; 2]| {
        let config = serde_json::to_vec(config).unwrap();
        let layers: Vec<Value> = layers
            .iter()
            .map(|(kind, bytes)| {
                put(bytes);
                descriptor(kind, bytes)
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": kinds[0],
            "config": descriptor(kinds[1], &config), "layers": layers});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        put(&config);
        put(&manifest);
        descriptor(kinds[0], &manifest)
    };
    let docker = [MANIFEST, "application/vnd.docker.container.image.v1+json"];
    let oci =
        ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"];
    for &architecture in architectures {
        let tar = program(daemon, architecture);
        let config = json!({"os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/busybox", "echo", architecture]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]}});
        let mut entry = add(&config, &[(LAYER, gzip(&tar))], docker);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(entry);
    }
    let statement = ("application/vnd.in-toto+json", b"{\"_type\":\"statement\"}".to_vec());
    let mut entry = add(&json!({"os": "unknown"}), &[statement], oci);
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": manifests[0]["digest"]});
    manifests.push(entry);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    put(&index);
    let mut top = descriptor(INDEX, &index);
    top["annotations"] = json!({"io.containerd.image.name": name});
    let top = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(dir.join("index.json"), top.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let file = daemon.path("layout.tar").display().to_string();
    run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", &file, "."])).expect(0);
    file
}

fn get(daemon: &TestDaemon, path: &str) -> Value {
    let socket = daemon.host().trim_start_matches("unix://").to_owned();
    let url = format!("http://d/v1.51{path}");
    let got = run(Command::new("curl").args(["-sg", "--unix-socket", &socket, &url]));
    serde_json::from_slice(&got.expect(0).stdout).unwrap()
}

/// Which platforms of a name are here.
fn available(daemon: &TestDaemon, name: &str) -> Vec<String> {
    let manifests = get(daemon, &format!("/images/{name}/json?manifests=1"))["Manifests"].clone();
    let here = manifests.as_array().unwrap().iter().filter(|one| one["Available"] == true);
    let of = |one: &Value| match one["Kind"].as_str().unwrap() {
        "image" => one["ImageData"]["Platform"]["architecture"].as_str().unwrap().to_owned(),
        kind => kind.to_owned(),
    };
    here.map(of).collect()
}

fn pushed(output: &str) -> String {
    output.split("digest: ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn all_platforms_of_an_image_are_kept_pushed_and_pulled() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/b:1");
    let archive = layout(&daemon, &name, &[host(), "s390x"]);
    let loaded = daemon.docker(["load", "-q", "-i", &archive]).ok();
    assert_eq!(loaded, format!("Loaded image: {name}"));
    assert_eq!(available(&daemon, &name), [host(), "s390x", "attestation"]);

    // All of it goes out, and once it is out its name stays.
    let top = pushed(&daemon.docker(["push", &name]).ok());
    assert_eq!(pushed(&daemon.docker(["push", &name]).ok()), top);
    daemon.docker(["rmi", &name]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());

    // Of this machine alone, then another, then all.
    daemon.docker(["pull", &name]).ok();
    assert_eq!(available(&daemon, &name), [host()]);
    let whole = format!("{}@{top}", registry.name("a/b"));
    assert_eq!(daemon.inspect(&name, "index .RepoDigests 0"), whole);
    assert_eq!(daemon.inspect(&name, ".Descriptor.Digest"), top);
    let again = daemon.docker(["pull", "--platform", "linux/s390x", &name]).ok();
    assert!(again.contains("Downloaded newer image"), "{again}");
    assert_eq!(available(&daemon, &name), [host(), "s390x"]);
    assert_eq!(daemon.inspect(&name, ".Architecture"), host());
    let other = ["image", "inspect", "--platform", "linux/s390x", "-f", "{{.Architecture}}", &name];
    assert_eq!(daemon.docker(other).ok(), "s390x");
    let told = daemon.cleat(["pull", "--all-platforms", &name]).ok();
    assert!(told.contains("Downloaded newer image"), "{told}");
    let told = daemon.cleat(["pull", "--all-platforms", &name]).ok();
    assert!(told.contains("Image is up to date"), "{told}");
    assert_eq!(available(&daemon, &name), [host(), "s390x", "attestation"]);

    // One line for it; a tag of it is one of all platforms, and elsewhere it has the same name, byte for byte.
    assert_eq!(daemon.docker(["images", "-q"]).ok().lines().count(), 1);
    let tree = daemon.docker(["image", "ls", "--tree"]).ok();
    assert!(tree.contains("linux/s390x"), "{tree}");
    let second = registry.name("c/d:2");
    daemon.docker(["tag", &name, &second]).ok();
    assert_eq!(pushed(&daemon.docker(["push", &second]).ok()), top);
    let third = registry.name("c/d:3");
    daemon.docker(["tag", &name, &third]).ok();
    let one = pushed(&daemon.docker(["push", "--platform", "linux/s390x", &third]).ok());
    let manifests = get(&daemon, &format!("/images/{name}/json?manifests=1"))["Manifests"].clone();
    assert_eq!(manifests[1]["ID"], one);

    // What is saved is all of it, or one.
    let (all, one) = (daemon.path("all.tar"), daemon.path("one.tar"));
    let (all, one) = (all.to_str().unwrap(), one.to_str().unwrap());
    daemon.docker(["save", "-o", all, &name]).ok();
    daemon.docker(["save", "--platform", "linux/s390x", "-o", one, &name]).ok();
    daemon.docker(["rmi", &name, &second, &third]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());
    daemon.docker(["load", "-i", one]).ok();
    assert_eq!(daemon.inspect(&name, ".Architecture"), "s390x");
    daemon.docker(["load", "-i", all]).ok();
    assert_eq!(available(&daemon, &name), [host(), "s390x", "attestation"]);

    // One platform goes, the other stays.
    let unforced = daemon.docker(["image", "rm", "--platform", "linux/s390x", &name]);
    unforced.expect(1).says("force");
    daemon.docker(["image", "rm", "-f", "--platform", "linux/s390x", &name]).ok();
    assert_eq!(available(&daemon, &name), [host(), "attestation"]);
}

#[test]
fn a_container_of_another_platform_is_warned_of_or_refused() {
    let daemon = TestDaemon::start();
    let archive = layout(&daemon, "several:1", &[host(), "s390x"]);
    daemon.docker(["load", "-i", &archive]).ok();
    assert_eq!(daemon.docker(["run", "--rm", "several:1"]).ok(), host());
    // Both are of this name, and none has to be warned of that was asked for.
    let foreign = ["run", "--rm", "--platform", "linux/s390x", "several:1"];
    let ran = daemon.docker(foreign).expect(255).says("exec format error");
    assert!(!ran.stderr.contains("does not match"), "{}", ran.stderr);
    let missing = ["create", "--pull", "never", "--platform", "linux/riscv64", "several:1"];
    daemon.docker(missing).expect(1).says(
        "image with reference several:1 was found but does not provide the specified platform (linux/riscv64)",
    );
    // A container of the other platform keeps it.
    daemon.docker(["create", "--name", "user", "--platform", "linux/s390x", "several:1"]).ok();
    daemon.docker(["rmi", "several:1"]).expect(1).says("is using its referenced image");
    let users = get(&daemon, "/images/json?manifests=1")[0].clone();
    assert_eq!(users["Containers"], 1);
    assert_eq!(users["Manifests"][1]["ImageData"]["Containers"].as_array().unwrap().len(), 1);
    daemon.docker(["rm", "user"]).ok();
    // What is there for another machine alone is taken, with a warning.
    daemon
        .docker(["image", "rm", "-f", "--platform", &format!("linux/{}", host()), "several:1"])
        .ok();
    daemon
        .docker(["run", "--rm", "several:1"])
        .expect(255)
        .says("WARNING: The requested image's platform (linux/s390x) does not match the detected host platform (linux/")
        .says("and no specific platform was requested")
        .says("exec format error");
    let host = format!("linux/{}", host());
    daemon.docker(["create", "--pull", "never", "--platform", &host, "several:1"]).expect(1).says(
        &format!("image with reference several:1 was found but its platform (linux/s390x) does not match the specified platform ({host})"),
    );
}
