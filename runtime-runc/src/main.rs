//! Placeholder of the first build.

#[allow(dead_code)]
mod cgroup;
#[allow(dead_code)]
mod seccomp;

fn main() {}
