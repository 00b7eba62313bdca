//! Rotary position embedding.

use crate::{Isa, Pool, PoolError};

/// Which pairs of a head's dimensions rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: ggml's NORM, the Llama family as converted to GGUF.
    Adjacent,
    /// `(i, i + dims / 2)`: ggml's NEOX, Qwen and Gemma.
    Halves,
}

/// Cosines and sines of a step's positions, computed once and shared by its layers.
#[derive(Debug, Default)]
pub struct RopeAngles {}

impl RopeAngles {
    /// Angles `position * inv_freq[j]` for each position (row-major `[positions, inv_freq]`),
    /// cosines and sines multiplied by `magnitude` (1 unless the scaling says otherwise).
    /// Angles are computed in f64 and reused storage is kept between steps.
    pub fn set(&mut self, pool: &Pool, inv_freq: &[f32], magnitude: f32, positions: &[u32]) -> Result<(), PoolError> { unimplemented!() }
    /// Rotates the first `2 * inv_freq.len()` dimensions of each of `heads` heads of `head_dim`,
    /// in place; row `i` of `x` is `stride` long and its heads begin at `offset`.
    #[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
    pub fn rotate(&self, isa: Isa, pool: &Pool, pairs: RopePairs, x: &mut [f32], stride: usize, offset: usize, heads: usize, head_dim: usize) -> Result<(), PoolError> { unimplemented!() }
}
