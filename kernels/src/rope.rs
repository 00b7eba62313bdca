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
pub struct RopeAngles {
    /// Pairs of dimensions that rotate.
    pairs: usize,
    /// Row-major `[positions, pairs]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Angles below which waking another thread costs more than it saves (a sine in f64 is ~20 ns).
const FEW_ANGLES: usize = 512;
/// As above, for rotated elements.
const FEW_ELEMENTS: usize = 16 * 1024;

impl RopeAngles {
    /// Angles `position * inv_freq[j]` for each position (row-major `[positions, inv_freq]`),
    /// cosines and sines multiplied by `magnitude` (1 unless the scaling says otherwise).
    /// Angles are computed in f64 and reused storage is kept between steps.
    pub fn set(
        &mut self,
        pool: &Pool,
        inv_freq: &[f32],
        magnitude: f32,
        positions: &[u32],
    ) -> Result<(), PoolError> {
        let pairs = inv_freq.len();
        self.pairs = pairs;
        self.cos.resize(positions.len() * pairs, 0.0);
        self.sin.resize(positions.len() * pairs, 0.0);
        if pairs == 0 {
            return Ok(());
        }
        let rows = FEW_ANGLES.div_ceil(pairs);
        let sin = crate::pool::Shards::new(&mut self.sin);
        pool.chunks(&mut self.cos, rows * pairs, |task, cos| {
            // SAFETY: `sin` is as long as `cos` and cut at the same places.
            let sin = unsafe { sin.slice(task * rows * pairs, cos.len()) };
            let both = cos.chunks_exact_mut(pairs).zip(sin.chunks_exact_mut(pairs));
            for ((cos, sin), &position) in both.zip(&positions[task * rows..]) {
                for ((cos, sin), &freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
                    let (s, c) = (f64::from(position) * f64::from(freq)).sin_cos();
                    *cos = (c * f64::from(magnitude)) as f32;
                    *sin = (s * f64::from(magnitude)) as f32;
                }
            }
        })
    }

    /// Rotates the first `2 * inv_freq.len()` dimensions of each of `heads` heads of `head_dim`,
    /// in place; row `i` of `x` is `stride` long and its heads begin at `offset`.
    /// # Panics
    /// If the heads do not fit a row, or the angles are for another number of rows.
    #[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
    pub fn rotate(
        &self,
        isa: Isa,
        pool: &Pool,
        pairs: RopePairs,
        x: &mut [f32],
        stride: usize,
        offset: usize,
        heads: usize,
        head_dim: usize,
    ) -> Result<(), PoolError> {
        let n = self.pairs;
        assert!(offset + heads * head_dim <= stride, "heads do not fit the row");
        if x.is_empty() || n == 0 || heads == 0 {
            return Ok(());
        }
        assert!(2 * n <= head_dim, "more rotated dimensions than a head has");
        assert!(x.len().is_multiple_of(stride), "x is no whole number of rows");
        assert_eq!(x.len() / stride * n, self.cos.len(), "angles of another step");
        let _ = isa;
        let rows = FEW_ELEMENTS.div_ceil(heads * head_dim);
        pool.chunks(x, rows * stride, |task, x| {
            let angles = self.cos.chunks_exact(n).zip(self.sin.chunks_exact(n)).skip(task * rows);
            for (row, (cos, sin)) in x.chunks_exact_mut(stride).zip(angles) {
                for head in row[offset..offset + heads * head_dim].chunks_exact_mut(head_dim) {
                    match pairs {
                        RopePairs::Adjacent => adjacent(&mut head[..2 * n], cos, sin),
                        RopePairs::Halves => halves(&mut head[..2 * n], cos, sin),
                    }
                }
            }
        })
    }
}

fn adjacent(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, &c), &s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        let [a, b] = *pair;
        *pair = [a * c - b * s, a * s + b * c];
    }
}

fn halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(cos.len());
    for (((low, high), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        let (a, b) = (*low, *high);
        (*low, *high) = (a * c - b * s, a * s + b * c);
    }
}

#[cfg(test)]
mod tests {
    use super::{RopeAngles, RopePairs};
    use crate::{Isa, Pool};

    /// Far positions too, where an angle computed in f32 would be off by whole turns of precision.
    #[test]
    fn heads_turn_by_their_angle_and_nothing_else_moves() {
        let inv_freq: Vec<f32> = (0..5).map(|i| 10_000f32.powf(-i as f32 / 5.0)).collect();
        let positions = [0, 1, 131_071, 77];
        let (stride, offset, heads, head_dim) = (31, 3, 2, 13);
        let x: Vec<f32> = (0..4 * stride).map(|i| (i % 23) as f32 - 11.0).collect();
        for (pairs, threads) in [(RopePairs::Adjacent, 1), (RopePairs::Halves, 2)] {
            let pool = Pool::new(threads);
            let mut angles = RopeAngles::default();
            angles.set(&pool, &inv_freq, 1.25, &positions).unwrap();
            let mut y = x.clone();
            angles
                .rotate(Isa::detect(), &pool, pairs, &mut y, stride, offset, heads, head_dim)
                .unwrap();
            let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            for (row, &position) in positions.iter().enumerate() {
                for head in 0..heads {
                    for (j, &freq) in inv_freq.iter().enumerate() {
                        let (sin, cos) = (f64::from(position) * f64::from(freq)).sin_cos();
                        let (a, b) = match pairs {
                            RopePairs::Adjacent => (2 * j, 2 * j + 1),
                            RopePairs::Halves => (j, j + 5),
                        };
                        let at = row * stride + offset + head * head_dim;
                        let (p, q) = (expected[at + a], expected[at + b]);
                        expected[at + a] = 1.25 * (p * cos - q * sin);
                        expected[at + b] = 1.25 * (p * sin + q * cos);
                    }
                }
            }
            for (i, (&y, e)) in y.iter().zip(expected).enumerate() {
                assert!((f64::from(y) - e).abs() < 1e-5, "{pairs:?} element {i}: {y} for {e}");
            }
        }
    }
}
