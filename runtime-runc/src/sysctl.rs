//! Kernel parameters of the container's own namespaces, and of no other (CVE-2022-0811).

use crate::error::{Context, Error, Result};
use crate::namespace::Namespaces;
use crate::procfs::Procfs;
use crate::spec::Spec;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Those of the IPC namespace, besides `fs.mqueue.*`; `ipc_namespaces(7)`, `sysctl(8)`.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.auto_msgmni",
];

/// Refuses parameters that would reach beyond the container.
///
/// # Errors
/// [`Error::Invalid`] in runc's words.
pub fn check(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for key in spec.linux.sysctl.keys() {
        check_one(key, spec, &|kind, file| namespaces.is_private(kind, file))?;
    }
    Ok(())
}

fn check_one(key: &str, spec: &Spec, private: &dyn Fn(i32, &str) -> bool) -> Result<()> {
    let refuse = |text: String| Err(Error::Invalid(text));
    let name = key.replace('/', ".");
    if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        if private(libc::CLONE_NEWIPC, "ipc") {
            return Ok(());
        }
        return refuse(format!("sysctl {key:?} is not allowed in the hosts ipc namespace"));
    }
    if name.starts_with("net.") {
        if private(libc::CLONE_NEWNET, "net") {
            return Ok(());
        }
        return refuse(format!("sysctl {key:?} not allowed in host network namespace"));
    }
    if name.starts_with("user.") {
        if private(libc::CLONE_NEWUSER, "user") {
            return Ok(());
        }
        return refuse(format!(
            "setting ucounts without a user namespace: sysctl {key:?} is not allowed"
        ));
    }
    match name.as_str() {
        "kernel.domainname" if !private(libc::CLONE_NEWUTS, "uts") => {
            refuse(format!("sysctl {key:?} is not allowed in the hosts UTS namespace"))
        }
        "kernel.domainname" if !spec.domainname.is_empty() => refuse(format!(
            "sysctl {key:?} is not allowed as it conflicts with the OCI \"domainname\" field"
        )),
        "kernel.domainname" => Ok(()),
        "kernel.hostname" => refuse(format!(
            "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"
        )),
        _ => refuse(format!("sysctl {key:?} is not in a separate kernel namespace")),
    }
}

/// Writes the parameters, in the namespaces where this process is, through the host's procfs.
///
/// # Errors
/// [`Error`] naming the parameter.
pub fn write_all(sysctls: &BTreeMap<String, String>, procfs: &Procfs) -> Result<()> {
    for (key, value) in sysctls {
        let path = path_of(key)?;
        procfs.write(&path, value).context(|| format!("open sysctl {key} file"))?;
    }
    Ok(())
}

/// Dots part the names, unless the key is written with slashes, where a dot belongs to a name (`net/ipv4/conf/eth0.1/mtu`).
fn path_of(key: &str) -> Result<PathBuf> {
    let dots_first = key.find('.').unwrap_or(usize::MAX) < key.find('/').unwrap_or(usize::MAX);
    let relative: String = if dots_first {
        key.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    } else {
        key.to_owned()
    };
    let plain = Path::new(&relative).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || relative.is_empty() {
        return Err(Error::Invalid(format!("open sysctl {key} file: no such file or directory")));
    }
    Ok(Path::new("sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, private: bool, allowed: bool) {
        let answer = check_one(key, &Spec::default(), &|_, _| private);
        assert_eq!(answer.is_ok(), allowed, "{key}: {answer:?}");
    }

    #[test]
    fn only_what_a_namespace_owns_is_allowed() {
        check("net.ipv4.ip_forward", true, true);
        check("net.ipv4.ip_forward", false, false);
        check("kernel.shmmax", true, true);
        check("kernel.shmmax", false, false);
        check("fs.mqueue.msg_max", true, true);
        check("kernel.core_pattern", true, false);
        check("kernel.hostname", true, false);
        check("vm.swappiness", true, false);
        check("kernel/core_pattern", true, false);
    }

    #[test]
    fn a_key_is_a_path_below_proc_sys() {
        assert_eq!(path_of("net.ipv4.ip_forward").unwrap(), Path::new("sys/net/ipv4/ip_forward"));
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/mtu").unwrap(),
            Path::new("sys/net/ipv4/conf/eth0.1/mtu")
        );
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.mtu").unwrap(),
            Path::new("sys/net/ipv4/conf/eth0.1/mtu")
        );
        assert!(path_of("net/../kernel/core_pattern").is_err() && path_of("").is_err());
    }
}
