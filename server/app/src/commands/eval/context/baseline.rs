//! Rankings to compare with: chance, position, words, meaning, and both.

use serde::Serialize;

use super::dataset::shuffle;
use super::haystack::Haystack;
use super::signals::Signals;
use crate::commands::random::Random;

/// Constant of reciprocal rank fusion (Cormack and others, 2009).
const RRF: f32 = 60.0;
/// Widths and decays of neighbour smoothing that are tried.
const WIDTHS: [usize; 5] = [1, 3, 10, 20, 40];
const DECAYS: [f32; 4] = [0.5, 0.7, 0.9, 0.97];
/// What dense scores count beside lexical ones.
const DENSE: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// How units are ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Baseline {
    /// By chance, of a seed.
    Random(u64),
    /// From the beginning.
    Lead,
    Bm25,
    Dense,
    /// Reciprocal ranks of both, added.
    Rrf,
    /// Standard scores of both, added and smoothed over neighbours.
    Zsum(Smoothing),
}

/// Settings of [`Baseline::Zsum`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Smoothing {
    /// Whether a sentence is scored together with its document's title.
    pub(super) titles: bool,
    /// What the dense score counts, 0 to 1; the lexical one counts the rest.
    pub(super) dense: f32,
    /// Sentences on either side.
    pub(super) width: usize,
    /// What each step away multiplies a neighbour's score by.
    pub(super) decay: f32,
}

impl Smoothing {
    /// Everything that is tried: without an embedder words alone, without titles none.
    pub(super) fn grid(embedder: bool, titles: bool) -> Vec<Self> {
        let shares = if embedder { &DENSE[..] } else { &DENSE[..1] };
        let mut grid = Vec::new();
        for titles in [false, true].into_iter().filter(|&with| titles || !with) {
            for &dense in shares {
                let smooth = |width, decay| Self { titles, dense, width, decay };
                grid.push(smooth(0, 1.0));
                grid.extend(
                    WIDTHS.iter().flat_map(|&width| DECAYS.map(|decay| smooth(width, decay))),
                );
            }
        }
        grid
    }

    pub(super) fn label(self) -> String {
        let Self { titles, dense, width, decay } = self;
        let titles = if titles { "titles, " } else { "" };
        if width == 0 {
            return format!("{titles}dense {dense}, no smoothing");
        }
        format!("{titles}dense {dense}, width {width}, decay {decay}")
    }
}

/// What a question's units score.
#[derive(Debug)]
pub(super) struct Scores<'a> {
    pub(super) haystack: &'a Haystack<'a>,
    /// Of units by themselves.
    pub(super) plain: Signals,
    /// Of units after their documents' titles, where there are any.
    pub(super) titled: Option<Signals>,
    /// Tells one question's chance from another's.
    pub(super) salt: u64,
}

impl Scores<'_> {
    /// Units, best first; `None` if that takes an embedder.
    pub(super) fn order(&self, baseline: Baseline) -> Option<Vec<usize>> {
        let units = self.haystack.units.len();
        match baseline {
            Baseline::Random(seed) => {
                let mut order: Vec<usize> = (0..units).collect();
                shuffle(&mut order, &mut Random::new(seed, self.salt));
                Some(order)
            }
            Baseline::Lead => Some((0..units).collect()),
            Baseline::Bm25 => Some(order(&self.plain.bm25)),
            Baseline::Dense => self.plain.dense.as_deref().map(order),
            Baseline::Rrf => {
                let mut fused = vec![0.0; units];
                for ranked in [order(&self.plain.bm25), order(self.plain.dense.as_deref()?)] {
                    for (rank, unit) in ranked.into_iter().enumerate() {
                        fused[unit] += 1.0 / (RRF + (rank + 1) as f32);
                    }
                }
                Some(order(&fused))
            }
            Baseline::Zsum(smoothing) => self.smoothed(smoothing).map(|scores| order(&scores)),
        }
    }

    fn smoothed(&self, smoothing: Smoothing) -> Option<Vec<f32>> {
        let Smoothing { titles, dense, width, decay } = smoothing;
        // Without titles, units stand by themselves anyway.
        let titled = self.titled.as_ref().filter(|_| titles);
        let signals = titled.unwrap_or(&self.plain);
        let mut sum = standard(&signals.bm25);
        if dense > 0.0 {
            let other = standard(signals.dense.as_deref()?);
            sum.iter_mut()
                .zip(other)
                .for_each(|(sum, other)| *sum = (1.0 - dense) * *sum + dense * other);
        }
        Some(smooth(
            &sum,
            &self.haystack.units.iter().map(|unit| unit.document).collect::<Vec<_>>(),
            width,
            decay,
        ))
    }
}

/// Indices by falling score; the first of equals first.
pub(super) fn order(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

/// Scores with mean 0 and variance 1; zeros where all are alike.
fn standard(scores: &[f32]) -> Vec<f32> {
    let count = scores.len().max(1) as f32;
    let mean = scores.iter().sum::<f32>() / count;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f32>() / count;
    let deviation = if variance > 1e-12 { variance.sqrt() } else { f32::INFINITY };
    scores.iter().map(|score| (score - mean) / deviation).collect()
}

/// Each score as the mean of its own and its neighbours' in the same document, one `d` steps away weighing `decay^d`.
fn smooth(scores: &[f32], documents: &[usize], width: usize, decay: f32) -> Vec<f32> {
    let at = |center: usize| {
        let (mut sum, mut total, mut weight) = (scores[center], 1.0, 1.0);
        for distance in 1..=width {
            weight *= decay;
            let sides = [center.checked_sub(distance), Some(center + distance)];
            for side in sides.into_iter().flatten() {
                if documents.get(side) == Some(&documents[center]) {
                    sum += weight * scores[side];
                    total += weight;
                }
            }
        }
        sum / total
    };
    (0..scores.len()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_stays_inside_a_document() {
        let scores = smooth(&[4.0, 0.0, 0.0, 8.0], &[0, 0, 1, 1], 1, 0.5);
        let expected = [4.0 / 1.5, 2.0 / 1.5, 4.0 / 1.5, 8.0 / 1.5];
        assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?}");
        assert_eq!(smooth(&[1.0, 2.0], &[0, 0], 0, 1.0), [1.0, 2.0]);
    }

    #[test]
    fn standard_scores_have_mean_zero_and_unit_variance() {
        let scores = standard(&[1.0, 3.0]);
        assert_eq!(scores, [-1.0, 1.0]);
        assert_eq!(standard(&[2.0, 2.0]), [0.0, 0.0]);
        assert!(standard(&[]).is_empty());
    }

    #[test]
    fn equals_keep_their_order() {
        assert_eq!(order(&[0.0, 2.0, 0.0, 2.0]), [1, 3, 0, 2]);
    }

    #[test]
    fn without_an_embedder_the_grid_is_of_words_alone() {
        assert_eq!(Smoothing::grid(false, false).len(), 21);
        assert_eq!(Smoothing::grid(true, false).len(), 105);
        assert_eq!(Smoothing::grid(true, true).len(), 210);
        let words = Smoothing::grid(false, true);
        assert!(words.iter().all(|smoothing| smoothing.dense == 0.0));
        assert_eq!(words.iter().filter(|smoothing| smoothing.titles).count(), 21);
    }
}
