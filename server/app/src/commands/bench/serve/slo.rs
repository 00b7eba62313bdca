//! What a good answer is: bounds on its times.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::record::Times;

/// Bounds that an answer must meet to count, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Slo {
    pub(super) ttft_ms: Option<f64>,
    pub(super) tpot_ms: Option<f64>,
    pub(super) e2e_ms: Option<f64>,
}

impl Slo {
    /// Whether all bounds are met. An answer of one token has no time per further token, which counts as 0.
    pub(super) fn met(&self, times: &Times) -> bool {
        let within = |bound: Option<f64>, seconds: f64| bound.is_none_or(|ms| seconds * 1e3 <= ms);
        within(self.ttft_ms, times.ttft)
            && within(self.tpot_ms, times.tpot.unwrap_or(0.0))
            && within(self.e2e_ms, times.latency)
    }
}

impl FromStr for Slo {
    type Err = String;

    /// Reads `ttft:500,tpot:50,e2e:8000`: one to three bounds in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',') {
            let (name, bound) = part
                .split_once(':')
                .ok_or_else(|| format!("{part:?} is not NAME:MS, like ttft:500"))?;
            let bound: f64 = bound
                .trim()
                .parse()
                .ok()
                .filter(|ms: &f64| ms.is_finite() && *ms > 0.0)
                .ok_or_else(|| format!("{bound:?} is not a number of milliseconds above 0"))?;
            let field = match name.trim() {
                "ttft" => &mut slo.ttft_ms,
                "tpot" => &mut slo.tpot_ms,
                "e2e" => &mut slo.e2e_ms,
                other => return Err(format!("{other:?} is not ttft, tpot or e2e")),
            };
            if field.replace(bound).is_some() {
                return Err(format!("{} is given twice", name.trim()));
            }
        }
        Ok(slo)
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = [("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms), ("E2E", self.e2e_ms)];
        let given = bounds.iter().filter_map(|(name, bound)| bound.map(|ms| (name, ms)));
        for (index, (name, ms)) in given.enumerate() {
            write!(f, "{}{name} {ms} ms", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_in_any_order() {
        let slo: Slo = "tpot:50,ttft:200.5".parse().unwrap();
        assert_eq!(slo, Slo { ttft_ms: Some(200.5), tpot_ms: Some(50.0), e2e_ms: None });
        assert_eq!(slo.to_string(), "TTFT 200.5 ms, TPOT 50 ms");
        assert_eq!("e2e:8000".parse::<Slo>().unwrap().e2e_ms, Some(8000.0));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "ttft", "ttft:", "ttft:-1", "ttft:0", "ttft:inf", "itl:3", "e2e:1,e2e:2"] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_bounds_must_be_met() {
        let slo: Slo = "ttft:100,tpot:10".parse().unwrap();
        let times = |ttft, tpot| Times { ttft, tpot, latency: 9.0 };
        assert!(slo.met(&times(0.1, Some(0.01))));
        assert!(!slo.met(&times(0.2, Some(0.01))));
        assert!(!slo.met(&times(0.1, Some(0.02))));
        assert!(slo.met(&times(0.1, None)), "an answer of one token");
        assert!(!"e2e:8000".parse::<Slo>().unwrap().met(&times(0.1, None)));
    }
}
