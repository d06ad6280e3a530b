//! A daemon of a test's own.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    NetworkNamespace, Ran, Traces, binary, busybox, docker, run, run_with_stdin, wait_for,
};

/// What may differ from one daemon to the next.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More flags.
    pub flags: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

/// A `cleatd` with directories, socket, network namespace and cgroup of its own. Its end stops it and proves that nothing
/// of it is left on the host; of a test that failed it shows the daemon's log.
pub struct TestDaemon {
    directory: TempDir,
    network: NetworkNamespace,
    cgroup: String,
    /// Its cgroups are systemd's.
    systemd: bool,
    options: Options,
    /// Where its data goes; below the test's directory if this is empty.
    root: PathBuf,
    process: Option<Child>,
}

impl TestDaemon {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Starts one with `busybox:latest` in it.
    pub fn with_busybox() -> Self {
        let daemon = Self::start();
        daemon.import_busybox();
        daemon
    }

    /// Starts one whose cgroups are systemd's (`CLEAT_TEST_SYSTEMD` in the environment makes all of them so), with
    /// `busybox:latest` in it.
    pub fn with_systemd() -> Self {
        let daemon = Self::make(PathBuf::new(), Options::default(), true);
        daemon.import_busybox();
        daemon
    }

    /// Starts one with more flags.
    pub fn with(options: Options) -> Self {
        Self::at(PathBuf::new(), options)
    }

    /// Starts one whose data goes to a directory that is the test's.
    pub fn at(root: PathBuf, options: Options) -> Self {
        Self::make(root, options, std::env::var_os("CLEAT_TEST_SYSTEMD").is_some())
    }

    fn make(root: PathBuf, options: Options, systemd: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cleat-t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory =
            tempfile::Builder::new().prefix("cleat-").tempdir().expect("a directory can be made");
        let network = NetworkNamespace::new(name.clone());
        let mut daemon =
            Self { directory, network, cgroup: name, systemd, options, root, process: None };
        daemon.spawn();
        daemon
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
        self.wait_ready();
    }

