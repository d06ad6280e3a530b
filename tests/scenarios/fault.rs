//! SIGKILL of the worker and of the shim between two steps of a start: the client is told, nothing is left, and the next
//! start works.

use std::{fs, path::Path, thread};

use cleat_tests::{Options, TestDaemon, binary, wait_for};

/// The worker's steps of `create`; see `fault::point` in runtime-runc.
const CREATE: [&str; 7] = [
    "create.before-directory",
    "create.after-directory",
    "create.after-cgroup",
    "create.after-clone",
    "create.after-state",
    "create.after-ready",
    "create.after-pid-file",
];

/// Returns what of the container `id` is on the host: cgroups, processes, the task's and the runtime's directories.
fn traces(daemon: &TestDaemon, id: &str) -> Vec<String> {
    let entries = |path: &Path| {
        fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
    };
    let hierarchies = entries(Path::new("/sys/fs/cgroup"));
    let parents = hierarchies.iter().flat_map(|hierarchy| entries(hierarchy));
    let mut found: Vec<_> = parents.map(|parent| parent.join(id)).collect();
    found.push(daemon.path("run/tasks/cleat").join(id));
    found.extend(entries(&daemon.path("run/runtime")).iter().map(|root| root.join(id)));
    found.retain(|path| path.exists());
    found.extend(entries(Path::new("/proc")).into_iter().filter(|process| {
        fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(id))
    }));
    found.iter().map(|path| path.display().to_string()).collect()
}

/// Starts `victim`, which fails with `message`, and holds that it can be started when the fault is over.
#[track_caller]
fn check(daemon: &TestDaemon, fault: &Path, at: &str, message: &str) {
    fs::create_dir_all(fault.parent().unwrap()).unwrap();
    fs::write(fault, at).unwrap();
    let started = daemon.docker(["start", "victim"]);
    fs::remove_file(fault).unwrap();
    started.expect(1).says(message);
    check_clean(daemon, at);
}

/// Holds that nothing of `victim` is left, and that it can be started.
#[track_caller]
fn check_clean(daemon: &TestDaemon, at: &str) {
    assert_eq!(daemon.inspect("victim", ".State.Running"), "false", "{at}");
    let id = daemon.inspect("victim", ".Id");
    // Processes are gone a moment after their kill, and what is left of a run that ended is taken away behind its end.
    let mut left = Vec::new();
    let what = format!("nothing to be left after {at}");
    wait_for(&what, || {
        left = traces(daemon, &id);
        left.is_empty().then_some(())
    });
    daemon.docker(["start", "victim"]).ok();
    assert_eq!(daemon.inspect("victim", ".State.Running"), "true", "{at}");
    daemon.docker(["kill", "victim"]).ok();
}

fn create(daemon: &TestDaemon, flags: &[&str]) {
    let head = ["create", "--name", "victim", "-p", "127.0.0.1:0:80", "-v", "/data"];
    let tail = ["busybox", "sleep", "1000"];
    daemon.docker(head.into_iter().chain(flags.iter().copied()).chain(tail)).ok();
}

#[test]
fn a_worker_killed_in_the_middle_of_create_leaves_nothing() {
    let daemon = TestDaemon::with_busybox();
    create(&daemon, &[]);
    let fault = daemon.path("run/runtime/runc/fault");
    for point in CREATE {
        check(&daemon, &fault, point, "cleat-runc was killed by signal 9");
    }
}

#[test]
fn a_worker_killed_in_the_middle_of_start_leaves_nothing() {
    // Our own runtime needs no worker for it; under a name of its own it is one of those that do.
    let worker = binary("cleat-runc");
    let daemon = TestDaemon::with(Options {
        flags: vec!["--add-runtime".into(), format!("foreign={}", worker.display())],
        ..Options::default()
    });
    daemon.import_busybox();
    create(&daemon, &["--runtime", "foreign"]);
    let fault = daemon.path("run/runtime/foreign/fault");
    for point in ["create.after-clone", "start.before-byte", "start.after-byte"] {
        check(&daemon, &fault, point, "cleat-runc was killed by signal 9");
    }
}

#[test]
fn a_shim_killed_while_the_worker_is_at_work_leaves_nothing() {
    let daemon = TestDaemon::with_busybox();
    create(&daemon, &[]);
    let fault = daemon.path("run/runtime/runc/fault");
    for point in CREATE {
        check(&daemon, &fault, &format!("shim {point}"), "cannot reach the shim");
    }
}

#[test]
fn a_shim_killed_between_two_steps_of_the_daemons_leaves_nothing() {
    let mut daemon = TestDaemon::with_busybox();
    create(&daemon, &[]);
    for point in ["start.after-shim", "start.after-bundle", "start.after-create"] {
        daemon.terminate();
        daemon.spawn_with(&[("CLEAT_FAULT", &format!("shim {point}"))]);
        daemon.wait_ready();
        daemon.docker(["start", "victim"]).expect(1).says("cannot reach the shim");
        daemon.terminate();
        daemon.spawn();
        check_clean(&daemon, point);
    }
    // Here the program runs already, and its end is an end like any other.
    daemon.terminate();
    daemon.spawn_with(&[("CLEAT_FAULT", "shim start.after-start")]);
    daemon.wait_ready();
    daemon.docker(["start", "victim"]).ok();
    assert_eq!(daemon.docker(["wait", "victim"]).ok(), "137");
    daemon.terminate();
    daemon.spawn();
    check_clean(&daemon, "start.after-start");
}

#[test]
fn sixty_containers_are_all_there_when_the_daemon_comes_back() {
    const COUNT: usize = 60;
    let mut daemon = TestDaemon::with_busybox();
    thread::scope(|scope| {
        for worker in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                for number in (worker..COUNT).step_by(4) {
                    let name = format!("c{number}");
                    let run = ["run", "-d", "--network", "none", "--name", &name];
                    daemon.docker(run.into_iter().chain(["busybox", "sleep", "1000"])).ok();
                }
            });
        }
    });
    let all = |daemon: &TestDaemon| {
        let format = "{{.ID}} {{.Names}} {{.State}}";
        daemon.docker(["ps", "-a", "--no-trunc", "--format", format]).ok()
    };
    let before = all(&daemon);
    daemon.kill();
    daemon.spawn();
    let after = all(&daemon);
    assert_eq!(after, before);
    assert_eq!(after.lines().filter(|line| line.ends_with(" running")).count(), COUNT);
    let names: Vec<_> = (0..COUNT).map(|number| format!("c{number}")).collect();
    daemon.docker(["rm", "-f"].into_iter().chain(names.iter().map(String::as_str))).ok();
}
