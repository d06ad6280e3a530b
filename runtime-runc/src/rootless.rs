//! Containers of somebody who is not root: in a user namespace of theirs, where they have every right over what is theirs and none
//! over anything else. There may be no cgroup, and ids beyond their own are given out by newuidmap(1) and newgidmap(1).

use crate::error::{Context, Error, Result, errno_of, reason};
use crate::namespace::id_map;
use crate::spec::{IdMapping, Spec};
use nix::unistd::{getegid, geteuid};
use std::path::PathBuf;
use std::process::Command;

/// Returns whether the worker was started by somebody who is not root.
pub fn is_rootless() -> bool {
    !geteuid().is_root()
}

/// Returns whether this process has not the rights that the host's root has, be it of its name or of its user namespace.
pub fn is_without_host_s_rights() -> bool {
    is_rootless() || is_in_user_namespace()
}

fn is_in_user_namespace() -> bool {
    // All ids, mapped to themselves, is what the first one has.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
        numbers != ["0", "0", "4294967295"]
    })
}

/// Returns where their containers are remembered without `--root`. Root of a user namespace is a user as well, unless `USER` says
/// that everything there is root's: Podman without root runs us so.
pub fn default_root() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    let calls_itself_root = || std::env::var_os("USER").is_some_and(|user| user == "root");
    let is_a_user_s = is_rootless() || (is_in_user_namespace() && !calls_itself_root());
    is_a_user_s.then(|| PathBuf::from(runtime).join("cleat-runc"))
}

/// Refuses what cannot be without root.
///
/// # Errors
/// [`Error::Invalid`] in runc's words.
pub fn check(spec: &Spec) -> Result<()> {
    let has_user = spec.linux.namespaces.iter().any(|namespace| namespace.kind == "user");
    if is_rootless() && !has_user {
        return Err(Error::Invalid("rootless container requires user namespaces".to_owned()));
    }
    Ok(())
}

/// Returns the capabilities that a process may get: this one's, or all of those of a user namespace that it makes.
///
/// # Errors
/// Those of `capget(2)`.
pub fn capabilities() -> Result<u64> {
    if !is_rootless() {
        return Ok(cleat_sys::capability::get().context(|| "capget".to_owned())?.permitted);
    }
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last: u32 = last.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(40);
    Ok(u64::MAX >> (63 - last.min(63)))
}

/// Returns whether a container may do without a cgroup, should its owner have no right to one.
pub fn can_do_without_cgroup(spec: &Spec) -> bool {
    let limits = spec.linux.resources.as_ref().is_some_and(|resources| {
        resources.memory().is_some()
            || resources.cpu().is_some()
            || resources.pids().is_some()
            || resources.block_io().is_some()
            || resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())
            || resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())
    });
    !limits
        && spec.linux.cgroups_path.as_ref().is_none_or(String::is_empty)
        && is_without_host_s_rights()
}

/// Writes the mappings of a new user namespace: by ourselves where it is one id that is ours, else by the set-user-id helpers.
///
/// # Errors
/// Where a helper is not installed or refuses.
pub fn map_ids(pid: i32, spec: &Spec) -> Result<()> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, text).context(|| format!("failed to write {path}"))
    };
    let (uids, gids) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    if is_own(gids, getegid().as_raw()) {
        // Or they could drop a group that keeps them from something, `user_namespaces(7)`.
        write("setgroups", "deny")?;
        write("gid_map", &id_map(gids))?;
    } else {
        help("newgidmap", pid, gids)?;
    }
    if is_own(uids, geteuid().as_raw()) {
        write("uid_map", &id_map(uids))
    } else {
        help("newuidmap", pid, uids)
    }
}

fn is_own(mappings: &[IdMapping], id: u32) -> bool {
    matches!(mappings, [only] if only.size == 1 && only.host_id == id)
}

fn help(program: &str, pid: i32, mappings: &[IdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for map in mappings {
        command.args([map.container_id, map.host_id, map.size].map(|number| number.to_string()));
    }
    let output = command.output().map_err(|error| {
        Error::State(format!(
            "{program} is needed for these mappings: {}",
            reason(errno_of(&error))
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::State(format!("{program} failed: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_s_own_id_alone_needs_no_help() {
        let map = |host_id, size| IdMapping { container_id: 0, host_id, size };
        assert!(is_own(&[map(1000, 1)], 1000));
        assert!(!is_own(&[map(1000, 2)], 1000) && !is_own(&[map(0, 1)], 1000));
        assert!(!is_own(&[map(1000, 1), map(100_000, 1)], 1000) && !is_own(&[], 1000));
    }
}
