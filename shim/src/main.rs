//! The shim: one small process per container, owner of its processes, its streams, its log and its exit status. It outlives
//! the daemon.
//!
//! # How it is started
//!
//! By our daemon, directly: `containerd-shim-cleat-v1 -namespace NS -id ID [serve]`, in the bundle's directory, in a session of
//! its own, with
//! - fd 3: the listening unix socket (the daemon has bound it: it can be connected to before the shim runs),
//! - fd 4, optional: the container's network namespace. The shim only keeps it open, so that it outlives restarts of the
//!   container; `config.json` names it as `/proc/SHIM-PID/fd/4`,
//! - fds 5 and up, optional: the sockets of the host's published ports, see [`proxy`],
//! - fds 0 to 2: `/dev/null`, or a file for 2.
//!
//! By a stock containerd: `start`, `delete`, `-v` and `-info`; see [`bootstrap`].
//!
//! # When it dies
//!
//! SIGTERM and SIGINT are ignored, as by stock shims: a shim ends by Task.Shutdown. If it is killed, its container must not
//! live on unseen: cleat-runc gives the first process a parent-death signal once the shim is its parent, which a process may
//! take off; so whoever started the shim also kills what is left in the container's cgroup (our daemon when the connection
//! breaks, containerd by `delete`).
//!
//! # Deliberately absent
//!
//! Threads; grouping of several containers; checkpoint and restore.

#![allow(missing_docs, reason = "a binary: its items are seen by this crate alone")]

mod args;
mod attach;
mod backlog;
mod bootstrap;
mod cgroup;
mod descriptor;
mod error;
mod events;
mod follower;
mod health;
mod hello;
mod journal;
mod logger;
mod oom;
mod output;
mod process;
mod proxy;
mod reaper;
mod restart_policy;
mod rootfs;
mod runtime;
mod serve;
mod service;
mod state;
mod stdin;
mod stdio;
mod supervisor;
mod ttrpc;

use std::{io, os::fd::OwnedFd, process::ExitCode, time::Duration};

use args::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    events::Publisher,
    service::Service,
    supervisor::{Identity, Supervisor},
};

/// How many requests may wait for the supervisor.
const QUEUE: usize = 64;
/// How long slow clients may take after the container has gone.
const LAST_CLIENTS: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1))
        .map_err(io::Error::other)
        .and_then(|args| run(&args))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-cleat-v1: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    if args.version {
        println!("containerd-shim-cleat-v1:\n  Version: {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if args.info {
        return bootstrap::info(args);
    }
    if args.namespace.is_empty() || args.id.is_empty() {
        return Err(io::Error::other("-namespace and -id are needed"));
    }
    match args.action.as_str() {
        "start" => bootstrap::start(args),
        "delete" => bootstrap::delete(args),
        "serve" | "" => serve(args),
        other => Err(io::Error::other(format!("unknown action {other:?}"))),
    }
}

fn serve(args: &Args) -> io::Result<()> {
    cleat_sys::memory::give_back();
    let listener = cleat_sys::inherited::take(3)?;
    // Only kept open.
    let network = cleat_sys::inherited::take(4).ok();
    let published = cleat_sys::inherited::take_from(5)?;
    // It fails where the daemon has done so already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(64)
        .build()?;
    let served = runtime.block_on(supervise(args, listener, published));
    drop(network);
    served
}

async fn supervise(args: &Args, listener: OwnedFd, published: Vec<OwnedFd>) -> io::Result<()> {
    // Handlers, not SIG_IGN: what is ignored stays so in the programs we start.
    let _terminate = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let identity = Identity {
        namespace: args.namespace.clone(),
        id: args.id.clone(),
        bundle: std::env::current_dir()?,
    };
    let publisher = Publisher::new(&args.namespace, std::env::var("TTRPC_ADDRESS").ok());
    let (requests, queue) = mpsc::channel(QUEUE);
    let (unfinished, mut finished) = mpsc::channel(1);
    let (close, closing) = watch::channel(false);
    let supervisor = Supervisor::new(identity, queue, publisher, unfinished.clone(), published)?;
    let served = serve::run(listener, Service::new(&args.id, requests), closing, unfinished);
    let supervised = async {
        supervisor.run().await;
        close.send_replace(true);
    };
    let ((), served) = tokio::join!(supervised, served);
    // Answers still on their way, and what slow clients have not read yet.
    let _ = tokio::time::timeout(LAST_CLIENTS, finished.recv()).await;
    served
}
