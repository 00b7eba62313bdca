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

impl Activation {
    /// The oracle.
    fn scalar(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluTanh => {
                let inner = 0.797_884_56 * (x + 0.044_715 * x * x * x); // sqrt(2 / pi)
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }
}

/// Elements below which waking another thread costs more than it saves.
const SMALL: usize = 8 * 1024;

/// `out[i, j] = f(gate_up[i, j]) * gate_up[i, width + j]`, `gate_up` rows being `2 * width` long.
/// # Panics
/// If `out` is no whole number of rows or `gate_up` not twice as long.
pub fn gated(
    isa: Isa,
    pool: &Pool,
    activation: Activation,
    gate_up: &[f32],
    width: usize,
    out: &mut [f32],
) -> Result<(), PoolError> {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate_up and out");
    if out.is_empty() {
        return Ok(());
    }
    assert!(out.len().is_multiple_of(width), "out is no whole number of rows");
    let rows = SMALL.div_ceil(width);
    pool.chunks(out, rows * width, |task, out| {
        let gate_up = &gate_up[task * rows * 2 * width..][..2 * out.len()];
        for (out, row) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = row.split_at(width);
            let _ = isa;
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = activation.scalar(gate) * up;
            }
        }
    })
}
