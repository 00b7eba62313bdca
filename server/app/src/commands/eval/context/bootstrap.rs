//! Intervals of means by resampling questions (Efron, 1979): what else might have come out, had other questions of the
//! same kind been asked.

use serde::Serialize;

use crate::commands::quantile::quantile;
use crate::commands::random::Random;

/// Resamples drawn.
pub(super) const RESAMPLES: usize = 10_000;
/// The same resamples in every run, and for all series of one length: differences are paired.
const SEED: u64 = 20_260_131;

/// A mean and the range that holds it in 95 of 100 resamples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// Of the mean of `values`, one a question; of differences it is the paired interval. `None` of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let count = u32::try_from(values.len()).ok().filter(|&count| count > 0)?;
        let mut random = Random::new(SEED, u64::from(count));
        let mut draw = || values[random.below(count) as usize];
        let mean = |sum: f64| sum / f64::from(count);
        let means: Vec<f64> =
            (0..RESAMPLES).map(|_| mean((0..count).map(|_| draw()).sum())).collect();
        Some(Self {
            mean: mean(values.iter().sum()),
            low: quantile(&means, 0.025),
            high: quantile(&means, 0.975),
        })
    }

    /// For people, in percent points or whatever `scale` makes of it.
    pub(super) fn text(&self, scale: f64) -> String {
        let [mean, low, high] = [self.mean, self.low, self.high].map(|value| value * scale);
        format!("{mean:+.1} [{low:+.1}, {high:+.1}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_normal_distribution() {
        // 400 coin tosses, half of them heads: the mean's error is 0.5 / sqrt(400) = 0.025.
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 2)).collect();
        let interval = Interval::of(&values).unwrap();
        assert_eq!(interval.mean, 0.5);
        assert!((interval.low - (0.5 - 1.96 * 0.025)).abs() < 0.004, "{interval:?}");
        assert!((interval.high - (0.5 + 1.96 * 0.025)).abs() < 0.004, "{interval:?}");
    }

    #[test]
    fn what_never_varies_has_no_width_and_runs_repeat() {
        let same = Interval::of(&[0.25; 9]).unwrap();
        assert_eq!((same.mean, same.low, same.high), (0.25, 0.25, 0.25));
        let values = [0.0, 1.0, 1.0, 0.5];
        assert_eq!(Interval::of(&values), Interval::of(&values));
        assert_eq!(Interval::of(&[]), None);
    }
}
