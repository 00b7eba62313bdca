//! RMS normalisation and row-wise sums.

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

fn square_sum(isa: Isa, x: &[f32]) -> f32 {
    let _ = isa;
    x.iter().map(|x| x * x).sum()
}
