//! x
mod logger;
fn main() {}
