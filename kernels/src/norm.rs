//! RMS normalisation and row-wise sums.

use crate::{Isa, Pool, PoolError};

/// `out[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight` for rows of `weight.len()`.
pub fn rms_norm(isa: Isa, pool: &Pool, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<(), PoolError> { unimplemented!() }

/// As [`rms_norm`], in place, over groups of `weight.len()` inside rows of `stride`: group `g` of
/// row `i` is `x[i * stride + offset + g * weight.len() ..]`, `g < groups` (the QK norm of heads).
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn rms_norm_groups(isa: Isa, pool: &Pool, x: &mut [f32], stride: usize, offset: usize, groups: usize, weight: &[f32], eps: f32) -> Result<(), PoolError> { unimplemented!() }

/// `x += y`.
pub fn add(isa: Isa, pool: &Pool, x: &mut [f32], y: &[f32]) -> Result<(), PoolError> { unimplemented!() }

/// `x[i, :] += bias` for rows of `bias.len()`.
pub fn add_bias(isa: Isa, pool: &Pool, x: &mut [f32], bias: &[f32]) -> Result<(), PoolError> { unimplemented!() }

/// `x *= factor`.
pub fn scale(isa: Isa, pool: &Pool, x: &mut [f32], factor: f32) -> Result<(), PoolError> { unimplemented!() }
