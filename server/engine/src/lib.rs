//! Requests become tokens: scheduler, KV blocks, prefix cache, step loop, executors.
//!
//! Nothing here knows documents, tonic or HTTP.
#![forbid(unsafe_code)]

pub mod engine;
pub mod executor;
pub mod request;
pub mod sampling;
pub mod step;

pub use engine::{Engine, EngineConfig, TokenStream};
