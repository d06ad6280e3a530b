//! Engines that were made for `runc` run their containers with the worker instead: containerd by its stock runc shim, and Podman with
//! conmon. `tests/tools.sh` brings them; each has directories, and a mount namespace, of its own. Others, and newer ones, are for
//! `make conformance-engines`.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded, wait_for};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const WORKER: &str = env!("CARGO_BIN_EXE_cleat-runc");

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let all = std::env::split_paths(&path).map(|directory| directory.join(program));
    all.into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is needed: tests/tools.sh brings it"))
}

/// Directories and a root filesystem, without a container of our own.
fn place() -> Bundle {
    let place = Bundle::shell("");
    for name in ["run", "root"] {
        fs::create_dir_all(place.rootfs().join(name)).unwrap();
    }
    place
}

struct Containerd {
    place: Bundle,
    process: Child,
}

impl Containerd {
    fn start() -> Self {
        let place = place();
        find("containerd-shim-runc-v2");
        let path = |name: &str| place.directory.join(name).to_str().unwrap().to_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("run"),
            path("grpc"),
            path("ttrpc"),
        );
        fs::write(path("config.toml"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(find("containerd"));
        command.args(["--config", &path("config.toml")]).stdout(Stdio::null()).stderr(log);
        let containerd = Self { process: command.spawn().unwrap(), place };
        wait_for("containerd", || containerd.ctr(&["version"]).status.success());
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.client().args(args).output().unwrap()
    }

    fn client(&self) -> Command {
        let mut command = Command::new(find("ctr"));
        command.arg("--address").arg(self.place.directory.join("grpc")).stdin(Stdio::null());
        command
    }

    /// `ctr run` with containerd's own shim and our worker.
    fn command(&self, flags: &[&str], id: &str, script: &str) -> Command {
        let mut command = self.client();
        command.args(["run", "--runtime", "io.containerd.runc.v2", "--runc-binary", WORKER]);
        command.arg("--runc-root").arg(self.place.directory.join("state")).args(flags);
        command.arg("--rootfs").arg(self.place.rootfs()).args([id, "/bin/sh", "-c", script]);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in self.ctr(&["task", "ls", "-q"]).stdout.split(|&byte| byte == b'\n') {
            let id = String::from_utf8_lossy(id).into_owned();
            if !id.is_empty() {
                self.ctr(&["task", "delete", "--force", &id]);
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn containerd_s_own_runc_shim_drives_the_worker() {
    let containerd = Containerd::start();
    // Cgroups go by these names alone.
    let (one, two) =
        (format!("{}-one", containerd.place.id), format!("{}-two", containerd.place.id));
    // Its output is seen while it runs: ctr may stop listening when a container ends as soon as it begins.
    let script = "echo out; until [ -e /tmp/go ]; do sleep 0.01; done; exit 3";
    let mut run =
        containerd.command(&["--rm"], &one, script).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "out\n");
    fs::write(containerd.place.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3));
    // The worker it was, and not a runc that happens to be there.
    let limits = ["--detach", "--memory-limit", "67108864"];
    succeeded(containerd.command(&limits, &two, "exec sleep 1000").output().unwrap());
    let state = containerd.place.directory.join("state/default").join(&two);
    assert!(fs::read_to_string(state.join("state.json")).unwrap().contains("\"cleat\":"));
    let task = |words: &[&str]| succeeded(containerd.ctr(&[&["task"], words].concat()));
    task(&["exec", "--exec-id", "e", &two, "/bin/sh", "-c", "echo hi > /tmp/hi"]);
    assert_eq!(fs::read_to_string(containerd.place.rootfs().join("tmp/hi")).unwrap(), "hi\n");
    let failed =
        containerd.ctr(&["task", "exec", "--exec-id", "f", &two, "/bin/sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let missing = containerd.ctr(&["task", "exec", "--exec-id", "g", &two, "/no/such"]);
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(text.contains("no such file or directory"), "{text}");
    task(&["pause", &two]);
    assert!(task(&["ls"]).contains("PAUSED"));
    task(&["resume", &two]);
    assert!(task(&["ps", &two]).lines().count() > 1);
    assert!(task(&["metrics", &two]).contains("pids"));
    task(&["kill", "--signal", "SIGKILL", &two]);
    wait_for("the end", || task(&["ls"]).contains("STOPPED"));
    task(&["delete", &two]);
    succeeded(containerd.ctr(&["container", "delete", &two]));
    assert!(!state.exists());
}

/// Where a script runs Podman as `podman`, with our worker.
struct Podman {
    place: Bundle,
}

impl Podman {
    fn new() -> Self {
        let place = place();
        let at = |name: &str| place.directory.join(name);
        let config = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nconmon_path = [{:?}]\n\
             [containers]\nnetns = \"none\"\n",
            find("conmon")
        );
        fs::write(at("containers.conf"), config).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            at("root"),
            at("runroot")
        );
        fs::write(at("storage.conf"), storage).unwrap();
        Self { place }
    }

    /// In a PID namespace whose first process is a shell that does nothing but wait: it reaps conmon, for whose end Podman waits.
    fn script(&self, script: &str) -> Output {
        let at = |name: &str| self.place.directory.join(name);
        let podman = find("podman");
        let setting = format!(
            "mount -t tmpfs tmpfs /run && mkdir /run/lock && podman() {{ {podman:?} --root {:?} --runroot {:?} --tmpdir {:?} \
             --runtime {WORKER:?} \"$@\"; }}\nrootfs={:?}\n({script}) &\nwait $!\n",
            at("root"),
            at("runroot"),
            at("tmp"),
            self.place.rootfs(),
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ]);
        command.args(["/bin/sh", "-euc", &setting]).stdin(Stdio::null());
        command
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        command.env("HOME", &self.place.directory);
        command.output().unwrap()
    }
}

#[test]
fn podman_runs_containers_with_the_worker() {
    let podman = Podman::new();
    let text = succeeded(podman.script(
        r#"
        say() { echo "$1: $2"; }
        code=0; out=$(podman run --rm --rootfs "$rootfs" /bin/sh -c 'echo out; exit 3') || code=$?
        say run "$out $code"
        podman run -d --name web --memory 64m --pids-limit 20 --rootfs "$rootfs" /bin/sh -c 'echo hello; exec sleep 1000' >/dev/null
        say runtime "$(podman inspect --format '{{.OCIRuntime}}' web | sed 's,.*/,,')"
        say exec "$(podman exec -e A=b web /bin/sh -c 'echo $A $(id -u)')"
        code=0; podman exec web /bin/sh -c 'exit 7' || code=$?
        say code $code
        code=0; podman exec web /no/such 2>/dev/null || code=$?
        say missing $code
        podman pause web >/dev/null; say pause "$(podman inspect --format '{{.State.Status}}' web)"
        podman unpause web >/dev/null; say resume "$(podman inspect --format '{{.State.Status}}' web)"
        say top "$(podman top web args | tail -n 1 | xargs)"
        say logs "$(podman logs web)"
        podman stop -t 0 web >/dev/null 2>&1; say stopped "$(podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' web)"
        podman start web >/dev/null; say again "$(podman inspect --format '{{.State.Status}}' web)"
        podman rm -f -t 0 web >/dev/null
        say left "$(podman ps -aq | wc -l)"
        "#,
    ));
    let expected = "run: out 3\nruntime: cleat-runc\nexec: b 0\ncode: 7\nmissing: 127\npause: paused\nresume: running\n\
        top: sleep 1000\nlogs: hello\nstopped: exited 137\nagain: running\nleft: 0\n";
    assert_eq!(text, expected);
}

/// Nobody's number on any host.
const USER: u32 = 54_323;

/// What Podman needs of a user: copies of the programs where they may go, and a mount namespace in which they exist and have ids to
/// give; the host's files stay as they are.
fn as_user(podman: &Podman, script: &str) -> Output {
    let at = |name: &str| podman.place.directory.join(name);
    let install = |program: PathBuf, name: &str| {
        // By another process: a child that another test forks just now would hold it open for writing.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(program).arg(at(name));
        succeeded(install.output().unwrap());
    };
    install(find("podman"), "podman");
    install(find("conmon"), "conmon");
    install(WORKER.into(), "cleat-runc");
    let config = fs::read_to_string(at("containers.conf")).unwrap();
    let conmon = format!("{:?}", find("conmon"));
    fs::write(at("containers.conf"), config.replace(&conmon, &format!("{:?}", at("conmon"))))
        .unwrap();
    fs::create_dir(at("accounts")).unwrap();
    for (file, line) in [
        ("passwd", format!("cleat-test:x:{USER}:{USER}::{}:/bin/sh", at("home").display())),
        ("group", format!("cleat-test:x:{USER}:")),
        ("subuid", "cleat-test:700000:65536".to_owned()),
        ("subgid", "cleat-test:700000:65536".to_owned()),
    ] {
        let own = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        fs::write(at("accounts").join(file), format!("{own}{line}\n")).unwrap();
    }
    for name in ["home", "root", "runroot", "tmp"] {
        fs::create_dir(at(name)).unwrap();
    }
    let user = format!("{USER}:{USER}");
    let mut give = Command::new("chown");
    give.args(["-Rh", &user]).args(["home", "root", "runroot", "tmp", "rootfs"].map(at));
    succeeded(give.output().unwrap());
    let script = format!(
        "podman() {{ {0}/podman --root {0}/root --runroot {0}/runroot --tmpdir {0}/tmp --runtime {0}/cleat-runc \"$@\"; }}\n\
         rootfs={0}/rootfs\n{script}",
        podman.place.directory.display()
    );
    fs::write(at("script"), script).unwrap();
    let setting = format!(
        "mount -t tmpfs tmpfs /run\n\
         for file in passwd group subuid subgid; do mount --bind {0}/accounts/$file /etc/$file; done\n\
         env -i PATH=\"$PATH\" HOME={0}/home XDG_RUNTIME_DIR={0}/home CONTAINERS_CONF={0}/containers.conf \
         CONTAINERS_STORAGE_CONF={0}/storage.conf setpriv --reuid {USER} --regid {USER} --clear-groups /bin/sh -eu {0}/script &\n\
         wait $!\n",
        podman.place.directory.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation"]);
    command.args(["private", "/bin/sh", "-euc", &setting]).stdin(Stdio::null());
    command.output().unwrap()
}

/// Podman makes a user namespace and runs the worker as its root, who has no right to the host's cgroups and devices.
#[test]
fn podman_runs_a_users_containers_with_the_worker() {
    let podman = Podman::new();
    let text = succeeded(as_user(
        &podman,
        r#"
        say() { echo "$1: $2"; }
        code=0; out=$(podman run --rm --rootfs "$rootfs" /bin/sh -c 'echo out; exit 3') || code=$?
        say run "$out $code"
        say map "$(podman run --rm --rootfs "$rootfs" cat /proc/self/uid_map | xargs)"
        podman run -d --name web --rootfs "$rootfs" /bin/sh -c 'echo hello; echo x > /dev/null && echo y > /tmp/x; exec sleep 1000' >/dev/null
        say runtime "$(podman inspect --format '{{.OCIRuntime}}' web | sed 's,.*/,,')"
        say exec "$(podman exec -e A=b web /bin/sh -c 'echo $A $(id -u)')"
        code=0; podman exec web /bin/sh -c 'exit 7' || code=$?
        say code $code
        code=0; podman exec web /no/such 2>/dev/null || code=$?
        say missing $code
        say top "$(podman top web args | tail -n 1 | xargs)"
        say logs "$(podman logs web)"
        podman stop -t 0 web >/dev/null 2>&1; say stopped "$(podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' web)"
        podman start web >/dev/null; say again "$(podman inspect --format '{{.State.Status}}' web)"
        podman rm -f -t 0 web >/dev/null
        say left "$(podman ps -aq | wc -l)"
        "#,
    ));
    let expected = "run: out 3\nmap: 0 54323 1 1 700000 65536\nruntime: cleat-runc\nexec: b 0\ncode: 7\nmissing: 127\n\
        top: sleep 1000\nlogs: hello\nstopped: exited 137\nagain: running\nleft: 0\n";
    assert_eq!(text, expected);
    let made = fs::metadata(podman.place.rootfs().join("tmp/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
}
