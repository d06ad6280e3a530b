//! Against the kernel's own cgroups: what is made here is removed here. Run as root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::unistd::Pid;
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
};

use super::{Cgroup, Error};

/// A created cgroup that goes with the test.
struct Scratch(Cgroup);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = format!("/cleat-test-{}/{name}", std::process::id());
        let cgroup = Cgroup::new(Some(&path), name).unwrap();
        cgroup.create().unwrap();
        Self(cgroup)
    }

    fn dir(&self, controller: &str) -> PathBuf {
        self.0.paths().get(controller).unwrap_or(&self.0.paths()[""]).into()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.dir(controller).join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.delete().unwrap();
        for path in self.0.paths().values() {
            // Shared by the tests of this process: the last one removes it.
            let _ = fs::remove_dir(Path::new(path).parent().unwrap());
        }
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

#[test]
fn who_is_added_is_found_frozen_and_killed() {
    let scratch = Scratch::new("life");
    let mut child = sleeper();
    scratch.0.add(pid_of(&child)).unwrap();
    assert_eq!(scratch.0.pids().unwrap(), [pid_of(&child)]);
    assert!(!scratch.0.is_frozen().unwrap());
    scratch.0.freeze().unwrap();
    assert!(scratch.0.is_frozen().unwrap());
    scratch.0.thaw().unwrap();
    assert!(!scratch.0.is_frozen().unwrap());
    scratch.0.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_frozen_container_can_be_killed_and_deleted() {
    let scratch = Scratch::new("frozen");
    let mut child = sleeper();
    scratch.0.add(pid_of(&child)).unwrap();
    scratch.0.freeze().unwrap();
    scratch.0.kill().unwrap();
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    scratch.0.delete().unwrap();
    assert!(!scratch.0.exists());
    reaper.join().unwrap();
}

#[test]
fn deleting_twice_and_deleting_children_is_fine() {
    let scratch = Scratch::new("twice");
    for path in scratch.0.paths().values() {
        fs::create_dir_all(Path::new(path).join("a/b")).unwrap();
    }
    scratch.0.delete().unwrap();
    assert!(scratch.0.paths().values().all(|path| !Path::new(path).exists()));
    scratch.0.delete().unwrap();
}

#[test]
fn two_containers_do_not_share_a_cgroup() {
    let scratch = Scratch::new("shared");
    let mut child = sleeper();
    scratch.0.add(pid_of(&child)).unwrap();
    assert!(matches!(scratch.0.create(), Err(Error::NotEmpty { count: 1, .. })));
    scratch.0.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_member_is_found_in_the_cgroup_below_that_it_moved_to() {
    let scratch = Scratch::new("member");
    // A host with v1 alone has no such place.
    let Some(mut expected) = scratch.0.unified().map(|_| scratch.0.paths()) else { return };
    let mut child = sleeper();
    scratch.0.add(pid_of(&child)).unwrap();
    let find = || scratch.0.of_member(pid_of(&child)).unwrap().paths();
    assert_eq!(find(), expected);
    let below = scratch.dir("").join("a/b");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("cgroup.procs"), child.id().to_string()).unwrap();
    expected.insert(String::new(), below.display().to_string());
    assert_eq!(find(), expected);
    scratch.0.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_cgroup_comes_back_from_its_paths() {
    let scratch = Scratch::new("paths");
    let again = Cgroup::from_paths(scratch.0.paths(), None).unwrap();
    assert_eq!(again.paths(), scratch.0.paths());
    assert!(again.exists());
}

#[test]
fn limits_reach_the_kernel_and_can_be_raised_and_lowered() {
    let scratch = Scratch::new("limits");
    let is_v1 = scratch.0.paths().contains_key("memory");
    for megabytes in [32, 64, 16] {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(megabytes << 20)).set_swap(Some(megabytes << 21));
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(Some(512))
            .set_quota(Some(50_000))
            .set_period(Some(100_000))
            .set_cpus(Some("0".to_owned()));
        let mut pids = LinuxPids::default();
        pids.set_limit(77);
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_pids(Some(pids));
        scratch.0.update(&resources).unwrap();
        assert_eq!(scratch.read("pids", "pids.max"), "77");
        assert_eq!(scratch.read("cpuset", "cpuset.cpus"), "0");
        if is_v1 {
            assert_eq!(
                scratch.read("memory", "memory.limit_in_bytes"),
                (megabytes << 20).to_string()
            );
            assert_eq!(
                scratch.read("memory", "memory.memsw.limit_in_bytes"),
                (megabytes << 21).to_string()
            );
            assert_eq!(scratch.read("cpu", "cpu.shares"), "512");
            assert_eq!(scratch.read("cpu", "cpu.cfs_quota_us"), "50000");
        }
    }
}

/// On a host with v2 alone (`make test-vm`); the numbers are the kernel's own wording of what was asked for.
#[test]
fn what_was_asked_for_is_in_the_files_of_v2() {
    let scratch = Scratch::new("v2");
    if !scratch.0.is_pure_v2() {
        return;
    }
    let disks = fs::read_dir("/sys/block").unwrap().flatten();
    let disk = disks.map(|disk| fs::read_to_string(disk.path().join("dev")).unwrap()).next();
    let disk = disk.unwrap().trim().to_owned();
    let (major, minor) = disk.split_once(':').unwrap();
    let (major, minor): (u64, u64) = (major.parse().unwrap(), minor.parse().unwrap());
    let rate = |rate: u64| serde_json::json!([{"major": major, "minor": minor, "rate": rate}]);
    let asked = serde_json::json!({
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "blockIO": {
            "weight": 500, "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
            "throttleReadIOPSDevice": rate(30), "throttleWriteIOPSDevice": rate(40),
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
        "unified": {"memory.high": "52428800", "cgroup.max.descendants": "5"},
    });
    scratch.0.apply(&serde_json::from_value(asked).unwrap()).unwrap();
    let io = format!("{disk} rbps=1048576 wbps=2097152 riops=30 wiops=40");
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.high", "52428800"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "77"),
        ("io.max", &io),
        ("io.weight", "default 4950"),
        ("hugetlb.2MB.max", "4194304"),
        ("cgroup.max.descendants", "5"),
    ] {
        assert_eq!(scratch.read("", file), expected, "{file}");
    }
    let wrong = serde_json::json!({"unified": {"nothing.max": "1"}});
    let error = scratch.0.update(&serde_json::from_value(wrong).unwrap()).unwrap_err();
    assert!(error.to_string().contains("controller \"nothing\" not available"), "{error}");
}

#[test]
fn shares_out_of_range_name_the_bound() {
    let scratch = Scratch::new("shares");
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(1));
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu));
    if scratch.0.paths().contains_key("cpu") {
        let error = scratch.0.update(&resources).unwrap_err();
        assert_eq!(error.to_string(), "the minimum allowed cpu-shares is 2");
    }
}

