//! The engine: one file per use case. It knows neither HTTP nor gRPC nor JSON.

pub mod error;
pub use error::Error;
