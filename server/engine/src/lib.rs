//! Requests become tokens.

pub mod executor;
pub mod sampling;
pub mod step;
