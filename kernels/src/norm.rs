//! RMS and layer normalisation, and row-wise sums.

mod layer;

pub use layer::{LayerNorm, add_layer_norm, layer_norm};

use crate::{Isa, Pool, PoolError};

/// Elements below which waking another thread costs more than it saves.
const SMALL: usize = 16 * 1024;

/// `out[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight` for rows of `weight.len()`.
/// # Panics
/// If `x` and `out` differ in length or are no whole number of rows.
pub fn rms_norm(
    isa: Isa,
    pool: &Pool,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), PoolError> {
    let width = weight.len();
    assert_eq!(x.len(), out.len(), "x and out");
    if x.is_empty() {
        return Ok(());
    }
    assert!(x.len().is_multiple_of(width), "x is no whole number of rows");
    let rows = rows_per_task(width);
    pool.chunks(out, rows * width, |task, out| {
        let x = &x[task * rows * width..][..out.len()];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let factor = 1.0 / (square_sum(isa, x) / width as f32 + eps).sqrt();
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * factor * w;
            }
        }
    })
}

/// As [`rms_norm`], in place, over groups of `weight.len()` inside rows of `stride`: group `g` of
/// row `i` is `x[i * stride + offset + g * weight.len() ..]`, `g < groups` (the QK norm of heads).
/// # Panics
/// If the groups do not fit a row, or `x` is no whole number of rows.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn rms_norm_groups(
    isa: Isa,
    pool: &Pool,
    x: &mut [f32],
    stride: usize,
    offset: usize,
    groups: usize,
    weight: &[f32],
    eps: f32,
) -> Result<(), PoolError> {
    let width = weight.len();
    assert!(offset + groups * width <= stride, "groups do not fit the row");
    if x.is_empty() || groups * width == 0 {
        return Ok(());
    }
    assert!(x.len().is_multiple_of(stride), "x is no whole number of rows");
    let rows = rows_per_task(groups * width);
    pool.chunks(x, rows * stride, |_, x| {
        for row in x.chunks_exact_mut(stride) {
            for x in row[offset..offset + groups * width].chunks_exact_mut(width) {
                let factor = 1.0 / (square_sum(isa, x) / width as f32 + eps).sqrt();
                for (x, &w) in x.iter_mut().zip(weight) {
                    *x = *x * factor * w;
                }
            }
        }
    })
}

/// `x += y`.
/// # Panics
/// If the lengths differ.
pub fn add(isa: Isa, pool: &Pool, x: &mut [f32], y: &[f32]) -> Result<(), PoolError> {
    assert_eq!(x.len(), y.len(), "x and y");
    let _ = isa; // one instruction per load and store: the compiler's baseline is memory bound too
    pool.chunks(x, SMALL, |task, x| {
        for (x, &y) in x.iter_mut().zip(&y[task * SMALL..]) {
            *x += y;
        }
    })
}

/// `x[i, :] += bias` for rows of `bias.len()`.
/// # Panics
/// If `x` is no whole number of rows.
pub fn add_bias(isa: Isa, pool: &Pool, x: &mut [f32], bias: &[f32]) -> Result<(), PoolError> {
    if x.is_empty() {
        return Ok(());
    }
    assert!(x.len().is_multiple_of(bias.len()), "x is no whole number of rows");
    let _ = isa;
    pool.chunks(x, rows_per_task(bias.len()) * bias.len(), |_, x| {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, &b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
    })
}

/// `x *= factor`.
pub fn scale(isa: Isa, pool: &Pool, x: &mut [f32], factor: f32) -> Result<(), PoolError> {
    let _ = isa;
    pool.chunks(x, SMALL, |_, x| x.iter_mut().for_each(|x| *x *= factor))
}

/// Rows that make a task worth handing out.
fn rows_per_task(width: usize) -> usize {
    SMALL.div_ceil(width).max(1)
}

/// The sum of squares: in f64 by the oracle, in sixteen f32 lanes with AVX2.
fn square_sum(isa: Isa, x: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        // SAFETY: the machine has AVX2 and FMA.
        return unsafe { square_sum_avx2(x) };
    }
    let _ = isa;
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn square_sum_avx2(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (rows, tail) = x.as_chunks::<16>();
    for row in rows {
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane = x.mul_add(x, *lane);
        }
    }
    let rest: f32 = tail.iter().map(|x| x * x).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{add, add_bias, rms_norm, rms_norm_groups, scale};
    use crate::{Isa, Pool};

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-6 * b.abs())
    }

    fn rows() -> impl Strategy<Value = (Vec<f32>, usize)> {
        (1usize..700, 0usize..60).prop_flat_map(|(width, rows)| {
            (prop::collection::vec(-8.0f32..8.0, width * rows), Just(width))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn norms_match_the_formula_in_f64((x, width) in rows()) {
            let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / width as f32).collect();
            let expected: Vec<f32> = x.chunks_exact(width).flat_map(|row| {
                let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                let factor = 1.0 / (mean + 1e-5).sqrt();
                row.iter().zip(&weight).map(move |(&x, &w)| (f64::from(x) * factor * f64::from(w)) as f32)
                    .collect::<Vec<_>>()
            }).collect();
            for isa in Isa::available() {
                let pool = Pool::new(2);
                let mut out = vec![f32::NAN; x.len()];
                rms_norm(isa, &pool, &x, &weight, 1e-5, &mut out).unwrap();
                prop_assert!(close(&out, &expected));
                // The same rows as groups inside wider rows: neighbours stay as they are.
                let mut wide: Vec<f32> = x.chunks_exact(width).flat_map(|row| {
                    [&[7.0][..], row, row, &[9.0]].concat()
                }).collect();
                let stride = 2 * width + 2;
                rms_norm_groups(isa, &pool, &mut wide, stride, 1, 2, &weight, 1e-5).unwrap();
                for (row, expected) in wide.chunks_exact(stride).zip(expected.chunks_exact(width)) {
                    prop_assert!(row[0] == 7.0 && row[stride - 1] == 9.0);
                    prop_assert!(close(&row[1..=width], expected));
                    prop_assert!(close(&row[1 + width..=2 * width], expected));
                }
            }
        }

        #[test]
        fn sums_are_exact((x, width) in rows()) {
            let pool = Pool::new(2);
            let bias: Vec<f32> = (0..width).map(|i| i as f32).collect();
            let (mut sum, mut biased, mut scaled) = (x.clone(), x.clone(), x.clone());
            add(Isa::detect(), &pool, &mut sum, &x).unwrap();
            add_bias(Isa::detect(), &pool, &mut biased, &bias).unwrap();
            scale(Isa::detect(), &pool, &mut scaled, 0.3).unwrap();
            for (i, &x) in x.iter().enumerate() {
                prop_assert_eq!(sum[i], x + x);
                prop_assert_eq!(biased[i], x + bias[i % width]);
                prop_assert_eq!(scaled[i], x * 0.3);
            }
        }
    }
}
