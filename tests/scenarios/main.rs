//! One binary for all scenarios, a file per feature: as root, with real clients against a real daemon.

#![allow(clippy::unwrap_used)] // All of it is test code.

mod archive;
mod bad_images;
mod bad_input;
mod crash;
mod durability;
mod exec;
mod fault;
mod health;
mod image;
mod image_gc;
mod lifecycle;
mod network;
mod platforms;
mod registry;
mod registry_options;
mod registry_parts;
mod resources;
mod run;
mod security;
mod skopeo;
mod store;
mod systemd;
mod terminal;
mod tls;
mod units;
mod usage;
mod volume;
mod websocket;
