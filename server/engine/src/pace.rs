//! Pace: what steps have cost, and from it how much prefill may ride along with decoding.

mod decode;

pub use decode::{DecodeCosts, EXACT_ROWS};

/// Weight of the newest measurement.
const GAIN: f64 = 0.3;
/// Context at which attention is first taken to cost as much as everything else about a prefill
/// token; measurements then correct the product.
const EVEN_CONTEXT: f64 = 4096.0;
/// Tokens that a chunk costs on top of its own: all keys and values before it are read, however short it is.
const OVERHEAD: f64 = 2.0;
/// Prefill tokens that ride along before anything has been measured, and the fewest ever: progress must
/// be made, however slow the machine.
const LEAST_CHUNK: usize = 2;

/// Measured step costs. Learns from every step; never decides alone.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Seconds of pure decode steps.
    decode: DecodeCosts,
    /// Seconds per unit of prefill work, see [`work`].
    prefill: Option<f64>,
}

/// Prefill work of a chunk of `tokens` tokens ending at `context`: tokens, weighted by the context they
/// attend to, and what a chunk costs anyway.
pub fn work(tokens: usize, context: usize) -> f64 {
    let middle = context as f64 - tokens as f64 / 2.0;
    (tokens as f64 + OVERHEAD) * (1.0 + middle / EVEN_CONTEXT)
}

fn learn(cell: &mut Option<f64>, seconds: f64) {
    *cell = Some(cell.map_or(seconds, |old| old + GAIN * (seconds - old)));
}

impl Pace {
    /// Takes in a finished step: its decode rows, its prefill [`work`] and its seconds.
    pub fn record(&mut self, decode_rows: usize, prefill_work: f64, seconds: f64) {
        if prefill_work == 0.0 {
            if decode_rows > 0 {
                self.decode.record(decode_rows, seconds);
            }
            return;
        }
        let riding =
            if decode_rows > 0 { self.decode_seconds(decode_rows).unwrap_or(0.0) } else { 0.0 };
        let rest = (seconds - riding).max(seconds * 0.05);
        learn(&mut self.prefill, rest / prefill_work);
    }

    /// Expected seconds of a step of `rows` decode rows alone: measured at this size, or at the next smaller one and
    /// each further row taken for a prefill token. (In a burst every step carries prefill, while more and more rows
    /// decode: what they cost alone is not measured for a long time, if the burst is the first thing to happen.)
    pub fn decode_seconds(&self, rows: usize) -> Option<f64> {
        let row = self.prefill.unwrap_or(0.0);
        let more = |(size, seconds): (usize, f64)| seconds + (rows - size) as f64 * row;
        let estimate = self.decode.below(rows).map(more);
        let most = self.decode.above(rows).map(|(_, seconds)| seconds);
        match (estimate, most) {
            (Some(estimate), Some(most)) => Some(estimate.min(most)),
            (None, None) => self.prefill.map(|row| (rows as f64 + OVERHEAD) * row),
            (estimate, most) => estimate.or(most),
        }
    }

    /// What decode steps cost, by their rows.
    pub fn decode(&self) -> &DecodeCosts {
        &self.decode
    }

    /// Prefill tokens per second at short context; 0 until measured.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        self.prefill.map_or(0.0, |s| 1.0 / s)
    }

    /// How much prefill [`work`] fits `seconds`; `None` until measured.
    pub fn work_in(&self, seconds: f64) -> Option<f64> {
        Some(seconds.max(0.0) / self.prefill?)
    }

    /// Tokens, at `context` computed already, that `budget` of work allows: at least 2, however little that is.
    pub fn tokens_for(budget: f64, context: usize) -> usize {
        let tokens = budget / (1.0 + context as f64 / EVEN_CONTEXT) - OVERHEAD;
        (tokens as usize).max(LEAST_CHUNK)
    }

    /// Prefill work a step may carry beside `decode_rows`, which shall not take more than
    /// `stretch` times their own time; without decode rows, `longest` seconds.
    pub fn prefill_budget(&self, decode_rows: usize, stretch: f64, longest: f64) -> f64 {
        if decode_rows == 0 {
            return self.work_in(longest).unwrap_or(f64::INFINITY);
        }
        let Some(own) = self.decode_seconds(decode_rows) else { return LEAST_CHUNK as f64 };
        let spare = (own * (stretch - 1.0)).min(longest);
        self.work_in(spare).unwrap_or(LEAST_CHUNK as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_prefill_is_cut_to_the_stretch_of_the_streams_beside_it() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.record(8, 0.0, 0.020);
            pace.record(0, work(512, 512), 1.0);
        }
        // 20 ms of spare time at about 550 work units a second.
        let budget = pace.prefill_budget(8, 2.0, 1.0);
        assert!((9.0..13.0).contains(&budget), "{budget}");
        assert!(Pace::tokens_for(1000.0, 4096) == 498);
        assert!(pace.prefill_budget(0, 2.0, 0.25) > 100.0);
    }

    #[test]
    fn an_unmeasured_machine_still_makes_progress() {
        let pace = Pace::default();
        assert_eq!(Pace::tokens_for(pace.prefill_budget(3, 2.0, 1.0), 8000), LEAST_CHUNK);
        assert_eq!(pace.prefill_budget(0, 2.0, 1.0), f64::INFINITY);
    }

    #[test]
    fn rows_beyond_those_measured_cost_what_prefill_tokens_do() {
        let mut pace = Pace::default();
        assert_eq!(pace.decode_seconds(3), None);
        pace.record(1, 0.0, 0.008);
        assert_eq!(pace.decode_seconds(32), Some(0.008), "no prefill measured");
        for _ in 0..30 {
            pace.record(0, work(100, 100), 0.1);
        }
        let token = pace.decode_seconds(2).unwrap() - 0.008;
        assert!((0.0009..0.001).contains(&token), "{token}");
        assert!((pace.decode_seconds(32).unwrap() - 0.008 - 31.0 * token).abs() < 1e-9);
        pace.record(64, 0.0, 0.030);
        assert_eq!(pace.decode_seconds(32), Some(0.030), "not more than twice as many take");
        assert_eq!(pace.decode_seconds(64), Some(0.030));
        assert!(pace.decode_seconds(100).unwrap() > 0.060);
    }

    /// An engine's first requests may be a burst: no step without prefill before all prompts are computed.
    #[test]
    fn before_any_decode_step_was_measured_prefill_is_not_starved() {
        let mut pace = Pace::default();
        pace.record(0, work(4, 4), 0.008);
        assert!(pace.decode_seconds(1).is_some_and(|seconds| (0.002..0.010).contains(&seconds)));
        let budget = pace.prefill_budget(2, 20.0, 0.25);
        assert!(budget > 50.0, "{budget}");
    }

    #[test]
    fn a_burst_learns_what_prefill_costs_though_every_step_carries_some() {
        let (mut pace, token, row) = (Pace::default(), 0.001, 0.0012);
        pace.record(1, 0.0, 0.006 + row);
        for rows in 1..64 {
            let tokens = 30;
            let seconds = 0.006 + rows as f64 * row + tokens as f64 * token;
            pace.record(rows, work(tokens, 100), seconds);
        }
        assert!((700.0..1100.0).contains(&pace.prefill_tokens_per_s()), "{pace:?}");
        let alone = pace.decode_seconds(63).unwrap();
        assert!((0.055..0.1).contains(&alone), "{alone}");
    }
}
