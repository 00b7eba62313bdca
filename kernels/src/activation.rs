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

/// `sqrt(2 / pi)`.
const ROOT: f32 = 0.797_884_6;

impl Activation {
    /// The oracle.
    fn scalar(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluTanh => {
                let inner = ROOT * (x + 0.044_715 * x * x * x);
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
            #[cfg(target_arch = "x86_64")]
            if isa.avx2() {
                // SAFETY: the machine has AVX2 and FMA.
                unsafe { gated_avx2(activation, gate, up, out) };
                continue;
            }
            let _ = isa;
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = activation.scalar(gate) * up;
            }
        }
    })
}

/// Both are `x / (1 + e^-t)`: with `t = x`, and with twice the argument of the tanh.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn gated_avx2(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    use std::arch::x86_64::{
        _mm256_add_ps, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps,
        _mm256_set1_ps, _mm256_storeu_ps,
    };
    // -t = x (a + b x^2)
    let (a, b) = match activation {
        Activation::Silu => (-1.0, 0.0),
        Activation::GeluTanh => (-2.0 * ROOT, -2.0 * ROOT * 0.044_715),
    };
    let (a, b, one) = (_mm256_set1_ps(a), _mm256_set1_ps(b), _mm256_set1_ps(1.0));
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    let (gates, gate_tail) = gate.as_chunks::<8>();
    let (ups, up_tail) = up.as_chunks::<8>();
    for ((out, gate), up) in outs.iter_mut().zip(gates).zip(ups) {
        // SAFETY: each is eight floats.
        unsafe {
            let x = _mm256_loadu_ps(gate.as_ptr());
            let minus_t = _mm256_mul_ps(x, _mm256_fmadd_ps(_mm256_mul_ps(x, x), b, a));
            let y = _mm256_div_ps(x, _mm256_add_ps(one, crate::exp::exp(minus_t)));
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(y, _mm256_loadu_ps(up.as_ptr())));
        }
    }
    for ((out, &gate), &up) in out_tail.iter_mut().zip(gate_tail).zip(up_tail) {
        *out = activation.scalar(gate) * up;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Activation, gated};
    use crate::{Isa, Pool};

    proptest! {
        #[test]
        fn both_match_the_formula_in_f64(
            width in 1usize..70, rows in 0usize..5, seed in prop::collection::vec(-30.0f32..30.0, 700),
        ) {
            let gate_up: Vec<f32> = seed[..2 * width * rows].to_vec();
            for activation in [Activation::Silu, Activation::GeluTanh] {
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; width * rows];
                    gated(isa, &Pool::new(1), activation, &gate_up, width, &mut out).unwrap();
                    for (i, &got) in out.iter().enumerate() {
                        let row = i / width * 2 * width + i % width;
                        let (x, up) = (f64::from(gate_up[row]), f64::from(gate_up[row + width]));
                        let f = match activation {
                            Activation::Silu => x / (1.0 + (-x).exp()),
                            Activation::GeluTanh => {
                                let c = (2.0 / std::f64::consts::PI).sqrt();
                                0.5 * x * (1.0 + (c * (x + 0.044715 * x.powi(3))).tanh())
                            }
                        };
                        let error = (f64::from(got) - f * up).abs();
                        prop_assert!(error <= 1e-6 * (x * up).abs(), "{activation:?}({x}) off by {error}");
                    }
                }
            }
        }
    }
}
