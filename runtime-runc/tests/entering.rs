//! What a process of the worker's is while it enters a container and is not yet the program: nobody inside may look into it, and
//! there would be nothing to find. The table of `security.rs` says what each of these attacks is known as.
//!
//! Processes are held at their last step but one: the container's filter leaves the raising of an ambient capability to an agent,
//! which is this test. What they hold and who may look at them is then read from the kernel, as long as it takes.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use cleat_sys::seccomp::{Notification, answer, receive};
use common::{Bundle, succeeded};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A bundle with its agent.
struct Guarded {
    bundle: Bundle,
    agent: UnixListener,
}

/// A process that waits for the agent's answer.
struct Held {
    listener: OwnedFd,
    asked: Notification,
}

impl Guarded {
    fn new(script: &str) -> Self {
        let mut bundle = Bundle::shell(script);
        let path = bundle.directory.join("agent");
        let agent = UnixListener::bind(&path).unwrap();
        // prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, …)
        let arguments = json!([
            {"index": 0, "value": 47, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"},
        ]);
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
            "syscalls": [{"names": ["prctl"], "action": "SCMP_ACT_NOTIFY", "args": arguments}],
        });
        Self { bundle, agent }
    }

    /// A container that runs, of which nothing is held.
    fn idle() -> Self {
        let guarded = Self::new("exec sleep 1000");
        guarded.bundle.start();
        drop(guarded.listener());
        guarded
    }

    /// Has the first process held.
    fn hold_init(&mut self) {
        for list in ["inheritable", "ambient"] {
            self.bundle.spec["process"]["capabilities"][list] = json!(["CAP_CHOWN"]);
        }
        self.bundle.write();
    }

    /// Returns the flags of an exec that is held; it runs `args` when it is let go.
    fn held_exec(&self, args: &[&str]) -> [String; 2] {
        let path = self.bundle.directory.join("process.json");
        let mut capabilities = self.bundle.spec["process"]["capabilities"].clone();
        for list in ["inheritable", "ambient"] {
            capabilities[list] = json!(["CAP_CHOWN"]);
        }
        let process =
            json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "capabilities": capabilities});
        fs::write(&path, process.to_string()).unwrap();
        ["--process".to_owned(), path.to_str().unwrap().to_owned()]
    }

    /// Takes the listener of the next process.
    fn listener(&self) -> OwnedFd {
        self.agent.set_nonblocking(true).unwrap();
        let mut socket = None;
        common::wait_for("who asks the agent", || {
            socket = self.agent.accept().ok();
            socket.is_some()
        });
        let (socket, _) = socket.unwrap();
        cleat_sys::fdpass::recv(&socket, &mut [0; 8192]).unwrap().1.remove(0)
    }

    /// Waits until the next process is where it is held.
    fn held(&self) -> Held {
        let listener = self.listener();
        let asked = receive(&listener).unwrap();
        Held { listener, asked }
    }
}

impl Held {
    /// Its number on the host.
    fn pid(&self) -> u32 {
        self.asked.pid
    }

    /// Its number in the container.
    fn inner_pid(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    }

    /// What its descriptors above the standard ones lead to.
    fn holds(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .filter(|entry| !matches!(entry.file_name().to_str(), Some("0" | "1" | "2")))
            .map(|entry| fs::read_link(entry.path()).unwrap())
            .collect()
    }

    fn let_go(self) {
        answer(&self.listener, &self.asked, Ok(0)).unwrap();
    }
}

/// The same command with what comes after its program put behind another one.
fn behind(program: &str, flags: &[&str], command: &Command) -> Command {
    let mut other = Command::new(program);
    other.args(flags).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    other
}

/// The command with a directory of the host's left open for it as descriptors 3 to 9.
fn with_leaks(command: &Command) -> Command {
    let script = "exec 3</etc 4</ 5</proc 6</ 7</dev 8</ 9</sys; exec \"$0\" \"$@\"";
    behind("/bin/sh", &["-c", script], command)
}

/// The command with every right but the one to trace those who have more.
fn without_tracing(command: &Command) -> Command {
    behind("setpriv", &["--inh-caps=-sys_ptrace", "--bounding-set=-sys_ptrace"], command)
}

fn is_socket(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("socket:["))
}

