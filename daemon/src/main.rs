//! `cleatd`: the control plane. It may die at any moment, and no container notices.

mod api;
mod archive;
mod config;
mod container;
mod content;
mod daemon;
mod disk;
mod engine;
mod event;
mod gc;
mod image;
mod metadata;
mod network;
mod registry;
mod snapshot;
mod spec;
mod task;
mod volume;

use std::process::ExitCode;

use clap::Parser;

use config::Flags;

fn main() -> ExitCode {
    let flags = Flags::parse();
    #[cfg(debug_assertions)]
    if flags.list_fault_points {
        engine::fault::POINTS.iter().for_each(|point| println!("{point}"));
        return ExitCode::SUCCESS;
    }
    let config = match config::load(&flags) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if flags.validate {
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    let log = daemon::trace(config.log);
    match daemon::runtime().and_then(|runtime| runtime.block_on(daemon::run(config, flags, log))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("failed to start daemon: {}", cleat_proto::kind::whole(error));
    ExitCode::FAILURE
}
