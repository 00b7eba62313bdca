//! Arithmetic on slices: quantised matrices, norms, RoPE, paged attention, and the
//! process-wide worker pool.
//!
//! The home of `unsafe`. A scalar version of every kernel is the oracle; each faster one is
//! tested against it. Nothing here knows models, requests or files.
//!
//! # What callers may rely on
//!
//! - Every kernel is deterministic: its result does not depend on the number of threads or their timing.
//! - [`Matrix::matmul`] gives a row the same bits whatever other rows are computed with it.
//! - [`attention::attention`] gives a sequence the same bits whatever other sequences are in the batch.

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod ceiling;
pub mod device;
mod eight_bit;
#[cfg(target_arch = "x86_64")]
mod exp;
pub mod gelu;
pub mod isa;
pub mod kv;
pub mod matrix;
pub mod norm;
pub mod pool;
pub mod quant;
pub mod rope;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod tile;

pub use attention::{AttentionShape, BiasSpan, SequenceView};
pub use isa::Isa;
pub use kv::{KvLayer, KvType};
pub use matrix::{Matrix, MatrixBuilder};
pub use pool::{Pool, PoolError};
pub use quant::Quant;
pub use rope::RopeAngles;
