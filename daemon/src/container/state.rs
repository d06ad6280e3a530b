//! Where a container stands, and what a command means there.
