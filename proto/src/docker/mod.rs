//! The Engine API's JSON, by resource.
//!
//! Go's rules hold for what comes in (keys in any case, null as zero) and for what goes out (`null`, `[]` and `0` where Docker
//! has them), since clients depend on both.

pub mod container;
pub mod go_duration;
pub mod go_json;
pub mod image;
pub mod inspect;
pub mod network;
pub mod stats;
pub mod summary;
pub mod sysctl;
pub mod system;
pub mod volume;
