//! Chance that a seed repeats. Loads and prompts need no better generator, and no crate for it.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of `seed`; `salt` tells streams of one seed apart.
    pub(super) fn new(seed: u64, salt: u64) -> Self {
        let mut mixed = Self(salt);
        Self(seed ^ mixed.bits())
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // The high half of a product with 32 random bits: as even as 32 bits can be.
        ((u64::from(bound) * (self.bits() >> 32)) >> 32) as u32
    }

    /// In `(0, 1]`: its logarithm exists.
    fn share(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Of the normal distribution with mean 0 and variance 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    /// Of the gamma distribution with scale 1: its mean and its variance are `shape`, which must be above 0
    /// (Marsaglia and Tsang; shapes below 1 by way of the next whole one).
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.share().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.share().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_its_streams_differ() {
        let draw = |seed, salt| {
            let mut random = Random::new(seed, salt);
            (0..8).map(|_| random.below(1 << 30)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn every_number_below_the_bound_comes_about_equally_often() {
        let mut random = Random::new(7, 0);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn gamma_has_its_mean_and_variance() {
        for shape in [0.3, 1.0, 4.0] {
            let mut random = Random::new(11, 0);
            let drawn: Vec<f64> = (0..20_000).map(|_| random.gamma(shape)).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let squares = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let variance = squares / drawn.len() as f64;
            assert!((mean / shape - 1.0).abs() < 0.05, "mean {mean} of {shape}");
            assert!((variance / shape - 1.0).abs() < 0.1, "variance {variance} of {shape}");
        }
    }
}
