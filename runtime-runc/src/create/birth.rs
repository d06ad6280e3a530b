//! The birth of a container's first process.

use super::launch::{Undo, died};
use crate::cgroup::Cgroup;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result};
use crate::init::{self, Plan};
use crate::namespace::{self, Namespaces};
use crate::process;
use crate::rootless;
use crate::spec::{Process, Spec};
use cleat_sys::clone::{Fork, fork};
use cleat_sys::pidfd::PidFd;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid};
use std::path::Path;

/// Clones init, by way of a process in between where a user namespace decides what may be joined or made.
pub(super) fn start_init(
    plan: Plan<'_>,
    channel: Channel,
    child_channel: Channel,
    undo: &mut Undo,
) -> Result<(Pid, Channel)> {
    let what = || "unable to start init".to_owned();
    let namespaces = plan.namespaces;
    if !plan.rootless {
        process::close_to_others()?;
    }
    let later = libc::CLONE_NEWCGROUP | namespace::CLONE_NEWTIME;
    let flags = namespaces.new & !later;
    if namespaces.has_user() {
        return start_in_user_namespace(plan, channel, child_channel, flags, undo);
    }
    let cgroup = plan.joiner.and_then(|joiner| joiner.clone_into());
    let joins_pid = namespaces.joined.iter().any(|(flag, _)| *flag == libc::CLONE_NEWPID);
    let own =
        joins_pid.then(|| std::fs::File::open("/proc/self/ns/pid")).transpose().context(what)?;
    namespaces.enter(libc::CLONE_NEWPID)?;
    match fork(flags, cgroup).context(what)? {
        Fork::Child => {
            drop(channel);
            // What was made is the parent's to take back.
            std::mem::forget(std::mem::take(undo));
            init::run(plan, child_channel)
        }
        Fork::Parent { pid, pidfd } => {
            undo.init = Some((pid, pidfd));
            if let Some(own) = own {
                // Hooks are for the host's namespace again.
                cleat_sys::process::set_namespaces(&own, libc::CLONE_NEWPID).context(what)?;
            }
            Ok((pid, channel))
        }
    }
}

fn start_in_user_namespace(
    plan: Plan<'_>,
    channel: Channel,
    child_channel: Channel,
    flags: i32,
    undo: &mut Undo,
) -> Result<(Pid, Channel)> {
    let what = || "unable to start init".to_owned();
    match fork(0, None).context(what)? {
        Fork::Child => {
            drop(channel);
            std::mem::forget(std::mem::take(undo));
            // Others' namespaces first, while we still have the right to; the user namespace last. Who is not root has the right to
            // others' only once they are in it.
            let user = libc::CLONE_NEWUSER;
            let order = if rootless::is_rootless() { [user, !user] } else { [!user, user] };
            let entered = order.into_iter().try_for_each(|kinds| plan.namespaces.enter(kinds));
            let forked =
                entered.and_then(|()| fork(flags | libc::CLONE_PARENT, None).context(what));
            match forked {
                Ok(Fork::Child) => init::run(plan, child_channel),
                Ok(Fork::Parent { pid, .. }) => {
                    let _ = child_channel.send(&Message::Born(pid.as_raw()));
                    std::process::exit(0)
                }
                Err(error) => {
                    let _ = child_channel.send(&Message::Failed(error.to_string()));
                    std::process::exit(1)
                }
            }
        }
        Fork::Parent { pid: between, .. } => {
            drop((plan, child_channel));
            let first = channel.receive().context(what)?;
            let _ = waitpid(between, None);
            match first {
                Some(Message::Born(pid)) => {
                    let pid = Pid::from_raw(pid);
                    undo.init = Some((pid, PidFd::open(pid).context(what)?));
                    Ok((pid, channel))
                }
                Some(Message::Failed(text)) => {
                    Err(Error::Init(format!("unable to start container process: {text}")))
                }
                _ => Err(died()),
            }
        }
    }
}

/// Returns whom the cgroup may be given to: the user of the program, where it sees its own cgroup alone and may write to it.
fn owner_of_cgroup(spec: &Spec, process: &Process, namespaces: &Namespaces) -> Option<Uid> {
    let is_writable = spec.mounts.iter().any(|mount| {
        matches!(mount.kind.as_str(), "cgroup" | "cgroup2")
            && mount.destination == Path::new("/sys/fs/cgroup")
            && !mount.options.iter().any(|option| option == "ro" || option == "rro")
    });
    if !is_writable || !namespaces.makes(libc::CLONE_NEWCGROUP) {
        return None;
    }
    let uid = process.user.uid;
    let Some(map) = spec
        .linux
        .uid_mappings
        .iter()
        .find(|map| uid.checked_sub(map.container_id).is_some_and(|offset| offset < map.size))
    else {
        return spec.linux.uid_mappings.is_empty().then(|| Uid::from_raw(uid));
    };
    Some(Uid::from_raw(map.host_id.checked_add(uid - map.container_id)?))
}

/// Does from outside what a process in a user namespace cannot do for itself.
pub(super) fn admit(
    spec: &Spec,
    process: &Process,
    own: u64,
    namespaces: &Namespaces,
    init: Pid,
    cgroup: Option<&Cgroup>,
) -> Result<()> {
    if let Some(cgroup) = cgroup {
        let unable = |error| {
            Error::Init(format!("unable to apply cgroup configuration: {}", Error::from(error)))
        };
        cgroup.admit(init, &spec.annotations).map_err(unable)?;
        if let Some(owner) = owner_of_cgroup(spec, process, namespaces) {
            cgroup.delegate(owner)?;
        }
    }
    if !namespaces.has_user() {
        return Ok(());
    }
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{init}/{file}");
        std::fs::write(&path, text).context(|| format!("failed to write {path}"))
    };
    if namespaces.makes(libc::CLONE_NEWUSER) && rootless::is_rootless() {
        rootless::map_ids(init.as_raw(), spec)?;
    } else if namespaces.makes(libc::CLONE_NEWUSER) {
        write("gid_map", &namespace::id_map(&spec.linux.gid_mappings))?;
        write("uid_map", &namespace::id_map(&spec.linux.uid_mappings))?;
    }
    if let Some(score) = process.oom_score_adj
        && let Err(error) = write("oom_score_adj", &score.to_string())
    {
        process::tolerate_oom_score(error, own)?;
    }
    Ok(())
}
