//! Kernel objects of the host that a test may leave behind.

use std::sync::{Mutex, PoisonError};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run;

/// A network namespace with nothing in it but `lo`, gone with the value.
pub struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// Makes it, with `lo` up.
    pub fn new(name: String) -> Self {
        // The first `ip netns add` of a host turns the directory into a mount: two at a time get in each other's way.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        run(Command::new("ip").args(["netns", "add", &name])).expect(0);
        drop(turn);
        let namespace = Self { name };
        run(namespace.command("ip").args(["link", "set", "lo", "up"])).expect(0);
        namespace
    }

    /// Returns a command that will run inside, in the host's mount namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Returns the file that names it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `inside` on a thread that is in the namespace of a file; a socket made there stays there.
    pub fn enter<T: Send>(path: String, inside: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(path).expect("the namespace exists");
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
                    .expect("root may enter it");
                inside()
            });
            entered.join().expect("what ran inside did not panic")
        })
    }

    /// Returns what is in it beyond `lo`: links, and nftables' tables.
    pub fn leftovers(&self) -> Vec<String> {
        let links = run(self.command("ip").args(["-o", "link"])).expect(0).text();
        let tables = run(self.command("nft").args(["list", "tables"])).expect(0).text();
        let links = links.lines().filter(|line| !line.contains(": lo:"));
        links.chain(tables.lines()).map(str::to_owned).collect()
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Where an engine's traces would be found: everything of its is named after its directory or its cgroup.
pub struct Traces<'a> {
    /// Its directory, which paths of mounts and command lines contain.
    pub directory: &'a Path,
    /// The name of its cgroups' parent.
    pub cgroup: &'a str,
    /// Or of its slice: systemd's, unless something is in it.
    pub slice: String,
}

impl Traces<'_> {
    /// Returns mounts, processes and cgroups that are still there.
    pub fn found(&self) -> Vec<String> {
        let mut found = self.mounts();
        found.extend(
            self.processes().into_iter().map(|pid| format!("process {pid}: {}", command_line(pid))),
        );
        found.extend(self.cgroups());
        found
    }

    fn mounts(&self) -> Vec<String> {
        let directory = self.directory.to_string_lossy();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo can be read");
        mounts
            .lines()
            .filter(|line| line.contains(&*directory))
            .map(|line| format!("mount {line}"))
            .collect()
    }

    /// Returns the processes whose command line names the directory.
    pub fn processes(&self) -> Vec<i32> {
        let directory = self.directory.to_string_lossy();
        let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| {
            pid != std::process::id() as i32 && command_line(pid).contains(&*directory)
        })
        .collect()
    }

    fn cgroups(&self) -> Vec<String> {
        let below = |slice: PathBuf| fs::read_dir(slice).into_iter().flatten().flatten();
        let scopes = Self::directories(&self.slice).flat_map(below).map(|entry| entry.path());
        Self::directories(self.cgroup)
            .chain(scopes.filter(|path| path.is_dir()))
            .map(|path| format!("cgroup {}", path.display()))
            .collect()
    }

    /// Returns where a cgroup below the root is there, in every hierarchy.
    pub fn directories(cgroup: &str) -> impl Iterator<Item = PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
        roots.map(move |root: PathBuf| root.join(cgroup)).filter(|path| path.exists())
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
