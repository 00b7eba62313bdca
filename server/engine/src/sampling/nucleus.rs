//! Narrowing to the likeliest tokens without sorting the vocabulary, and drawing among them.
//!
//! Tokens are ordered by logit, then by id, the lower first: a total order, so that ties are cut
//! the same way everywhere.

use std::cmp::Ordering;

use pith_kernels::Isa;

use super::exponential::{LANES, exp};

/// A token that may be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: u32,
}

impl Candidate {
    /// The likelier first, the lower id of equals first.
    fn before(&self, other: &Self) -> Ordering {
        // Never NaN. Not `total_cmp`, which tells 0 from -0 where `Cut::keeps` does not.
        let by_logit = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        by_logit.then(self.id.cmp(&other.id))
    }
}

/// How logits become weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The largest logit, of weight 1.
    pub(super) top: f32,
    /// 1 / temperature.
    pub(super) inverse: f32,
}

impl Scale {
    /// `exp((logit - top) / temperature)`: in proportion to the token's probability.
    #[inline(always)]
    fn weight(self, logit: f32) -> f32 {
        exp((logit - self.top) * self.inverse)
    }

    #[inline(always)]
    fn kept_weight(self, cut: Cut, logit: f32, id: u32) -> f32 {
        if cut.keeps(logit, id) { self.weight(logit) } else { 0.0 }
    }
}

/// The last token kept; all before it in order are kept too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    logit: f32,
    id: u32,
}

impl Cut {
    /// Cuts nothing off.
    pub(super) const EVERYTHING: Self = Self { logit: f32::NEG_INFINITY, id: u32::MAX };

    fn after(last: &Candidate) -> Self {
        Self { logit: last.logit, id: last.id }
    }

    /// Whether a token is kept.
    #[inline(always)]
    pub(super) fn keeps(self, logit: f32, id: u32) -> bool {
        (logit > self.logit) | ((logit == self.logit) & (id <= self.id))
    }

    /// Also cuts off every logit below `floor`.
    pub(super) fn raised(self, floor: f32) -> Self {
        if floor > self.logit { Self { logit: floor, id: u32::MAX } } else { self }
    }
}

/// Keeps the `k` likeliest (`0 < k < logits.len()`), left in `candidates` in no order.
///
/// One scan that collects whatever beats the k-th seen so far and shrinks the list by selection
/// whenever it has grown to twice its need: linear in the vocabulary.
pub(super) fn top_k(isa: Isa, logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) -> Cut {
    isa.vectorize(|| scan_top_k(logits, k, candidates))
}

#[inline(always)]
fn scan_top_k(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) -> Cut {
    candidates.clear();
    let room = (2 * k).max(256);
    let mut floor = f32::NEG_INFINITY;
    for (block, values) in logits.chunks(2 * LANES).enumerate() {
        // Ids rise along the scan, so a later token that equals the k-th loses to it: `>`.
        if !values.iter().fold(false, |any, &logit| any | (logit > floor)) {
            continue;
        }
        let first = (block * 2 * LANES) as u32;
        candidates.extend(
            (first..)
                .zip(values)
                .filter(|&(_, &logit)| logit > floor)
                .map(|(id, &logit)| Candidate { logit, id }),
        );
        if candidates.len() >= room {
            floor = keep_first(candidates, k).logit;
        }
    }
    // Fewer than k where the rest are banned.
    let kept = k.min(candidates.len());
    Cut::after(&keep_first(candidates, kept))
}

/// Truncates to the `count` likeliest (at least 1) and returns the last of them.
fn keep_first(candidates: &mut Vec<Candidate>, count: usize) -> Candidate {
    let (_, &mut last, _) = candidates.select_nth_unstable_by(count - 1, Candidate::before);
    candidates.truncate(count);
    last
}

