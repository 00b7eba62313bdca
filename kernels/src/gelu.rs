//! The exact GELU of encoders, `x / 2 * (1 + erf(x / sqrt 2))`, after a bias.

use crate::softmax::exp;
use crate::{Isa, Pool, PoolError};

/// Elements below which waking another thread costs more than it saves.
const SMALL: usize = 8 * 1024;

/// `x[i, :] = gelu(x[i, :] + bias)` for rows of `bias.len()`. Absolute error under `4e-7 * |x|`; the same bits on
/// every instruction set.
/// # Panics
/// If `x` is no whole number of rows.
pub fn bias_gelu(isa: Isa, pool: &Pool, x: &mut [f32], bias: &[f32]) -> Result<(), PoolError> {
    if x.is_empty() {
        return Ok(());
    }
    let width = bias.len();
    assert!(x.len().is_multiple_of(width), "x is no whole number of rows");
    pool.chunks(x, SMALL.div_ceil(width) * width, |_, x| {
        isa.vectorize(
            #[inline(always)]
            || {
                for row in x.chunks_exact_mut(width) {
                    for (x, &bias) in row.iter_mut().zip(bias) {
                        *x = gelu(*x + bias);
                    }
                }
            },
        );
    })
}

/// The complementary error function by Abramowitz and Stegun's formula 7.1.26 (absolute error under 1.5e-7), which
/// stays close to it on both sides of 0.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let mut p = 1.061_405_4f32;
    for factor in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        p = p.mul_add(t, factor);
    }
    // A NaN is no larger than 0, but its magnitude is NaN still.
    let linear = if x > 0.0 { x } else { 0.0 };
    linear - 0.5 * x.abs() * (p * exp(-z * z))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::bias_gelu;
    use crate::{Isa, Pool};

    /// The oracle: erf by a series in f64 whose terms all have one sign.
    fn exact(x: f64) -> f64 {
        let z = x / std::f64::consts::SQRT_2;
        if z.abs() > 6.0 {
            return if x > 0.0 { x } else { 0.0 };
        }
        let (mut term, mut sum) = (z, z);
        for n in 1..300 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        x / 2.0 * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp())
    }

    #[test]
    fn the_oracle_is_right_where_tables_say_what_it_is() {
        assert!((exact(1.0) - 0.841_344_746_068_543).abs() < 1e-14);
        assert!((exact(-2.0) + 0.045_500_263_896_358).abs() < 1e-13);
    }

    proptest! {
        #[test]
        fn it_matches_the_formula_in_f64_on_every_set(
            width in 1usize..70, rows in 0usize..5, seed in prop::collection::vec(-9.0f32..9.0, 420),
        ) {
            let (bias, x) = (&seed[..width], &seed[width..][..width * rows]);
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let mut out = x.to_vec();
                bias_gelu(isa, &Pool::new(2), &mut out, bias).unwrap();
                for (i, &got) in out.iter().enumerate() {
                    let sum = f64::from(x[i] + bias[i % width]);
                    let error = (f64::from(got) - exact(sum)).abs();
                    prop_assert!(error <= 4e-7 * sum.abs() + 1e-9, "gelu({sum}) off by {error}");
                }
                prop_assert_eq!(&out, first.get_or_insert_with(|| out.clone()));
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        let mut x = [f32::NAN, 1.0];
        bias_gelu(Isa::detect(), &Pool::new(1), &mut x, &[0.0, 0.0]).unwrap();
        assert!(x[0].is_nan() && (x[1] - 0.841_344_7).abs() < 1e-6);
    }
}
