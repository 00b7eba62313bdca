//! Requests become tokens: scheduler, KV blocks, prefix cache, step loop, executors; and texts become vectors: the encoder.
//!
//! Nothing here knows documents, tonic or HTTP.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod detokenize;
pub mod encoder;
pub mod engine;
pub mod executor;
mod load;
pub mod pace;
pub mod prefix;
pub mod request;
pub mod sampling;
pub mod scheduler;
pub mod sequence;
pub mod speculation;
pub mod step;
mod step_loop;
pub mod stream;

pub use engine::{Engine, EngineConfig, ScoreError, Speculate};
pub use stream::TokenStream;
