//! Where the binaries under test and the tools of the tests are.

use std::path::{Path, PathBuf};

/// Returns the top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Returns a binary that the workspace's `cargo build` made with the profile of the running test.
///
/// # Panics
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its binary");
    let path = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

fn fetched(path: &str) -> PathBuf {
    repository().join("target/tools").join(path)
}

fn first(candidates: Vec<PathBuf>) -> PathBuf {
    candidates
        .iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("none of {candidates:?} exists: run tests/tools.sh"))
        .clone()
}

/// Returns the stock `docker` client.
pub fn docker() -> PathBuf {
    first(vec!["/usr/local/bin/docker".into(), "/usr/bin/docker".into(), fetched("usr/bin/docker")])
}

/// Returns Debian's `docker-registry`.
pub fn docker_registry() -> PathBuf {
    first(vec![fetched("usr/bin/docker-registry"), "/usr/bin/docker-registry".into()])
}

/// Returns Debian's `umoci`.
pub fn umoci() -> PathBuf {
    first(vec![fetched("usr/bin/umoci"), "/usr/bin/umoci".into()])
}

/// Returns Debian's `skopeo`.
pub fn skopeo() -> PathBuf {
    first(vec![fetched("usr/bin/skopeo"), "/usr/bin/skopeo".into()])
}

/// Returns a static busybox.
pub fn busybox() -> PathBuf {
    first(vec![fetched("bin/busybox"), "/bin/busybox".into(), "/usr/bin/busybox".into()])
}

/// Returns the worker as it is shipped: small and static.
pub fn static_worker() -> PathBuf {
    let target = format!("target/{}-unknown-linux-gnu/small/cleat-runc", std::env::consts::ARCH);
    let path = repository().join(target);
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    path
}

/// Returns the directory with Debian's `containerd` and `ctr`.
pub fn containerd() -> PathBuf {
    first(vec![fetched("usr/bin/containerd"), "/usr/bin/containerd".into()])
        .parent()
        .expect("a file lies in a directory")
        .to_owned()
}
