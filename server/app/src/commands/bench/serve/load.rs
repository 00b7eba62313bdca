//! When requests are sent: by clients that wait for their answers, or by a clock that waits for nobody.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::commands::random::Random;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// Closed loop: so many clients, each of which sends its next request when the last has ended.
    Closed { concurrency: u32 },
    /// Open loop: requests come whether or not those before are done.
    Open(Open),
}

/// An open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Open {
    pub(super) rate: Rate,
    /// Shape of the gamma distribution of the gaps: 1 makes arrivals a Poisson process, less makes bursts.
    pub(super) burstiness: f64,
    /// Most requests under way; later ones wait on this side, and their clocks start when they are sent.
    pub(super) max_concurrency: Option<u32>,
}

/// Requests per second; infinite: all at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate(pub(super) f64);

impl Rate {
    /// For the command line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number or inf"))?;
        if rate > 0.0 { Ok(Self(rate)) } else { Err("must be above 0".to_owned()) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Rate {
    /// JSON has no infinity: it becomes the word "inf".
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str("inf")
        }
    }
}

impl Open {
    /// When each of `count` requests is sent, seconds from the start. The gaps are stretched so that the last
    /// one is sent at `count / rate`: runs of one rate then last equally long, whatever chance says.
    pub(super) fn arrivals(&self, count: usize, random: &mut Random) -> Vec<f64> {
        let Rate(rate) = self.rate;
        if rate.is_infinite() {
            return vec![0.0; count];
        }
        let mut at = 0.0;
        let mut arrivals: Vec<f64> = (0..count)
            .map(|_| {
                at += random.gamma(self.burstiness);
                at
            })
            .collect();
        // Very bursty gaps can be too small for a float. Then all come at once, as they almost would.
        if at > 0.0 {
            let stretch = count as f64 / rate / at;
            arrivals.iter_mut().for_each(|arrival| *arrival *= stretch);
        }
        arrivals
    }
}

impl Load {
    /// Most requests that can be under way at once, of `requests`.
    pub(super) fn most_in_flight(self, requests: u32) -> u32 {
        match self {
            Self::Closed { concurrency } => concurrency.min(requests),
            Self::Open(open) => open.max_concurrency.unwrap_or(requests).min(requests),
        }
    }

    /// What it varies, for the axis of a plot.
    pub(super) fn figure(self) -> f64 {
        match self {
            Self::Closed { concurrency } => f64::from(concurrency),
            Self::Open(open) => open.rate.0,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency } => write!(f, "concurrency {concurrency}"),
            Self::Open(Open { rate: Rate(rate), .. }) if rate.is_infinite() => {
                f.write_str("all at once")
            }
            Self::Open(open) => write!(f, "{} requests/s", open.rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: f64, burstiness: f64) -> Open {
        Open { rate: Rate(rate), burstiness, max_concurrency: None }
    }

    fn gaps(arrivals: &[f64]) -> Vec<f64> {
        arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Standard deviation over mean.
    fn variation(values: &[f64]) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (squares / values.len() as f64).sqrt() / mean
    }

    #[test]
    fn arrivals_keep_the_rate_exactly() {
        for burstiness in [0.2, 1.0, 5.0] {
            let arrivals = open(4.0, burstiness).arrivals(200, &mut Random::new(3, 0));
            assert_eq!(arrivals.len(), 200);
            assert!((arrivals[199] - 50.0).abs() < 1e-9, "{}", arrivals[199]);
            assert!(arrivals[0] > 0.0 && gaps(&arrivals).iter().all(|gap| *gap >= 0.0));
        }
    }

    #[test]
    fn burstiness_is_the_shape_of_the_gaps() {
        // A gamma distribution of shape k varies by 1 / sqrt(k); one of shape 1 is exponential.
        for (burstiness, expected) in [(0.25, 2.0), (1.0, 1.0), (16.0, 0.25)] {
            let arrivals = open(10.0, burstiness).arrivals(5000, &mut Random::new(5, 0));
            let variation = variation(&gaps(&arrivals));
            assert!((variation / expected - 1.0).abs() < 0.1, "{burstiness}: {variation}");
        }
    }

    #[test]
    fn an_infinite_rate_sends_all_at_once() {
        assert_eq!(open(f64::INFINITY, 1.0).arrivals(3, &mut Random::new(1, 0)), [0.0; 3]);
        assert_eq!(Rate::parse("inf"), Ok(Rate(f64::INFINITY)));
        assert_eq!(serde_json::to_string(&Rate(f64::INFINITY)).unwrap(), "\"inf\"");
        assert_eq!(serde_json::to_string(&Rate(2.5)).unwrap(), "2.5");
    }

    #[test]
    fn rates_that_send_nothing_are_refused() {
        for text in ["0", "-1", "nan", "fast", ""] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
