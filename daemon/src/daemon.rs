//! The process: its runtime, its log, its pid file, its signals, and how it tells the service manager.

use std::{error::Error, fs, io, path::Path, time::Duration};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    api,
    config::{self, Config, Flags, Log},
    engine::Engine,
};

/// Enough for a control plane: the data never passes through it.
const WORKERS: usize = 2;
/// Deep enough for the deepest JSON we read; a stack costs only what was touched.
const STACK_BYTES: usize = 1 << 20;
/// Threads for blocking work end after this time without any.
const IDLE_THREAD: Duration = Duration::from_secs(2);

/// What changes the log's level while we run.
pub type LogLevel = reload::Handle<Targets, Registry>;

/// Makes the runtime.
///
/// # Errors
/// If the kernel gives no thread.
pub fn runtime() -> Result<tokio::runtime::Runtime, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build()?;
    Ok(runtime)
}

/// Sets up the log, on stderr.
pub fn trace(log: Log) -> LogLevel {
    let (level, handle) = reload::Layer::new(targets(log));
    let registry = tracing_subscriber::registry().with(level);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if log.json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).init();
    }
    handle
}

/// The level is ours; libraries only warn, since what they do at each frame helps nobody.
fn targets(log: Log) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("cleatd", LevelFilter::from_level(log.level))
}

/// Opens the engine, serves until told to stop, and drains.
///
/// # Errors
/// If it cannot start.
pub async fn run(config: Config, flags: Flags, log: LogLevel) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (hosts, group, pidfile) =
        (config.hosts.clone(), config.group.clone(), config.pidfile.clone());

    let engine = Engine::open(config).await?;
    write_pidfile(&pidfile)?;
    let listeners = api::listen::bind(&hosts, &group).await?;
    let stop = CancellationToken::new();
    let server =
        tokio::spawn(api::server::serve(api::router(engine.clone()), listeners, stop.clone()));
    let collecting = tokio::spawn(engine.clone().collect_images());
    notify(&[NotifyState::Ready]);
    tracing::info!("the API is served");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&engine, &flags, &log),
        }
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("the daemon ends");
    stop.cancel();
    collecting.abort();
    engine.shut_down().await;
    server.await?;
    remove_own(&pidfile, &hosts);
    Ok(())
}

/// SIGHUP: reads the options again, and takes over those that can change.
fn reload(engine: &Engine, flags: &Flags, log: &LogLevel) {
    notify(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
    ]);
    match config::load(flags) {
        Ok(config) => {
            if let Err(error) = log.reload(targets(config.log)) {
                tracing::warn!(%error, "the log's level cannot be changed");
            }
            engine.reload(config);
        }
        Err(error) => tracing::error!(%error, "the configuration is wrong and was not reloaded"),
    }
    notify(&[NotifyState::Ready]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Other programs read it; that a root has one daemon only is the database's lock's business.
fn write_pidfile(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, std::process::id().to_string())
}

/// Inherited sockets stay: the service manager owns them.
fn remove_own(pidfile: &Path, hosts: &[config::Host]) {
    let sockets = hosts.iter().filter_map(|host| match host {
        config::Host::Unix(path) => Some(path.as_path()),
        config::Host::Tcp(..) | config::Host::Inherited => None,
    });
    for path in sockets.chain([pidfile]) {
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!(%error, path = %path.display(), "a file of ours is gone already");
        }
    }
}
