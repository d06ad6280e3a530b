//! Mounts a root filesystem for a runtime that does not do so itself, in a mount namespace of the shim's own: nothing of it is
//! left when the shim is gone. (cleat-runc gets the mounts and makes them in the container's namespace alone.)

use std::{io, path::Path};

use cleat_proto::containerd::types::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Enters a mount namespace of our own. What the host mounts later still arrives; what we mount does not leave.
pub fn enter_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    Ok(())
}

/// Mounts `mounts` onto `root`, in order.
pub fn mount_all(mounts: &[Mount], root: &Path) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    for each in mounts {
        let target = root.join(each.target.trim_start_matches('/'));
        let (flags, data) = parse_options(&each.options);
        let data = (!data.is_empty()).then_some(data.as_str());
        mount(Some(each.source.as_str()), &target, Some(each.r#type.as_str()), flags, data)?;
        if flags.contains(MsFlags::MS_BIND) && flags.intersects(MsFlags::MS_RDONLY) {
            // A bind takes its flags only when it is there (mount(2), "Remounting an existing mount").
            mount(None::<&str>, &target, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)?;
        }
    }
    Ok(())
}

/// Unmounts what lies on `root`, however much that is.
pub fn unmount_all(root: &Path) {
    while umount2(root, MntFlags::MNT_DETACH).is_ok() {}
}

fn parse_options(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" | "defaults" => {}
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_from_the_file_systems_own_options() {
        let options = ["rbind", "ro", "lowerdir=/a:/b", "index=off"].map(String::from);
        let (flags, data) = parse_options(&options);
        assert_eq!(flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(data, "lowerdir=/a:/b,index=off");
    }
}
