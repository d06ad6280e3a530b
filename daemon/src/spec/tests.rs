//! Whole specs, held against what dockerd 28.5 writes for the same request.

use serde_json::{Value, json};

use super::*;

fn read_nothing(_: &str) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

fn spec(config: Config, host_config: HostConfig, change: impl FnOnce(&mut Input<'_>)) -> Value {
    let mut input = Input {
        args: vec!["sleep".into(), "300".into()],
        config: &config,
        host_config: &host_config,
        mounts: Vec::new(),
        files: Files::default(),
        network: Namespace::New,
        ipc: Namespace::New,
        pid: Namespace::New,
        uts: Namespace::New,
        cgroup: Namespace::Host,
        shm: Shm::Private { size_bytes: 64 << 20 },
        cgroups_path: "/docker/c0ffee".into(),
        init_binary: None,
        read_file: &read_nothing,
        kernel: (6, 1),
    };
    change(&mut input);
    serde_json::to_value(build(&input).unwrap()).unwrap()
}

fn config() -> Config {
    Config { hostname: "c0ffee".into(), ..Config::default() }
}

#[test]
fn a_plain_container_gets_what_docker_gives_it() {
    let spec = spec(config(), HostConfig::default(), |_| {});
    assert_eq!(spec["process"]["user"], json!({ "uid": 0, "gid": 0, "additionalGids": [0] }));
    assert_eq!(
        spec["process"]["env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=c0ffee"
        ])
    );
    assert_eq!(spec["process"]["cwd"], "/");
    assert_eq!(spec["process"]["oomScoreAdj"], 0);
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert_eq!(spec["process"]["capabilities"].get("ambient"), None);
    assert_eq!(spec["hostname"], "c0ffee");
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([{ "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" }])
    );
    assert_eq!(
        spec["linux"]["sysctl"],
        json!({ "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" })
    );
    assert_eq!(spec["linux"]["seccomp"]["defaultErrnoRet"], 1);
    let mounts: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(
        mounts,
        ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    );
    assert_eq!(
        spec["mounts"][6]["options"],
        json!(["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"])
    );
}

#[test]
fn a_privileged_container_is_open() {
    let host = HostConfig { privileged: true, ..HostConfig::default() };
    let spec = spec(config(), host, |_| {});
    assert_eq!(spec["linux"].get("seccomp"), None);
    assert_eq!(spec["linux"].get("maskedPaths"), None);
    assert_eq!(spec["mounts"][3]["options"], json!(["nosuid", "noexec", "nodev"]));
    assert_eq!(spec["mounts"][4]["options"], json!(["nosuid", "noexec", "nodev"]));
}

#[test]
fn a_user_with_a_terminal_and_a_domain() {
    let config = Config {
        hostname: "web".into(),
        domainname: "ex.org".into(),
        user: "7:8".into(),
        tty: true,
        env: Some(vec!["A=b".into()]),
        working_dir: "/tmp".into(),
        ..Config::default()
    };
    let spec = spec(config, HostConfig::default(), |_| {});
    assert_eq!(spec["process"]["user"], json!({ "uid": 7, "gid": 8, "additionalGids": [8] }));
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["cwd"], "/tmp");
    assert_eq!(spec["process"]["env"][2], "TERM=xterm");
    assert_eq!(spec["process"]["env"][3], "A=b");
    assert_eq!(spec["linux"]["sysctl"]["kernel.domainname"], "ex.org");
}

#[test]
fn mounts_come_shallow_first_and_replace_dockers() {
    let bind = |destination: &str, read_only: bool, propagation: &str| Mount {
        destination: destination.into(),
        source: MountSource::Bind { path: "/src".into(), non_recursive: false },
        read_only,
        propagation: propagation.into(),
        recursive_ro: crate::container::mount_point::RecursiveReadOnly::IfPossible,
    };
    let host = HostConfig { readonly_rootfs: true, ..HostConfig::default() };
    let spec = spec(config(), host, |input| {
        input.mounts = vec![
            bind("/a/b", true, "rprivate"),
            bind("/dev/shm", false, ""),
            bind("/a", false, "rshared"),
        ];
        input.files.hosts = Some("/state/hosts".into());
    });
    let mounts = spec["mounts"].as_array().unwrap();
    let destinations: Vec<&str> =
        mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(
        destinations,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/a",
            "/a/b",
            "/dev/shm",
            "/etc/hosts"
        ]
    );
    assert_eq!(mounts[6]["options"], json!(["rbind", "rshared"]));
    assert_eq!(mounts[7]["options"], json!(["rbind", "rro", "rprivate"]));
    assert_eq!(mounts[9]["options"], json!(["rbind", "rro", "rprivate"]));
    assert_eq!(spec["linux"]["rootfsPropagation"], "shared");
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
}

#[test]
fn the_hosts_namespaces_are_left_out_and_joined_ones_named() {
    let host = HostConfig {
        network_mode: "host".into(),
        uts_mode: "host".into(),
        ..HostConfig::default()
    };
    let spec = spec(config(), host, |input| {
        input.network = Namespace::Host;
        input.uts = Namespace::Host;
        input.pid = Namespace::Join("/proc/9/ns/pid".into());
        input.cgroup = Namespace::New;
        input.shm = Shm::Absent;
    });
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([{ "type": "mount" }, { "type": "pid", "path": "/proc/9/ns/pid" }, { "type": "ipc" }, { "type": "cgroup" }])
    );
    assert_eq!(spec.get("hostname"), None);
    assert_eq!(spec["linux"].get("sysctl"), None);
}

#[test]
fn an_init_starts_the_command() {
    let spec = spec(config(), HostConfig::default(), |input| {
        input.init_binary = Some("/usr/libexec/init".into())
    });
    assert_eq!(spec["process"]["args"], json!(["/sbin/docker-init", "--", "sleep", "300"]));
    let last = spec["mounts"].as_array().unwrap().last().unwrap();
    assert_eq!(last["destination"], "/sbin/docker-init");
    assert_eq!(last["options"], json!(["bind", "ro"]));
}

#[test]
fn without_a_pid_namespace_of_its_own_a_container_has_no_init() {
    let spec = spec(config(), HostConfig::default(), |input| {
        input.init_binary = Some("/usr/libexec/init".into());
        input.pid = Namespace::Host;
    });
    assert_eq!(spec["process"]["args"], json!(["sleep", "300"]));
    assert!(!spec["mounts"].to_string().contains("docker-init"));
}

#[test]
fn a_read_only_bind_is_deep_where_the_kernel_can() {
    let options = |kernel| {
        let spec = spec(config(), HostConfig::default(), |input| {
            input.kernel = kernel;
            input.mounts = vec![Mount {
                destination: "/x".into(),
                source: MountSource::Bind { path: "/tmp".into(), non_recursive: false },
                read_only: true,
                propagation: "rprivate".into(),
                recursive_ro: crate::container::mount_point::RecursiveReadOnly::IfPossible,
            }];
        });
        let mounts = spec["mounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["destination"] == "/x").unwrap()["options"].clone()
    };
    assert_eq!(options((5, 12)), json!(["rbind", "rro", "rprivate"]));
    assert_eq!(options((5, 11)), json!(["rbind", "ro", "rprivate"]));
}
