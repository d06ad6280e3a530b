//! What commands print: tables, JSON, templates, sizes and times.

pub mod format;
pub mod json;
pub mod natural;
pub mod progress;
pub mod schema;
pub mod table;
pub mod template;
pub mod time;
pub mod units;
