//! A task's cgroup, for when its shim is dead: who is still in it, and its end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use cleat_sys::pidfd::PidFd;
use nix::unistd::Pid;

const MOUNT: &str = "/sys/fs/cgroup";

/// How often a kill is tried on processes that keep coming.
const ROUNDS: u32 = 50;

/// Returns where the cgroup that a `cgroupsPath` names is below each hierarchy's mount: itself, or for `slice:prefix:name` the
/// scope `prefix-name.scope`. `a-b.slice` lies in `a.slice`. Source: `systemd.slice(5)`.
pub fn directory(cgroups_path: &str) -> String {
    let [slice, prefix, name] = cgroups_path.splitn(3, ':').collect::<Vec<_>>()[..] else {
        return cgroups_path.to_owned();
    };
    let slice = slice.trim_end_matches(".slice");
    let ends = slice.match_indices('-').map(|(at, _)| at).chain([slice.len()]);
    // The root of all slices is called `-`.
    let slices = ends.filter(|&end| end > 0 && slice != "-");
    let parents: String = slices.map(|end| format!("/{}.slice", &slice[..end])).collect();
    format!("{parents}/{prefix}-{name}.scope")
}

/// Returns the directories of the cgroup `path` (`/cleat/<id>`), one in each hierarchy that has it.
fn directories(path: &str) -> Vec<PathBuf> {
    let below = path.trim_start_matches('/');
    let unified = Path::new(MOUNT).join(below);
    let per_controller = fs::read_dir(MOUNT)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join(below)));
    std::iter::once(unified).chain(per_controller).filter(|path| path.is_dir()).collect()
}

/// Whether the host's controllers are on the unified hierarchy alone.
pub fn is_unified() -> bool {
    nix::sys::statfs::statfs(MOUNT)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

/// Returns the pids of everything in the cgroup and below it, each once.
pub fn processes(path: &str) -> Vec<u32> {
    let mut pids: Vec<u32> = Vec::new();
    for directory in directories(path) {
        walk(&directory, &mut |below| {
            let text = fs::read_to_string(below.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        });
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills everything in the cgroup and removes it. Blocks until that is done, for a second at most. Idempotent.
///
/// # Errors
/// If something survives.
pub fn destroy(path: &str) -> io::Result<()> {
    for _ in 0..ROUNDS {
        // v2 kills all of it in one step, those that fork meanwhile too (Linux 5.14).
        for directory in directories(path) {
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
        let pids = processes(path);
        let freezers = directories(path);
        for pid in &pids {
            if let Ok(pidfd) = PidFd::open(Pid::from_raw(*pid as i32)) {
                let _ = pidfd.kill();
            }
        }
        // What is frozen dies when it thaws (v1; v2 lets SIGKILL through).
        for directory in &freezers {
            let _ = fs::write(directory.join("freezer.state"), "THAWED");
        }
        if pids.is_empty() && remove(path).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    remove(path)
}

/// Removes the cgroup `path` from each hierarchy where nothing is in it or below it.
pub fn remove_if_empty(path: &str) {
    for directory in directories(path) {
        // One that is in use is EBUSY, and stays.
        let _ = fs::remove_dir(directory);
    }
}

fn remove(path: &str) -> io::Result<()> {
    let mut result = Ok(());
    for directory in directories(path) {
        let mut all = Vec::new();
        walk(&directory, &mut |below| all.push(below.to_owned()));
        for below in all.iter().rev() {
            if let Err(error) = fs::remove_dir(below)
                && error.kind() != io::ErrorKind::NotFound
            {
                result = Err(error);
            }
        }
    }
    result
}

/// Calls `visit` with a directory and then with those below it.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(directory);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup of the test's own, in whichever hierarchy this host has for `pids` (or the unified one).
    fn make(name: &str) -> (String, PathBuf) {
        let path = format!("/cleat-test-{}-{name}", std::process::id());
        let root = [Path::new(MOUNT).join("pids"), Path::new(MOUNT).to_owned()]
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists())
            .unwrap();
        let directory = root.join(path.trim_start_matches('/')).join("below");
        fs::create_dir_all(&directory).unwrap();
        (path, directory)
    }

    #[test]
    fn a_scope_is_in_its_slices() {
        for (path, expected) in [
            ("/cleat/abc", "/cleat/abc"),
            ("system.slice:cleat:abc", "/system.slice/cleat-abc.scope"),
            ("a-b-c.slice:cleat-x:abc", "/a.slice/a-b.slice/a-b-c.slice/cleat-x-abc.scope"),
            ("-.slice:cleat:abc", "/cleat-abc.scope"),
        ] {
            assert_eq!(directory(path), expected);
        }
    }

    #[test]
    fn everything_in_a_cgroup_is_killed_and_it_is_removed() {
        let (path, directory) = make("kill");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(processes(&path), [child.id()]);
        // A zombie counts as a process until its parent, here the test, has buried it.
        let burial = std::thread::spawn(move || child.wait().unwrap());
        destroy(&path).unwrap();
        assert!(!burial.join().unwrap().success());
        assert!(!directory.exists());
        destroy(&path).unwrap();
    }
}
