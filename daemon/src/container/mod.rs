//! A container's record (what was asked for), its state (what is), and the names.

pub mod mount_point;
pub mod names;
pub mod record;
pub mod state;