/// CVE-2016-9962: as [`the_waiting_init_is_closed_to_the_container`](../security.rs) for an exec, which comes among processes that run.
#[test]
fn an_exec_on_its_way_is_closed_to_the_container() {
    let guarded = Guarded::idle();
    let bundle = &guarded.bundle;
    let mut exec = bundle.worker();
    exec.arg("exec").args(guarded.held_exec(&["/bin/sleep", "1000"])).arg(&bundle.id);
    let mut exec = exec.spawn().unwrap();
    let held = guarded.held();
    let pid = held.inner_pid();
    let look = |script: &str| bundle.verb("exec", &[], &["/bin/sh", "-c", script]);
    let all = ["exe", "cwd", "root", "ns/mnt", "fd/3"];
    let all = all.map(|link| format!("readlink /proc/{pid}/{link}")).join(" || ");
    let output = look(&format!("{all} || cat /proc/{pid}/environ"));
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    held.let_go();
    let seen =
        look(&format!("until readlink /proc/{pid}/exe; do test -d /proc/{pid} || exit 1; done"));
    assert_eq!(succeeded(seen), "/bin/busybox\n");
    succeeded(bundle.verb("kill", &["--all"], &["KILL"]));
    exec.wait().unwrap();
}

/// CVE-2016-9962: the one who makes it is closed as well, so that there is no moment between its birth and its own precautions.
#[test]
fn who_makes_a_process_is_closed_before_it_is_born() {
    let looks = |pid: u32| {
        let mut look = Command::new("readlink");
        look.arg(format!("/proc/{pid}/exe"));
        without_tracing(&look).output().unwrap()
    };
    let check = |guarded: &Guarded, mut child: Child| {
        let held = guarded.held();
        for pid in [child.id(), held.pid()] {
            let output = looks(pid);
            assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        }
        held.let_go();
        assert!(child.wait().unwrap().success());
    };
    // Whose right is missing is not what decides: it sees those who are open.
    let mut open =
        without_tracing(Command::new("cat").arg("-")).stdin(Stdio::piped()).spawn().unwrap();
    common::wait_for("cat", || String::from_utf8_lossy(&looks(open.id()).stdout).contains("cat"));
    open.kill().unwrap();
    open.wait().unwrap();

    let guarded = Guarded::idle();
    let mut exec = guarded.bundle.worker();
    exec.arg("exec").args(guarded.held_exec(&["/bin/true"])).arg(&guarded.bundle.id);
    check(&guarded, without_tracing(&exec).spawn().unwrap());
    let mut guarded = Guarded::new("true");
    guarded.hold_init();
    let mut run = guarded.bundle.worker();
    run.args(["run", "--bundle"]).arg(&guarded.bundle.directory).arg(&guarded.bundle.id);
    check(&guarded, without_tracing(&run).spawn().unwrap());
}

/// CVE-2024-21626: whatever the worker's caller left open, what enters holds its way back to the worker and nothing else.
#[test]
fn a_process_on_its_way_holds_nothing_of_the_worker_s_caller() {
    let guarded = Guarded::idle();
    let mut exec = guarded.bundle.worker();
    exec.arg("exec").args(guarded.held_exec(&["/bin/true"])).arg(&guarded.bundle.id);
    let mut exec = with_leaks(&exec).spawn().unwrap();
    let held = guarded.held();
    let holds = held.holds();
    assert!(holds.len() == 1 && is_socket(&holds[0]), "{holds:?}");
    held.let_go();
    assert!(exec.wait().unwrap().success());

    let mut guarded = Guarded::new("true");
    guarded.hold_init();
    let mut run = guarded.bundle.worker();
    run.args(["run", "--bundle"]).arg(&guarded.bundle.directory).arg(&guarded.bundle.id);
    let mut run = with_leaks(&run).spawn().unwrap();
    let held = guarded.held();
    let holds = held.holds();
    assert!(holds.len() == 1 && is_socket(&holds[0]), "{holds:?}");
    held.let_go();
    assert!(run.wait().unwrap().success());
}

/// CVE-2024-21626: a directory of the host's that is open, on purpose even, is no working directory.
#[test]
fn a_descriptor_of_the_caller_s_is_no_working_directory() {
    let refused = |output: Output, what: &str| {
        assert!(!output.status.success() && output.stdout.is_empty(), "{what}: {output:?}");
    };
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    for (cwd, preserve) in [3, 4, 5, 9].iter().flat_map(|fd| [(fd, "0"), (fd, "7")]) {
        let cwd = format!("/proc/self/fd/{cwd}");
        let mut exec = bundle.worker();
        exec.args(["exec", "--preserve-fds", preserve, "--cwd", &cwd, &bundle.id, "/bin/ls"]);
        refused(with_leaks(&exec).output().unwrap(), &cwd);
        let other = Bundle::shell("ls");
        bundle.spec["process"]["args"] = json!(["/bin/ls"]);
        bundle.spec["process"]["cwd"] = cwd.as_str().into();
        bundle.spec["linux"]["cgroupsPath"] = other.spec["linux"]["cgroupsPath"].clone();
        bundle.write();
        let mut run = other.worker();
        run.args(["run", "--preserve-fds", preserve, "--bundle"])
            .arg(&bundle.directory)
            .arg(&other.id);
        refused(with_leaks(&run).output().unwrap(), &cwd);
    }
}

