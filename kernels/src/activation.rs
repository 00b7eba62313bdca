//! Gated activations of the feed-forward block.

use crate::{Isa, Pool, PoolError};

/// The non-linearity of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU (Gemma).
    GeluTanh,
}

/// `out[i, j] = f(gate_up[i, j]) * gate_up[i, width + j]`, `gate_up` rows being `2 * width` long.
pub fn gated(isa: Isa, pool: &Pool, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) -> Result<(), PoolError> { unimplemented!() }
