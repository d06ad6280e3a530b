//! `cleatd`: the control plane. It may die at any moment, and no container notices.

mod api;
mod archive;
mod config;
mod container;
mod content;
mod engine;
mod event;
mod gc;
mod image;
mod metadata;
mod network;
mod snapshot;
mod spec;
mod task;
mod volume;

fn main() {}