fn devices(rules: &[(bool, LinuxDeviceType, i64, i64, &str)]) -> LinuxResources {
    let rule = |(allow, kind, major, minor, access): &(bool, LinuxDeviceType, i64, i64, &str)| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(*allow).set_typ(Some(*kind)).set_access(Some((*access).to_owned()));
        rule.set_major(Some(*major)).set_minor(Some(*minor));
        rule
    };
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules.iter().map(rule).collect()));
    resources
}

#[test]
fn device_rules_of_v1_are_the_default_and_what_is_always_allowed() {
    let scratch = Scratch::new("devices");
    if !scratch.0.paths().contains_key("devices") {
        return;
    }
    let none = (false, LinuxDeviceType::A, -1, -1, "rwm");
    scratch.0.apply(&devices(&[none, (true, LinuxDeviceType::B, 8, 0, "r")])).unwrap();
    let list = scratch.read("devices", "devices.list");
    for line in ["c 1:3 rwm", "c 136:* rwm", "b *:* m", "b 8:0 r"] {
        assert!(list.lines().any(|known| known == line), "{line} in {list}");
    }
    assert!(!list.contains('a'));
    scratch.0.apply(&devices(&[(true, LinuxDeviceType::A, -1, -1, "rwm")])).unwrap();
    assert_eq!(scratch.read("devices", "devices.list"), "a *:* rwm");
}

/// The v2 filter is tried in the unified hierarchy of a hybrid host as well: the kernel asks both.
#[test]
fn the_device_program_of_v2_allows_and_denies() {
    let scratch = Scratch::new("ebpf");
    let Some(unified) = scratch.0.unified() else { return };
    let reads = |path: &str, write: bool| {
        let how = if write { format!("echo x > {path}") } else { format!("head -c 1 {path}") };
        let script = format!("echo $$ > {}/cgroup.procs; {how}", unified.dir.display());
        Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
    };
    let set = |resources: &LinuxResources| {
        let filter = super::device::Filter::new(resources.devices().as_deref().unwrap()).unwrap();
        super::v2::device::set(&unified.dir, &filter).unwrap();
    };
    // 1:11 is /dev/kmsg, 1:5 /dev/zero.
    assert!(reads("/dev/zero", false) && reads("/dev/kmsg", true));
    set(&devices(&[]));
    assert!(reads("/dev/zero", false));
    assert!(!reads("/dev/kmsg", true));
    set(&devices(&[(true, LinuxDeviceType::C, 1, 11, "w")]));
    assert!(reads("/dev/kmsg", true));
    set(&devices(&[(true, LinuxDeviceType::C, 1, 11, "r")]));
    assert!(!reads("/dev/kmsg", true));
    set(&devices(&[
        (true, LinuxDeviceType::A, -1, -1, "rwm"),
        (false, LinuxDeviceType::C, 1, 11, "w"),
    ]));
    assert!(!reads("/dev/kmsg", true));
    assert!(reads("/dev/zero", false));
}
