//! The one crate with `unsafe`: owned handles and `Errno` over Linux system calls, no policy.
//!
//! What `nix` has is used from there; this crate adds what it lacks.

pub mod fdpass;
pub mod inherited;
pub mod tty;