    /// Starts the daemon (again) with more environment, and does not wait.
    pub fn spawn_with(&mut self, env: &[(&str, &str)]) {
        assert!(self.process.is_none(), "the daemon runs");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("the log opens");
        let mut command = self.network.command(binary("cleatd"));
        command
            .arg("--root")
            // What is absolute stands for itself.
            .arg(self.path("root").join(&self.root))
            .arg("--state")
            .arg(self.path("run"))
            .arg("-H")
            .arg(self.host())
            .args([
                "--cgroup-parent",
                &self.cgroup_parent(),
                "--exec-opt",
                self.driver(),
                "--debug",
            ])
            .args(&self.options.flags)
            .envs(self.options.env.iter().map(|(key, value)| (key, value)))
            .envs(env.iter().copied())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log);
        self.process = Some(command.spawn().expect("the daemon starts"));
    }

    fn driver(&self) -> &'static str {
        match self.systemd {
            true => "native.cgroupdriver=systemd",
            false => "native.cgroupdriver=cgroupfs",
        }
    }

    /// Returns the parent of its containers' cgroups: a directory, or a slice of its own.
    pub fn cgroup_parent(&self) -> String {
        if self.systemd { slice(&self.cgroup) } else { format!("/{}", self.cgroup) }
    }

    /// Changes the driver for the daemon's next start.
    pub fn set_systemd(&mut self, systemd: bool) {
        self.systemd = systemd;
    }

    /// Waits until the daemon accepts connections and answers.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn wait_ready(&mut self) {
        let socket = self.path("cleat.sock");
        wait_for("the daemon's socket", || {
            let process = self.process.as_mut().expect("the daemon was started");
            let ended = process.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log());
            UnixStream::connect(&socket).ok()
        });
        self.docker(["version", "--format", "{{.Server.Version}}"]).ok();
    }

    /// Waits until the daemon answers, or has ended before it could; returns whether it answers.
    pub fn wait_ready_or_ended(&mut self) -> bool {
        let socket = self.path("cleat.sock");
        wait_for("the daemon's socket, or its end", || {
            if self.has_ended() {
                return Some(false);
            }
            UnixStream::connect(&socket).ok().map(|_| true)
        })
    }

    /// Returns a path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the daemon's address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("cleat.sock").display())
    }

    /// Returns the daemon's pid.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("the daemon runs").id() as i32
    }

    /// Returns the network namespace it runs in.
    pub fn network(&self) -> &NetworkNamespace {
        &self.network
    }

    /// Returns what the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Prepares a command of the stock `docker` client.
    pub fn docker_command(&self) -> Command {
        self.client(&docker())
    }

    /// Prepares a command of our own client.
    pub fn cleat_command(&self) -> Command {
        self.client(&binary("cleat"))
    }

    fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.path("docker-config"));
        command
    }

    /// Runs the stock client.
    pub fn docker<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        run(self.docker_command().args(args))
    }

    /// Runs the stock client with something to read.
    pub fn docker_with_stdin<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
        stdin: Vec<u8>,
    ) -> Ran {
        run_with_stdin(self.docker_command().args(args), stdin)
    }

    /// Runs our own client.
    pub fn cleat<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        run(self.cleat_command().args(args))
    }

    /// Returns one field of `docker inspect`.
    #[track_caller]
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.docker(["inspect", "--format", &format!("{{{{{field}}}}}"), name]).ok()
    }

    /// Returns what has happened so far, as far as a filter wants it told.
    pub fn events(&self, filter: &str, format: &str) -> String {
        // The client cuts the end to whole seconds: it has to lie in the next one.
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let until = (since_epoch.expect("the clock is right").as_secs() + 1).to_string();
        let range = ["events", "--since", "1h", "--until", &until, "-f", filter];
        self.docker(range.into_iter().chain(["--format", format])).ok()
    }

    /// Makes `busybox:latest` of Debian's busybox-static.
    pub fn import_busybox(&self) {
        let tree = self.path("busybox");
        let bin = tree.join("bin");
        for directory in ["bin", "etc", "tmp", "root", "var"] {
            fs::create_dir_all(tree.join(directory)).expect("a directory can be made");
        }
        fs::copy(busybox(), bin.join("busybox")).expect("busybox can be copied");
        let applets = run(Command::new(busybox()).arg("--list")).ok();
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            let _ = std::os::unix::fs::symlink("busybox", bin.join(applet));
        }
        fs::write(
            tree.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .expect("a file can be written");
        fs::write(tree.join("etc/group"), "root:x:0:\nnobody:x:65534:\n")
            .expect("a file can be written");
        let archive = self.path("busybox.tar");
        run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&archive).arg(".")).expect(0);
        let archive = archive.to_string_lossy();
        self.docker([
            "import",
            "-c",
            "CMD [\"sh\"]",
            "-c",
            "ENV PATH=/bin",
            &*archive,
            "busybox:latest",
        ])
        .ok();
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
    }

    /// Whether the daemon has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let process = self.process.as_mut().expect("the daemon was started");
        process.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until the daemon has ended by itself, as a fault point makes it.
    pub fn wait_dead(&mut self) {
        let mut process = self.process.take().expect("the daemon was started");
        wait_for("the daemon's end", || process.try_wait().expect("a child can be waited for"));
    }

    /// Stops the daemon with SIGTERM and waits for its end.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM)
            .expect("a child can be signalled");
        wait_for("the daemon's graceful end", || {
            process.try_wait().expect("a child can be waited for")
        });
    }

    /// Returns everything of the engine that is on the host now, the daemon's own process aside.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = self.traces().found();
        found.extend(self.network.leftovers());
        for directory in ["run/tasks", "root/containers", "root/snapshots/active"] {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| !is_empty(&entry.path()))
                    .map(|entry| format!("{:?}", entry.path())),
            );
        }
        found
    }

    fn traces(&self) -> Traces<'_> {
        Traces {
            directory: self.directory.path(),
            cgroup: &self.cgroup,
            slice: slice(&self.cgroup),
        }
    }

    fn remove_everything(&mut self) {
        if self.process.is_none() {
            self.spawn();
        }
        let all = self.docker(["ps", "-aq", "--no-trunc"]).ok();
        for id in all.lines() {
            self.docker(["rm", "-f", "-v", id]).ok();
        }
        self.terminate();
    }

    /// Ends whatever a failed test left, so that the next starts on a clean host.
    fn clean_up(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        for pid in self.traces().processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.stop_slice();
    }

    /// A slice stays until somebody stops it, and whoever is in it ends with it.
    fn stop_slice(&self) {
        let slice = slice(&self.cgroup);
        if Traces::directories(&slice).next().is_some() {
            let _ = Command::new("systemctl").args(["stop", &slice]).status();
            // Of v1, systemd leaves alone what it has no use for.
            Traces::directories(&slice).for_each(|path| drop(fs::remove_dir(path)));
        }
    }
}

/// The slice that stands for a cgroup's name; dashes would nest it in others.
fn slice(name: &str) -> String {
    format!("{}.slice", name.replace('-', "_"))
}

fn is_empty(path: &Path) -> bool {
    path.is_dir()
        && fs::read_dir(path)
            .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|e| is_empty(&e.path()))))
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
            self.clean_up();
            return;
        }
        let ended =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_everything()));
        // Processes end a moment after their kill; what is still there after a minute is a leak.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut left = self.leftovers();
        while !left.is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
            left = self.leftovers();
        }
        if ended.is_err() || !left.is_empty() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
            self.clean_up();
        }
        assert!(ended.is_ok(), "the daemon could not be emptied and stopped");
        assert!(left.is_empty(), "left on the host:\n{}", left.join("\n"));
        self.stop_slice();
    }
}
