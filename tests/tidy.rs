//! Holds the layering of ARCHITECTURE.md: reads the `use` lines and paths, and says who knows somebody they must not.

#![allow(clippy::unwrap_used)] // All of it is test code.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns every Rust file below a directory of the repository.
fn files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![cleat_tests::repository().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Returns a file's code: without comments, and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Fails with every file in `directory` that names one of `strangers`.
#[track_caller]
fn does_not_know(directory: &str, strangers: &[&str]) {
    let mut seen = Vec::new();
    for path in files(directory) {
        let code = code(&path);
        for stranger in strangers {
            if code.contains(stranger) {
                seen.push(format!("{} names {stranger}", path.display()));
            }
        }
    }
    assert!(seen.is_empty(), "{}", seen.join("\n"));
}

#[test]
fn processes_link_nothing_of_each_other() {
    let own = |name: &str| {
        fs::read_to_string(cleat_tests::repository().join(name).join("Cargo.toml")).unwrap()
    };
    for (crate_dir, strangers) in [
        ("proto", &["cleat-sys", "cleatd", "cleat-runc", "containerd-shim-cleat-v1"][..]),
        ("sys", &["cleat-proto", "cleatd", "cleat-runc", "containerd-shim-cleat-v1"]),
        ("runtime-runc", &["cleat-proto", "cleatd", "containerd-shim-cleat-v1", "tokio"]),
        ("shim", &["cleatd", "cleat-runc", "axum"]),
        ("daemon", &["cleat-runc", "containerd-shim-cleat-v1"]),
        ("cli", &["cleatd", "cleat-runc", "containerd-shim-cleat-v1"]),
    ] {
        let manifest = own(crate_dir);
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .unwrap()
            .split("[dev-dependencies]")
            .next()
            .unwrap();
        for stranger in strangers {
            let named = dependencies
                .lines()
                .any(|line| line.split(['.', ' ', '=']).next() == Some(stranger));
            assert!(!named, "{crate_dir} depends on {stranger}");
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for directory in [
        "proto",
        "runtime-runc/src",
        "shim/src",
        "daemon/src",
        "cli/src",
        "tests/src",
        "tests/scenarios",
    ] {
        does_not_know(directory, &["unsafe {", "unsafe fn", "unsafe impl"]);
    }
}

#[test]
fn the_engine_knows_neither_http_nor_json_text() {
    does_not_know(
        "daemon/src/engine",
        &["axum::", "hyper::", "http::", "crate::api", "crate::cri"],
    );
}

#[test]
fn arrows_in_the_daemon_go_down_only() {
    let lower = ["content", "snapshot", "archive", "event", "metadata", "registry"];
    let middle = ["container", "spec", "task", "image", "network", "volume"];
    for part in lower {
        let above: Vec<String> =
            middle.iter().chain(&["engine", "api"]).map(|name| format!("crate::{name}")).collect();
        does_not_know(
            &format!("daemon/src/{part}"),
            &above.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    for part in middle {
        does_not_know(&format!("daemon/src/{part}"), &["crate::engine", "crate::api"]);
    }
}

#[test]
fn the_reader_of_the_api_decides_nothing_about_storage() {
    does_not_know(
        "daemon/src/api",
        &["crate::metadata", "crate::snapshot", "crate::content", "crate::task"],
    );
}