/// A copy of the worker's file, which no other test runs. Made by a process of its own: a child that another test starts meanwhile
/// would hold it open, and to run it would be ETXTBSY.
fn own_worker(bundle: &Bundle) -> PathBuf {
    let own = bundle.directory.join("worker");
    let mut copy = Command::new("cp");
    assert!(copy.arg(bundle.worker().get_program()).arg(&own).status().unwrap().success());
    own
}

/// What [`Held`] runs from, which a privileged process of the container could open.
fn file_of(pid: u32) -> File {
    File::open(format!("/proc/{pid}/exe")).unwrap()
}

fn reopen(file: &File) -> std::io::Result<File> {
    fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// CVE-2019-5736: whichever verb brings a process into a container, it comes from where nobody can write.
#[test]
fn every_verb_enters_from_a_file_that_cannot_be_written() {
    let check = |guarded: &Guarded, mut child: Child| {
        let held = guarded.held();
        let file = file_of(held.pid());
        held.let_go();
        assert!(child.wait().unwrap().success());
        // Once it runs no more the mount alone stands in the way.
        let runs = || {
            reopen(&file).is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy)
        };
        common::wait_for("the worker to have become the program", || !runs());
        assert_eq!(reopen(&file).unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
    };
    let guarded = Guarded::idle();
    let mut exec = Command::new(own_worker(&guarded.bundle));
    exec.args(guarded.bundle.worker().get_args()).arg("exec");
    exec.args(guarded.held_exec(&["/bin/true"])).arg(&guarded.bundle.id);
    check(&guarded, exec.spawn().unwrap());
    for flags in [&["--detach"][..], &[]] {
        let mut guarded = Guarded::new("true");
        guarded.hold_init();
        let mut run = Command::new(own_worker(&guarded.bundle));
        run.args(guarded.bundle.worker().get_args()).arg("run").args(flags).arg("--bundle");
        run.arg(&guarded.bundle.directory).arg(&guarded.bundle.id);
        check(&guarded, run.stdout(Stdio::null()).spawn().unwrap());
    }
}

/// CVE-2019-5736: where the worker's name leads to another file by now, it runs from a copy that is sealed.
#[test]
fn a_worker_that_is_not_what_its_name_says_runs_from_a_sealed_copy() {
    let bundle = Bundle::shell("true");
    bundle.write();
    let own = own_worker(&bundle);
    let script = "exec 9<\"$0\"; mount --bind /bin/true \"$0\"; exec /proc/self/fd/9 \"$@\"";
    let mut create = Command::new("unshare");
    create.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]).arg(&own);
    create.args(bundle.worker().get_args()).args(["create", "--bundle"]);
    create.arg(&bundle.directory).arg(&bundle.id).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(create.status().unwrap().success());
    let pid = bundle.state()["pid"].as_u64().unwrap() as u32;
    let name = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(name.starts_with("/memfd:cleat-runc (deleted)"), "{name:?}");
    let file = file_of(pid);
    succeeded(bundle.verb("delete", &[], &[]));
    let error = reopen(&file).and_then(|mut file| file.write_all(b"changed")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM));
}

/// CVE-2016-8867, CVE-2022-29162: what the worker's caller has handed on to it stops there.
#[test]
fn capabilities_that_the_caller_hands_on_are_not_the_container_s() {
    let flags = ["--inh-caps=+chown", "--ambient-caps=+chown"];
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    let inheritable_alone = "CapInh:\t0000000000000001\nCapAmb:\t0000000000000000\n";
    let look = ["/bin/grep", "-E", "CapInh|CapAmb", "/proc/self/status"];
    for (inheritable, set) in [(json!([]), none), (json!(["CAP_CHOWN"]), inheritable_alone)] {
        let mut bundle = Bundle::new(&look);
        bundle.spec["process"]["capabilities"]["inheritable"] = inheritable;
        bundle.write();
        let mut run = bundle.worker();
        run.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
        assert_eq!(succeeded(behind("setpriv", &flags, &run).output().unwrap()), set);
    }
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let mut exec = bundle.worker();
    exec.args(["exec", "--user", "7:8", &bundle.id]).args(look);
    assert_eq!(succeeded(behind("setpriv", &flags, &exec).output().unwrap()), none);
}

/// The standard descriptors become the user's, the host's null device among them does not.
#[test]
fn the_host_s_null_device_stays_who_it_is_of() {
    use std::os::unix::fs::MetadataExt;
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    let mut exec = bundle.worker();
    exec.args(["exec", "--user", "54322", &bundle.id, "/bin/true"]).stdin(Stdio::null());
    assert!(exec.stdout(Stdio::null()).status().unwrap().success());
    assert_ne!(fs::metadata("/dev/null").unwrap().uid(), 54_322);
}
