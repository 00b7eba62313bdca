//! Layer normalisation with a bias, alone and after a residual sum.

use super::rows_per_task;
use crate::{Isa, Pool, PoolError};

/// Sums that run side by side.
const LANES: usize = 16;

/// Weights of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Multiplies what is normalised.
    pub weight: &'a [f32],
    /// Added afterwards; as long as the weight.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// `x[i, :] = (x[i, :] - mean) / sqrt(variance + eps) * weight + bias`, for rows of `weight.len()`. Sums are in f64
/// by the oracle, in sixteen f32 lanes above it, with the same bits on every set that is.
/// # Panics
/// If `x` is no whole number of rows or weight and bias differ in length.
pub fn layer_norm(
    isa: Isa,
    pool: &Pool,
    x: &mut [f32],
    norm: LayerNorm<'_>,
) -> Result<(), PoolError> {
    rows(isa, pool, x, norm, |_, _| ())
}

/// `x[i, :] = layer_norm(x[i, :] + y[i, :] + y_bias)`: a block's output joins the stream, which is then normalised.
/// # Panics
/// As [`layer_norm`], and if `y` or `y_bias` does not fit.
pub fn add_layer_norm(
    isa: Isa,
    pool: &Pool,
    x: &mut [f32],
    y: &[f32],
    y_bias: &[f32],
    norm: LayerNorm<'_>,
) -> Result<(), PoolError> {
    let width = norm.weight.len();
    assert_eq!(x.len(), y.len(), "x and y");
    assert_eq!(y_bias.len(), width, "the bias of y");
    rows(isa, pool, x, norm, |row, x| {
        let y = &y[row * width..][..width];
        for ((x, &y), &bias) in x.iter_mut().zip(y).zip(y_bias) {
            *x += y + bias;
        }
    })
}

/// Calls `before` on each row with its number, then normalises it.
fn rows(
    isa: Isa,
    pool: &Pool,
    x: &mut [f32],
    norm: LayerNorm<'_>,
    before: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<(), PoolError> {
    let width = norm.weight.len();
    assert_eq!(norm.bias.len(), width, "weight and bias");
    if x.is_empty() {
        return Ok(());
    }
    assert!(x.len().is_multiple_of(width), "x is no whole number of rows");
    let height = rows_per_task(width);
    pool.chunks(x, height * width, |task, x| {
        isa.vectorize(
            #[inline(always)]
            || {
                for (row, x) in (task * height..).zip(x.chunks_exact_mut(width)) {
                    before(row, x);
                    if isa.avx2() { wide(x, norm) } else { scalar(x, norm) }
                }
            },
        );
    })
}

/// The oracle.
fn scalar(x: &mut [f32], norm: LayerNorm<'_>) {
    let count = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    let factor = 1.0 / (variance + f64::from(norm.eps)).sqrt();
    for ((x, &weight), &bias) in x.iter_mut().zip(norm.weight).zip(norm.bias) {
        *x = ((f64::from(*x) - mean) * factor) as f32 * weight + bias;
    }
}

#[inline(always)]
fn wide(x: &mut [f32], norm: LayerNorm<'_>) {
    let count = x.len() as f32;
    let mean = sum(x, |x| x) / count;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    let factor = 1.0 / (variance + norm.eps).sqrt();
    for ((x, &weight), &bias) in x.iter_mut().zip(norm.weight).zip(norm.bias) {
        *x = (*x - mean) * factor * weight + bias;
    }
}

/// The sum of `of` each.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (rows, tail) = x.as_chunks::<LANES>();
    for row in rows {
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane += of(x);
        }
    }
    let rest: f32 = tail.iter().map(|&x| of(x)).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LayerNorm, add_layer_norm, layer_norm};
    use crate::{Isa, Pool};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn rows_match_the_formula_in_f64(
            (width, x) in (2usize..500, 0usize..70).prop_flat_map(|(width, rows)| {
                (Just(width), prop::collection::vec(-8.0f32..8.0, width * rows))
            }),
        ) {
            let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / width as f32).collect();
            let bias: Vec<f32> = (0..width).map(|i| 1.0 - i as f32 / width as f32).collect();
            let y: Vec<f32> = x.iter().rev().copied().collect();
            let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-5 };
            let expected: Vec<f32> = x.chunks_exact(width).zip(y.chunks_exact(width)).flat_map(|(x, y)| {
                let row: Vec<f64> =
                    (0..width).map(|i| f64::from(x[i] + (y[i] + bias[i]))).collect();
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let factor = 1.0 / (variance + 1e-5).sqrt();
                (0..width)
                    .map(|i| ((row[i] - mean) * factor * f64::from(weight[i]) + f64::from(bias[i])) as f32)
                    .collect::<Vec<_>>()
            }).collect();
            for isa in Isa::available() {
                let pool = Pool::new(2);
                let mut together = x.clone();
                add_layer_norm(isa, &pool, &mut together, &y, &bias, norm).unwrap();
                for (a, b) in together.iter().zip(&expected) {
                    prop_assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
                }
                // The norm alone does to the sum what both do together.
                let mut sum: Vec<f32> =
                    x.iter().zip(&y).enumerate().map(|(i, (x, y))| x + (y + bias[i % width])).collect();
                layer_norm(isa, &pool, &mut sum, norm).unwrap();
                prop_assert_eq!(&sum, &together);
            }
        }
    }
}
