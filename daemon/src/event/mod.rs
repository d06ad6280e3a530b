//! The event bus: the last 256 events, and whoever listens.