/// Leaves in `candidates` enough of the likeliest tokens to hold the share `share` of all weight,
/// and returns that weight.
///
/// Weight falls by `e` per unit of scaled logit below the top, so a floor not far below it
/// usually does; only flat distributions reach the last resort, every token.
pub(super) fn likely(
    isa: Isa,
    logits: &[f32],
    scale: Scale,
    share: f32,
    candidates: &mut Vec<Candidate>,
    masses: &mut Vec<f64>,
) -> f64 {
    let target = f64::from(share) * weigh(isa, logits, scale, Cut::EVERYTHING, masses);
    let mut cut = Cut::EVERYTHING;
    for depth in [8.0, 12.0, 18.0] {
        let floor = Cut::EVERYTHING.raised(scale.top - depth / scale.inverse);
        // A little over the target: the same weights summed in another order may come out short.
        if weigh(isa, logits, scale, floor, masses) >= target * 1.000_001 {
            cut = floor;
            break;
        }
    }
    candidates.clear();
    candidates.extend(
        (0u32..)
            .zip(logits)
            .filter(|&(id, &logit)| logit > f32::NEG_INFINITY && cut.keeps(logit, id))
            .map(|(id, &logit)| Candidate { logit, id }),
    );
    target
}

/// The weight of all candidates.
pub(super) fn total(candidates: &[Candidate], scale: Scale) -> f64 {
    candidates.iter().map(|candidate| f64::from(scale.weight(candidate.logit))).sum()
}

/// Keeps the shortest run of the likeliest candidates whose weight reaches `target`, at least one.
///
/// Quickselect by weight: the likelier half holds the end of the run or lies wholly inside it, so
/// each round halves what is undecided, and all rounds together are linear.
pub(super) fn top_p(candidates: &mut [Candidate], scale: Scale, target: f64) -> Cut {
    let mut undecided = candidates;
    let mut kept = 0.0;
    while undecided.len() > 1 {
        let half = undecided.len() / 2;
        undecided.select_nth_unstable_by(half - 1, Candidate::before);
        let (likelier, rest) = undecided.split_at_mut(half);
        let mass = total(likelier, scale);
        if kept + mass >= target {
            undecided = likelier;
        } else {
            kept += mass;
            undecided = rest;
        }
    }
    undecided.first().map_or(Cut::EVERYTHING, Cut::after)
}

/// Tokens whose weight is summed before any of them is looked at alone.
const STRETCH: usize = 16 * LANES;

/// Weight of the kept tokens, by stretches into `masses`, and in all.
fn weigh(isa: Isa, logits: &[f32], scale: Scale, cut: Cut, masses: &mut Vec<f64>) -> f64 {
    isa.vectorize(|| weigh_all(logits, scale, cut, masses))
}

#[inline(always)]
fn weigh_all(logits: &[f32], scale: Scale, cut: Cut, masses: &mut Vec<f64>) -> f64 {
    masses.clear();
    masses.extend(logits.chunks(STRETCH).enumerate().map(|(index, stretch)| {
        let first = (index * STRETCH) as u32;
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = stretch.as_chunks::<LANES>();
        for (block, id) in blocks.iter().zip((first..).step_by(LANES)) {
            for lane in 0..LANES {
                sums[lane] += scale.kept_weight(cut, block[lane], id + lane as u32);
            }
        }
        let mut mass: f64 = sums.iter().map(|&lane| f64::from(lane)).sum();
        let id = first + (blocks.len() * LANES) as u32;
        for (id, &logit) in (id..).zip(rest) {
            mass += f64::from(scale.kept_weight(cut, logit, id));
        }
        mass
    }));
    masses.iter().sum()
}

/// Draws among the kept tokens: the first, in order of id, whose cumulative weight exceeds
/// `uniform` (in `[0, 1)`) times all of it.
pub(super) fn draw(
    isa: Isa,
    logits: &[f32],
    scale: Scale,
    cut: Cut,
    uniform: f64,
    masses: &mut Vec<f64>,
) -> u32 {
    let mut left = uniform * weigh(isa, logits, scale, cut, masses);
    // Where rounding leaves a sliver past the last token, that token it is.
    let mut chosen = 0;
    for (index, (&mass, stretch)) in masses.iter().zip(logits.chunks(STRETCH)).enumerate() {
        let last = masses[index + 1..].iter().all(|&later| later == 0.0);
        if mass <= left && !last {
            left -= mass;
            continue;
        }
        for (id, &logit) in ((index * STRETCH) as u32..).zip(stretch) {
            let weight = f64::from(scale.kept_weight(cut, logit, id));
            if weight > 0.0 {
                chosen = id;
                if left < weight {
                    return id;
                }
                left -= weight;
            }
        }
        break;
    }
    chosen
}
